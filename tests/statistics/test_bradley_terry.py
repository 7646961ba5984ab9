"""Bradley-Terry against scikit-learn, closed forms and simulations; its graph, its uncertainty, its covariates."""

import gzip
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from prefloop.statistics import (
    Battles,
    analytic_interval,
    bradley_terry,
    graph_of,
    influences,
    normalised_differences,
    resampled,
    sandwich,
    score_interval,
    standardised,
)
from prefloop.statistics.bradley_terry import SEPARATED_RIDGE

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the published battles are not at {SHARED}")


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def _battles(rows: int = 300, models: int = 5, columns: int = 0, seed: int = 0, prompts: int = 60) -> Battles:
    """Coin flips and ties of known ratings, between random pairs."""
    generator = np.random.default_rng(seed)
    first = generator.integers(models, size=rows)
    second = (first + generator.integers(1, models, size=rows)) % models
    features = generator.normal(size=(rows, columns))
    eta = 0.5 * (first - second) + 0.7 * features.sum(1)
    outcomes = (generator.uniform(size=rows) < _sigmoid(eta)).astype(float)
    outcomes[generator.uniform(size=rows) < 0.2] = 0.5
    weights = generator.integers(1, 4, size=rows).astype(float)
    return Battles(first, second, outcomes, weights, generator.integers(prompts, size=rows), features, models)


def _by_scikit_learn(battles: Battles, c: float = math.inf) -> np.ndarray:
    """Ratings relative to model 0 and style; every battle once a class with its share, and the first model left out."""
    design = np.zeros((battles.first.size, battles.models))
    rows = np.arange(battles.first.size)
    design[rows, battles.first], design[rows, battles.second] = 1.0, -1.0
    features = np.hstack([design[:, 1:], battles.features])
    fitted = LogisticRegression(C=c, fit_intercept=False, tol=1e-13, max_iter=10_000).fit(
        np.concatenate([features, features]),
        np.repeat([1, 0], rows.size),
        sample_weight=np.concatenate([battles.weights * battles.outcomes, battles.weights * (1 - battles.outcomes)]),
    )
    return fitted.coef_[0]


@pytest.mark.parametrize("columns", [0, 2])
def test_it_equals_scikit_learn(columns: int) -> None:
    battles = _battles(columns=columns)
    fit = bradley_terry(battles)
    assert fit.converged
    assert fit.ridge == 0
    found = np.concatenate([fit.ratings[1:] - fit.ratings[0], fit.style])
    np.testing.assert_allclose(found, _by_scikit_learn(battles), rtol=0, atol=1e-6)
    assert fit.ratings.sum() == pytest.approx(0, abs=1e-12)


def test_on_a_star_the_score_is_the_mean_outcome() -> None:
    generator = np.random.default_rng(0)
    second = generator.integers(1, 4, size=200)
    outcomes = generator.choice([0.0, 0.5, 1.0], size=200)
    weights = generator.integers(1, 4, size=200).astype(float)
    nothing = np.zeros((200, 0))
    fit = bradley_terry(Battles(np.zeros(200, int), second, outcomes, weights, np.arange(200), nothing, 4))
    for model in (1, 2, 3):
        mine = second == model
        mean = np.average(1 - outcomes[mine], weights=weights[mine])
        assert _sigmoid(fit.ratings[model] - fit.ratings[0]) == pytest.approx(mean, abs=1e-12)


@pytest.mark.parametrize("columns", [0, 1])
def test_names_order_and_sides_do_not_matter(columns: int) -> None:
    battles = _battles(columns=columns)
    fit, names = bradley_terry(battles), np.array([3, 0, 4, 1, 2])
    order = np.random.default_rng(1).permutation(battles.first.size)
    other = Battles(
        names[battles.second][order],
        names[battles.first][order],
        1 - battles.outcomes[order],
        battles.weights[order],
        battles.clusters[order],
        -battles.features[order],
        5,
    )
    again = bradley_terry(other)
    np.testing.assert_allclose(again.ratings[names], fit.ratings, rtol=0, atol=1e-9)
    np.testing.assert_allclose(again.style, fit.style, rtol=0, atol=1e-9)


def test_a_tie_is_half_a_win_and_half_a_loss_and_weights_are_repetitions() -> None:
    battles = _battles()
    counts = battles.weights.astype(int)
    split = Battles(
        *(np.repeat(column, 2 * counts) for column in (battles.first, battles.second)),
        np.concatenate(
            [
                [1.0] * round(2 * w * y) + [0.0] * round(2 * w * (1 - y))
                for y, w in zip(battles.outcomes, counts, strict=True)
            ]
        ),
        np.full(2 * counts.sum(), 0.5),
        np.repeat(battles.clusters, 2 * counts),
        np.zeros((2 * counts.sum(), 0)),
        5,
    )
    np.testing.assert_allclose(bradley_terry(split).ratings, bradley_terry(battles).ratings, rtol=0, atol=1e-9)


def test_doubling_all_battles_leaves_ratings_and_clustered_errors() -> None:
    battles = _battles(columns=1)
    double = replace(battles, weights=2 * battles.weights)
    fit, again = bradley_terry(battles), bradley_terry(double)
    np.testing.assert_allclose(again.ratings, fit.ratings, rtol=0, atol=1e-9)
    for clustered, ratio in ((False, math.sqrt(2)), (True, 1.0)):
        errors = [
            np.sqrt(np.diag(sandwich(one, f, clustered=clustered))) for one, f in ((battles, fit), (double, again))
        ]
        np.testing.assert_allclose(errors[0] / errors[1], ratio, rtol=1e-9)


def test_the_sandwich_of_unclustered_battles_by_hand() -> None:
    """Two models, 3 wins and 1 loss: rating gap log 3, variance n p q / (n p q)^2 = 1 / 0.75."""
    battles = Battles(
        np.zeros(4, int), np.ones(4, int), np.array([1.0, 1, 1, 0]), np.ones(4), np.arange(4), np.zeros((4, 0)), 2
    )
    fit = bradley_terry(battles)
    gap = np.array([1.0, -1.0])
    assert gap @ fit.ratings == pytest.approx(math.log(3), abs=1e-12)
    for clustered in (True, False):
        assert gap @ sandwich(battles, fit, clustered=clustered) @ gap == pytest.approx(1 / 0.75, abs=1e-9)
    one = replace(battles, clusters=np.zeros(4, int))
    assert gap @ sandwich(one, fit, clustered=True) @ gap == pytest.approx(0, abs=1e-18)


def test_influences_are_what_a_cluster_changes() -> None:
    """Against fits in which one cluster weighs a little more."""
    battles = _battles(columns=1)
    fit, names = bradley_terry(battles), np.unique(battles.clusters)
    found = influences(battles, fit, clustered=True)
    for number in (0, 7, 31):
        heavier = np.where(battles.clusters == names[number], 1 + 1e-5, 1.0)
        moved = bradley_terry(replace(battles, weights=battles.weights * heavier))
        change = np.concatenate([moved.ratings - fit.ratings, moved.style - fit.style]) / 1e-5
        np.testing.assert_allclose(found[number], change, rtol=0, atol=1e-4 * np.abs(found).max())


@pytest.mark.parametrize("columns", [0, 1])
@pytest.mark.parametrize("clustered", [True, False])
def test_resamples_scatter_as_the_sandwich_says(columns: int, clustered: bool) -> None:
    """600 draws leave 3 %; the bootstrap's own higher order terms some more."""
    battles = _battles(rows=1500, columns=columns, prompts=300)
    fit = bradley_terry(battles)
    draws = resampled(battles, fit, clustered=clustered, draws=600, seed=0)
    errors = np.sqrt(np.diag(sandwich(battles, fit, clustered=clustered)))
    np.testing.assert_allclose(draws.std(0), errors, rtol=0.13)
    np.testing.assert_allclose(draws.mean(0), [*fit.ratings, *fit.style], rtol=0, atol=0.25 * errors.max())


def test_the_same_seed_draws_the_same() -> None:
    battles = _battles()
    fit = bradley_terry(battles)
    one, same, other = (resampled(battles, fit, clustered=True, draws=5, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.01


def test_a_model_that_never_loses_is_found_and_stays_finite() -> None:
    """0 and 1 share wins; 2 won everything, 3 lost everything."""
    pairs = [(0, 1, 1.0), (0, 1, 0.0), (2, 0, 1.0), (2, 1, 1.0), (0, 3, 1.0), (3, 1, 0.0), (2, 3, 1.0)]
    first, second, outcomes = (np.array(column) for column in zip(*pairs, strict=True))
    battles = Battles(first, second, outcomes, np.ones(7), np.arange(7), np.zeros((7, 0)), 4)
    graph, fit = graph_of(battles), bradley_terry(battles)
    assert len(set(graph.components)) == 1
    assert graph.groups[0] == graph.groups[1]
    assert len({*graph.groups}) == 3
    assert fit.ridge == SEPARATED_RIDGE
    assert fit.converged
    assert fit.ratings[2] > 5
    assert fit.ratings[3] < -5


def test_a_tie_is_enough_to_connect_both_ways() -> None:
    battles = Battles(
        np.array([0, 0]), np.array([1, 1]), np.array([1.0, 0.5]), np.ones(2), np.arange(2), np.zeros((2, 0)), 2
    )
    assert len({*graph_of(battles).groups}) == 1
    assert bradley_terry(battles).ratings[0] == pytest.approx(math.log(3) / 2, abs=1e-12)


def test_disconnected_models_have_ratings_of_mean_zero_each() -> None:
    first, second = np.array([0, 0, 2, 2, 2]), np.array([1, 1, 3, 3, 3])
    battles = Battles(first, second, np.array([1.0, 0, 1, 1, 0]), np.ones(5), np.arange(5), np.zeros((5, 0)), 4)
    graph, fit = graph_of(battles), bradley_terry(battles)
    assert graph.components[0] == graph.components[1] != graph.components[2] == graph.components[3]
    assert fit.ridge == 0
    np.testing.assert_allclose(fit.ratings, [0, 0, math.log(2) / 2, -math.log(2) / 2], rtol=0, atol=1e-12)


def test_a_feature_that_separates_is_held_by_the_ridge() -> None:
    features = np.array([[1.0], [1.0], [-1.0], [-1.0]])
    battles = Battles(
        np.array([0, 1, 0, 1]), np.array([1, 0, 1, 0]), np.array([1.0, 1, 0, 0]), np.ones(4), np.arange(4), features, 2
    )
    fit = bradley_terry(battles)
    assert fit.ridge == SEPARATED_RIDGE
    assert fit.converged
    assert 5 < fit.style[0] < 20


def test_style_control_takes_out_what_length_alone_decides() -> None:
    """Outcomes from length only, models of different length: plain ratings differ, controlled ones do not."""
    generator = np.random.default_rng(3)
    first = generator.integers(3, size=6000)
    second = (first + generator.integers(1, 3, size=6000)) % 3
    lengths = [np.exp(generator.normal(5 + 0.3 * side, 0.5)) for side in (first, second)]
    features = standardised(normalised_differences(*(one[:, None] for one in lengths)), np.ones(6000))
    outcomes = (generator.uniform(size=6000) < _sigmoid(1.2 * features[:, 0])).astype(float)
    battles = Battles(first, second, outcomes, np.ones(6000), np.arange(6000), features, 3)
    fit, plain = bradley_terry(battles), bradley_terry(replace(battles, features=np.zeros((6000, 0))))
    error = np.sqrt(np.diag(sandwich(battles, fit, clustered=True)))[:3]
    assert np.all(np.abs(fit.ratings) < 2.5 * error)
    assert plain.ratings[2] - plain.ratings[0] > 0.5
    assert fit.style[0] == pytest.approx(1.2, abs=0.15)


def test_normalised_differences_by_hand() -> None:
    first, second = np.array([[3.0], [0.0], [2.0]]), np.array([[1.0], [0.0], [0.0]])
    np.testing.assert_allclose(normalised_differences(first, second)[:, 0], [0.5, 0.0, 1.0])
    np.testing.assert_allclose(normalised_differences(first, second, offset=1.0)[:, 0], [2 / 5, 0.0, 2 / 3])


def test_standardised_by_hand() -> None:
    values = standardised(np.array([[1.0, 7.0], [2.0, 7.0], [4.0, 7.0]]), np.array([1.0, 2.0, 1.0]))
    # mean 9/4, variance (25/16 + 2/16 + 49/16) / 4 = 76/64
    np.testing.assert_allclose(values[:, 0], (np.array([1.0, 2.0, 4.0]) - 2.25) / math.sqrt(76 / 64), atol=1e-12)
    np.testing.assert_array_equal(values[:, 1], 0.0)


def test_intervals_of_scores() -> None:
    gaps = np.random.default_rng(0).normal(0.4, 0.2, size=4001)
    low, high = score_interval(gaps, 0.4, None)
    expected = analytic_interval(0.4, 0.2)
    assert (low, high) == pytest.approx(expected, abs=0.6)
    symmetric = np.array([1.0, -1.0, 0.5, -0.5])
    assert score_interval(gaps, float(np.median(gaps)), symmetric) == pytest.approx((low, high), abs=0.1)
    assert math.isnan(score_interval(np.array([np.nan]), 0.0, None)[0])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"second": np.zeros(2, int)}, "does not meet itself"),
        ({"outcomes": np.array([1.0, 1.5])}, r"in \[0, 1\]"),
        ({"outcomes": np.array([1.0, np.nan])}, r"in \[0, 1\]"),
        ({"weights": np.array([1.0, 0.0])}, "> 0"),
    ],
)
def test_impossible_battles_are_refused(changed: dict, message: str) -> None:
    battles = Battles(np.zeros(2, int), np.ones(2, int), np.ones(2), np.ones(2), np.arange(2), np.zeros((2, 0)), 2)
    with pytest.raises(ValueError, match=message):
        replace(battles, **changed)


@shared
def test_the_full_graph_of_13_models_has_the_published_numbers() -> None:
    """62,790 comparisons; published to eight decimals. The sandwich has no small-sample factor."""
    expected = json.loads((SHARED / "evaluation" / "data" / "bt_full_graph_expected.json").read_text())
    number = {name: index for index, name in enumerate(expected["models"])}
    rows = []
    with gzip.open(SHARED / "data" / "alpacaeval_prefs.jsonl.gz", "rt") as lines:
        for line in lines:
            prompt = json.loads(line)
            for index, one in enumerate(prompt["responses"]):
                for other in prompt["responses"][index + 1 :]:
                    gap = one["preference_vs_baseline"] - other["preference_vs_baseline"]
                    outcome = 1.0 if gap > 0.01 else 0.0 if gap < -0.01 else 0.5
                    rows.append(
                        (
                            number[one["model"]],
                            number[other["model"]],
                            outcome,
                            prompt["index"],
                            one["length"],
                            other["length"],
                        )
                    )
    first, second, outcomes, prompts, *lengths = (np.array(column) for column in zip(*rows, strict=True))
    battles = Battles(first, second, outcomes, np.ones(len(rows)), prompts, np.zeros((len(rows), 0)), 13)
    fit = bradley_terry(battles)
    np.testing.assert_allclose(fit.ratings, expected["rating"], rtol=0, atol=1e-8)
    for clustered, name in ((False, "se_sandwich_rows"), (True, "se_sandwich_clustered_by_prompt")):
        errors = np.sqrt(np.diag(sandwich(battles, fit, clustered=clustered)))
        np.testing.assert_allclose(errors, expected[name], rtol=0, atol=1e-8)
    differences = normalised_differences(*(one[:, None].astype(float) for one in lengths))
    styled = bradley_terry(replace(battles, features=standardised(differences, battles.weights)))
    np.testing.assert_allclose(styled.ratings, expected["style"]["rating"], rtol=0, atol=1e-8)
    assert styled.style[0] == pytest.approx(expected["style"]["beta"], abs=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("columns", [0, 1])
def test_sandwich_intervals_cover_known_ratings_as_often_as_stated(columns: int) -> None:
    """500 sets of 200 prompts, each with six battles of three models that share a liking of their prompt. The truth is
    the fit of as many battles as 200 such sets have; the simulation's own standard error is 1 %."""

    def drawn(generator: np.random.Generator, prompts: int) -> Battles:
        clusters = np.repeat(np.arange(prompts), 6)
        first, second = np.tile([0, 0, 1, 1, 2, 2], prompts), np.tile([1, 2, 2, 0, 0, 1], prompts)
        liking = generator.normal(0, 0.8, size=(prompts, 3))
        features = generator.normal(size=(6 * prompts, columns))
        eta = np.array([0.0, 0.6, 1.0])[first] - np.array([0.0, 0.6, 1.0])[second] + 0.5 * features.sum(1)
        eta += liking[clusters, first] - liking[clusters, second]
        outcomes = (generator.uniform(size=6 * prompts) < _sigmoid(eta)).astype(float)
        return Battles(first, second, outcomes, np.ones(6 * prompts), clusters, features, 3)

    truth = bradley_terry(drawn(np.random.default_rng(1), 40_000)).ratings
    generator, covered = np.random.default_rng(2), 0
    for _ in range(500):
        battles = drawn(generator, 200)
        fit = bradley_terry(battles)
        gap, contrast = fit.ratings[2] - fit.ratings[0], np.zeros(3 + columns)
        contrast[[2, 0]] = 1.0, -1.0
        error = math.sqrt(contrast @ sandwich(battles, fit, clustered=True) @ contrast)
        low, high = analytic_interval(gap, error)
        covered += low <= 100 * _sigmoid(truth[2] - truth[0]) <= high
    assert 0.93 <= covered / 500 <= 0.97

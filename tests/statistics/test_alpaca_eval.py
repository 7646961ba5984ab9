"""AlpacaEval's GLM in all variants: liblinear, symmetries, planted biases, the search of C, and what a fit rests on."""

import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from prefloop.statistics import (
    C_GRID,
    AlpacaRows,
    GamedRows,
    LengthControlled,
    against_another,
    alpaca_eval_statistic,
    bca_bootstrap,
    fit_alpaca_eval,
    identification,
    is_baseline,
    is_extreme_change,
    length_controlled,
    length_terms,
    search_c,
)

ROWS = 60


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def _rows(seed: int = 0, rows: int = ROWS) -> AlpacaRows:
    """Soft preferences with noise, in the full variant, with two gamed baselines on the same instructions."""
    generator = np.random.default_rng(seed)
    baseline, model = np.round(np.exp(generator.normal(7, 0.5, size=(2, rows))))
    difficulty = generator.normal(size=rows)
    lengths = length_terms(baseline, model, np.ones(rows))
    preferences = _sigmoid(-1.2 * lengths + 0.5 * difficulty + 0.4 + generator.normal(size=rows))
    gamed_lengths = np.tanh(np.repeat([-1.0, 1.0], rows) + generator.normal(size=2 * rows))
    gamed = GamedRows(
        preferences=_sigmoid(-3.0 * gamed_lengths + 1.0),
        lengths=gamed_lengths,
        difficulty=np.tile(difficulty, 2),
        instructions=np.tile(np.arange(rows), 2),
        weight=0.1,
    )
    return AlpacaRows(preferences, baseline, model, np.arange(rows), difficulty, gamed)


def _noreg(rows: AlpacaRows) -> AlpacaRows:
    return replace(rows, gamed=None)


def _minimal(rows: AlpacaRows) -> AlpacaRows:
    return replace(rows, gamed=None, difficulty=None)


VARIANTS = {"full": lambda rows: rows, "noreg": _noreg, "minimal": _minimal}


def _swapped(rows: AlpacaRows) -> AlpacaRows:
    return replace(
        rows, preferences=1 - rows.preferences, length_baseline=rows.length_model, length_model=rows.length_baseline
    )


@pytest.mark.parametrize("c", [0.36, 21.5])
def test_the_full_variant_equals_liblinear_on_duplicated_rows(c: float) -> None:
    """Tolerance: liblinear stops near 1e-8 here."""
    rows = _rows()
    assert rows.gamed is not None
    assert rows.difficulty is not None
    lengths = length_terms(rows.length_baseline, rows.length_model, np.ones(ROWS))
    features = np.concatenate(
        [
            np.column_stack([lengths, rows.difficulty, np.ones(ROWS)]),
            np.column_stack([rows.gamed.lengths, rows.gamed.difficulty, np.zeros(2 * ROWS)]),
        ]
    )
    targets = np.concatenate([rows.preferences, rows.gamed.preferences])
    weights = np.concatenate([np.ones(ROWS), np.full(2 * ROWS, 0.1)])
    reference = LogisticRegression(
        l1_ratio=1.0, solver="liblinear", C=c, fit_intercept=False, tol=1e-12, max_iter=100_000, random_state=0
    ).fit(
        np.concatenate([features, features]),
        np.repeat([1, 0], targets.size),
        sample_weight=np.concatenate([weights * targets, weights * (1 - targets)]),
    )

    fit = fit_alpaca_eval(rows, c=c)

    np.testing.assert_allclose([fit.length, *fit.covariates], reference.coef_[0], rtol=0, atol=1e-6)
    theirs = 100 * _sigmoid(features[:ROWS, 1:] @ reference.coef_[0, 1:]).mean()
    assert fit.length_controlled_winrate == pytest.approx(theirs, abs=1e-4)


def test_the_minimal_variant_is_the_fit_on_instructions_of_ones_own() -> None:
    rows = _minimal(_rows())
    other = length_controlled(rows.preferences, rows.length_baseline, rows.length_model, c=2.8)
    assert fit_alpaca_eval(rows, c=2.8) == other


def test_variants_differ() -> None:
    found = [fit_alpaca_eval(variant(_rows()), c=2.8).length_controlled_winrate for variant in VARIANTS.values()]
    assert min(abs(one - other) for i, one in enumerate(found) for other in found[:i]) > 0.02


@pytest.mark.parametrize("variant", ["noreg", "minimal"])
def test_exchanging_the_sides_gives_100_less_with_the_searched_c(variant: str) -> None:
    there = VARIANTS[variant](_rows())
    back = _swapped(there)
    c = search_c(there).c
    assert search_c(back).c == c
    one, other = (fit_alpaca_eval(rows, c=c) for rows in (there, back))
    assert one.length_controlled_winrate + other.length_controlled_winrate == pytest.approx(100, abs=1e-9)
    assert other.length == pytest.approx(one.length, abs=1e-9)


def test_gamed_rows_break_the_symmetry() -> None:
    one, other = (fit_alpaca_eval(rows, c=2.8) for rows in (_rows(), _swapped(_rows())))
    assert abs(one.length_controlled_winrate + other.length_controlled_winrate - 100) > 1e-3


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_baseline_against_itself_has_exactly_50(variant: str) -> None:
    rows = _rows()
    same = VARIANTS[variant](replace(rows, preferences=np.full(ROWS, 0.5), length_model=rows.length_baseline))
    assert is_baseline(same)
    fit = fit_alpaca_eval(same, c=2.8)
    assert (fit.length_controlled_winrate, fit.lc_standard_error) == (50.0, 0.0)
    estimate = bca_bootstrap(alpaca_eval_statistic(same, c=2.8), same.instructions, seed=0, draws=20)
    assert estimate.interval == (50.0, 50.0)


def test_equal_lengths_alone_or_draws_alone_make_no_baseline() -> None:
    rows = _rows()
    assert not is_baseline(replace(rows, length_model=rows.length_baseline))
    assert not is_baseline(replace(rows, preferences=np.full(ROWS, 0.5)))
    assert not is_baseline(replace(rows, preferences=np.full(ROWS, np.nan), length_model=rows.length_baseline))


def test_order_of_rows_does_not_matter() -> None:
    rows, order = _rows(), np.random.default_rng(1).permutation(ROWS)
    assert rows.difficulty is not None
    shuffled = AlpacaRows(
        rows.preferences[order],
        rows.length_baseline[order],
        rows.length_model[order],
        rows.instructions[order],
        rows.difficulty[order],
        rows.gamed,
    )
    one, other = (fit_alpaca_eval(each, c=2.8) for each in (rows, shuffled))
    assert other.length_controlled_winrate == pytest.approx(one.length_controlled_winrate, abs=1e-9)
    assert identification(shuffled, other).variance_inflation == pytest.approx(
        identification(rows, one).variance_inflation, abs=1e-9
    )


def test_three_lengths_of_one_quality_end_at_one_win_rate() -> None:
    """One policy, told to be concise, plain or verbose, before a judge that pays for length: 805 judgments each."""
    generator = np.random.default_rng(2)
    baseline = np.exp(generator.normal(7.4, 0.5, size=805))
    noise = generator.normal(0, 0.5, size=805)
    raw, controlled = [], []
    for ratio in (0.6, 1.0, 1.6):
        model = baseline * ratio * np.exp(generator.normal(0, 0.35, size=805))
        lengths = length_terms(baseline, model, np.ones(805))
        preferences = _sigmoid(-1.5 * lengths + 0.3 + noise)
        rows = AlpacaRows(preferences, baseline, model, np.arange(805))
        raw.append(100 * preferences.mean())
        controlled.append(fit_alpaca_eval(rows, c=search_c(rows).c).length_controlled_winrate)
    assert max(raw) - min(raw) > 20
    assert max(controlled) - min(controlled) < 1.5


def test_the_search_follows_its_definition() -> None:
    """Against folds cut, fitted and scored one by one, for three values of C."""
    rows, grid = _rows(3), (0.05, 0.4, 3.0)
    assert rows.gamed is not None
    assert rows.difficulty is not None
    lengths = length_terms(rows.length_baseline, rows.length_model, np.ones(ROWS))
    own = np.column_stack([lengths, rows.difficulty, np.ones(ROWS)])
    theirs = np.column_stack([rows.gamed.lengths, rows.gamed.difficulty, np.zeros(2 * ROWS)])
    features, targets = np.concatenate([own, theirs]), np.concatenate([rows.preferences, rows.gamed.preferences])
    weights = np.concatenate([np.ones(ROWS), np.full(2 * ROWS, 0.1)])
    expected = []
    for c in grid:
        scores = []
        for fold in range(5):
            out = np.arange(3 * ROWS) % 5 == fold
            fitted = LogisticRegression(
                l1_ratio=1.0, solver="liblinear", C=c, fit_intercept=False, tol=1e-12, max_iter=100_000, random_state=0
            ).fit(
                np.concatenate([features[~out], features[~out]]),
                np.repeat([1, 0], (~out).sum()),
                sample_weight=np.concatenate(
                    [(weights * targets)[~out], (weights * (1 - targets))[~out]],
                ),
            )
            prob = _sigmoid(features[out] @ fitted.coef_[0])
            terms = weights[out] * (targets[out] * np.log(prob) + (1 - targets[out]) * np.log(1 - prob))
            scores.append(terms.sum() / (2 * out.sum()))
        expected.append(np.mean(scores))
    found = search_c(rows, grid=grid)
    np.testing.assert_allclose(found.scores, expected, rtol=0, atol=1e-9)
    assert found.c == grid[int(np.argmax(expected))]


def test_the_grid_is_alpaca_evals() -> None:
    np.testing.assert_allclose([C_GRID[0], C_GRID[5], C_GRID[-1]], [1e-4, 2.782559402207126, 1e4], rtol=1e-12)
    assert len(C_GRID) == 10


def test_failed_judgments_do_not_enter_the_search() -> None:
    rows = _minimal(_rows())
    holed = replace(
        rows,
        preferences=np.append(rows.preferences, [np.nan] * 7),
        length_baseline=np.append(rows.length_baseline, rows.length_baseline[:7]),
        length_model=np.append(rows.length_model, rows.length_model[:7]),
        instructions=np.arange(ROWS + 7),
    )
    deviations = [(each.length_baseline - each.length_model).std(ddof=1) for each in (rows, holed)]
    # undo the change of scale that the seven lengths bring, so that the fits are the same
    ratio = deviations[0] / deviations[1]
    assert search_c(holed, grid=(1.0,)).scores[0] == pytest.approx(search_c(rows, grid=(1.0,)).scores[0], abs=2e-3)
    assert ratio != 1.0


def test_too_few_rows_cannot_be_searched() -> None:
    few = AlpacaRows(np.array([0.1, 0.9, 0.4, np.nan, np.nan]), np.arange(5.0), np.ones(5), np.arange(5))
    with pytest.raises(ValueError, match="3 rows with a preference cannot be cut into 5 folds"):
        search_c(few)


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_in_the_statistic_are_repeated_instructions(variant: str) -> None:
    rows = VARIANTS[variant](_rows(4))
    counts = np.random.default_rng(6).integers(0, 4, size=ROWS)
    gamed = rows.gamed
    if gamed is not None:
        theirs = np.repeat(np.arange(2 * ROWS), counts[gamed.instructions])
        gamed = GamedRows(
            gamed.preferences[theirs], gamed.lengths[theirs], gamed.difficulty[theirs], gamed.instructions[theirs], 0.1
        )
    repeated = AlpacaRows(
        *(
            np.repeat(column, counts)
            for column in (rows.preferences, rows.length_baseline, rows.length_model, rows.instructions)
        ),
        None if rows.difficulty is None else np.repeat(rows.difficulty, counts),
        gamed,
    )
    found = alpaca_eval_statistic(rows, c=2.8)(counts[None].astype(float))
    assert found[0] == pytest.approx(fit_alpaca_eval(repeated, c=2.8).length_controlled_winrate, abs=1e-7)


def test_resamples_without_any_preference_and_with_coefficients_at_zero_are_fitted_too() -> None:
    rows = _minimal(_rows())
    holed = replace(rows, preferences=np.where(np.arange(ROWS) < 5, rows.preferences, np.nan))
    only_holes = (np.arange(ROWS) >= 5).astype(float)[None]
    assert alpaca_eval_statistic(holed, c=1.0)(only_holes)[0] == pytest.approx(50.0, abs=1e-12)
    strong = alpaca_eval_statistic(rows, c=1e-3)(np.ones((2, ROWS)))
    np.testing.assert_allclose(strong, 50.0, rtol=0, atol=1e-12)


def test_change_of_baseline_is_antisymmetric_and_50_against_oneself() -> None:
    one, other = (fit_alpaca_eval(_noreg(_rows(seed)), c=2.8) for seed in (0, 1))
    difficulty = np.linspace(-2, 1, 30)
    assert against_another(one, one, difficulty) == 50.0
    there, back = against_another(one, other, difficulty), against_another(other, one, difficulty)
    assert there + back == pytest.approx(100, abs=1e-12)
    gap = np.array(one.covariates) - np.array(other.covariates)
    assert there == pytest.approx(100 * _sigmoid(gap[0] * difficulty + gap[1]).mean(), abs=1e-12)


def test_change_of_baseline_needs_fits_of_one_variant() -> None:
    one, other = (fit_alpaca_eval(rows, c=2.8) for rows in (_noreg(_rows()), _minimal(_rows())))
    with pytest.raises(ValueError, match="fit both in one variant"):
        against_another(one, other, None)


def test_identification_equals_second_differences_of_the_profile_likelihood() -> None:
    rows = _minimal(_rows())
    fit = fit_alpaca_eval(rows, c=math.inf)
    lengths = length_terms(rows.length_baseline, rows.length_model, np.ones(ROWS))

    def profile(slope: float) -> float:
        best = -math.inf
        for theta in np.linspace(fit.covariates[0] - 0.01, fit.covariates[0] + 0.01, 20_001):
            eta = slope * lengths + theta
            best = max(best, float((rows.preferences * eta - np.logaddexp(0, eta)).sum()))
        return best

    step = 0.005
    curvature = (profile(fit.length + step) - 2 * profile(fit.length) + profile(fit.length - step)) / step**2
    assert identification(rows, fit).log_likelihood_drop == pytest.approx(-curvature / 2, rel=1e-3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_variance_inflation_is_the_ratio_of_two_variances(variant: str) -> None:
    """Of the win rate at equal lengths, with the length coefficient fitted and with it known."""
    rows = VARIANTS[variant](replace(_rows(), length_model=3 * _rows().length_model))
    fit = fit_alpaca_eval(rows, c=2.8)
    lengths = length_terms(rows.length_baseline, rows.length_model, np.ones(ROWS))
    features, weights = np.column_stack([lengths, rows.covariates]), np.ones(ROWS)
    if rows.gamed is not None:
        theirs = np.column_stack([rows.gamed.lengths, rows.gamed.difficulty, np.zeros(2 * ROWS)])
        features, weights = np.concatenate([features, theirs]), np.append(weights, np.full(2 * ROWS, 0.1))
    prob = _sigmoid(features @ np.array([fit.length, *fit.covariates]))
    information = features.T @ (features * (weights * prob * (1 - prob))[:, None])
    at_equal = _sigmoid(rows.covariates @ np.array(fit.covariates))
    gradient = ((at_equal * (1 - at_equal))[:, None] * rows.covariates).mean(0)
    fitted = np.append(0.0, gradient) @ np.linalg.solve(information, np.append(0.0, gradient))
    known = gradient @ np.linalg.solve(information[1:, 1:], gradient)
    assert identification(rows, fit).variance_inflation == pytest.approx(fitted / known, rel=1e-9)
    assert fitted / known > 1.1


def test_a_model_that_is_always_shorter_by_one_ratio_is_weakly_identified() -> None:
    generator = np.random.default_rng(0)
    baseline = generator.uniform(900, 1100, size=300)
    preferences = generator.uniform(size=300)
    apart, mixed = (
        identification(rows, fit_alpaca_eval(rows, c=100.0))
        for rows in (
            AlpacaRows(preferences, baseline, baseline / 3, np.arange(300)),
            AlpacaRows(preferences, baseline, generator.permutation(baseline), np.arange(300)),
        )
    )
    assert (apart.model_longer, apart.instructions) == (0.0, 300)
    assert apart.variance_inflation > 100
    assert apart.log_likelihood_drop < 0.01
    assert mixed.variance_inflation < 1.1
    assert mixed.log_likelihood_drop > 10


def test_without_varying_lengths_there_is_nothing_to_identify() -> None:
    rows = AlpacaRows(np.array([0.2, 0.9, 0.6]), np.full(3, 10.0), np.full(3, 10.0), np.array([0, 1, 1]))
    sure = identification(rows, fit_alpaca_eval(rows, c=100.0))
    assert (sure.log_likelihood_drop, sure.variance_inflation) == (0.0, 1.0)
    assert (sure.model_longer, sure.instructions) == (0.5, 2)


@pytest.mark.parametrize(
    ("win_rate", "controlled", "extreme"),
    [
        (60.0, 50.1, False),  # 10 points are allowed
        (60.0, 44.9, True),  # 45 = 60 * 3/4
        (60.0, 45.1, False),
        (20.0, 30.1, False),  # 40 = 20 + 80/4
        (20.0, 40.1, True),
        (95.0, 99.9, False),
        (5.0, 0.0, False),
    ],
)
def test_the_extreme_change_warning_by_hand(win_rate: float, controlled: float, extreme: bool) -> None:
    assert is_extreme_change(win_rate, controlled) is extreme


def test_gamed_rows_without_difficulty_are_refused() -> None:
    with pytest.raises(ValueError, match="need the difficulty"):
        replace(_rows(), difficulty=None)


def test_results_are_of_one_kind() -> None:
    assert isinstance(fit_alpaca_eval(_rows(), c=1.0), LengthControlled)

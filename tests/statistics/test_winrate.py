"""Win rates on hand-counted rows, the published AlpacaEval numbers, and the metric's own properties."""

import csv
import gzip
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefloop.statistics import (
    LengthControlled,
    at_equal_lengths,
    cluster_bootstrap,
    length_controlled,
    length_controlled_glm,
    length_controlled_statistic,
    length_terms,
    win_rate,
)

PUBLISHED = Path(__file__).resolve().parents[2].parent / "shared" / "evaluation" / "data" / "alpacaeval"
MODELS = [
    "FuseChat-Gemma-2-9B-Instruct",
    "gpt-3.5-turbo-1106_verbose",
    "gpt-3.5-turbo-1106_concise",
    "gpt35_turbo_instruct",
]
published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"the published AlpacaEval rows are not at {PUBLISHED}")


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def _expected(model: str) -> dict[str, Any]:
    return json.loads((PUBLISHED / "expected.json").read_text())[model]


def _rows(model: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Preferences in [0, 1], baseline lengths and model lengths, in row order."""
    with gzip.open(PUBLISHED / f"{model}.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line in lines]
    table = np.array([[row["preference"], row["len_baseline"], row["len_model"]] for row in rows], dtype=float)
    return table[:, 0] - 1.0, table[:, 1], table[:, 2]


def _full_variant(model: str, c: float) -> LengthControlled:
    """AlpacaEval's published variant: difficulties by row number, and two gamed baselines at weight 0.1."""
    y, length_baseline, length_model = _rows(model)
    with (PUBLISHED / "instruction_difficulty.csv").open() as file:
        difficulty = np.array([float(row["instruction_difficulty"]) for row in csv.DictReader(file)])[: y.size]
    with gzip.open(PUBLISHED / "gamed_baselines_reconstructed.csv.gz", "rt") as file:
        gamed = [
            [float(row[key]) for key in ("preference", "std_delta_len", "instruction_difficulty")]
            for row in csv.DictReader(file)
        ]
    gamed_y, gamed_delta, gamed_difficulty = np.array(gamed).T
    own = np.column_stack([difficulty, np.ones(y.size)])
    anchors = np.column_stack([gamed_difficulty, np.zeros(gamed_y.size)])
    fit = length_controlled_glm(
        np.concatenate([y, gamed_y]),
        np.concatenate([length_terms(length_baseline, length_model, np.ones(y.size)), np.tanh(gamed_delta)]),
        np.concatenate([own, anchors]),
        np.concatenate([np.ones(y.size), np.full(gamed_y.size, 0.1)]),
        c=c,
    )
    return at_equal_lengths(fit, own)


def _planted(phi: float, theta: float, rows: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Exact preferences of the model sigmoid(phi * t + theta), with their lengths."""
    generator = np.random.default_rng(3)
    length_baseline = generator.integers(100, 900, size=rows).astype(float)
    length_model = generator.integers(200, 1500, size=rows).astype(float)
    lengths = length_terms(length_baseline, length_model, np.ones(rows))
    return _sigmoid(phi * lengths + theta), length_baseline, length_model


def test_hand_counted_win_rate() -> None:
    result = win_rate(np.array([1.0, 0.8, 0.5, 0.4, 0.0, 0.0, np.nan]))
    assert result.win_rate == pytest.approx(45.0, abs=1e-12)
    assert result.discrete_win_rate == pytest.approx(100 * 2.5 / 6, abs=1e-12)
    assert (result.n_wins, result.n_wins_base, result.n_draws, result.n_total) == (2, 3, 1, 6)
    # squared deviations from 0.45: .3025 + .1225 + .0025 + .0025 + 2 * .2025 = 0.835
    assert result.standard_error == pytest.approx(100 * math.sqrt(0.835 / 5 / 6), abs=1e-12)


def test_a_single_row_has_no_standard_error() -> None:
    assert math.isnan(win_rate(np.array([1.0])).standard_error)


@pytest.mark.parametrize(("values", "message"), [([math.nan], "none of the 1"), ([1.5, 1.0], "found 1.5")])
def test_unusable_preferences_are_refused(values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        win_rate(np.array(values))


@published
@pytest.mark.parametrize("model", MODELS)
def test_plain_win_rate_equals_the_leaderboard(model: str) -> None:
    expected = _expected(model)
    result = win_rate(_rows(model)[0])
    for field in ("win_rate", "standard_error", "n_wins", "n_wins_base", "n_draws", "n_total", "discrete_win_rate"):
        assert getattr(result, field) == pytest.approx(expected[field], abs=1e-9), field


@published
@pytest.mark.parametrize("model", MODELS)
def test_length_controlled_win_rate_equals_the_leaderboard(model: str) -> None:
    """At the C of the published fit; the rest is liblinear's tolerance and the reconstructed gamed rows."""
    expected = _expected(model)
    result = _full_variant(model, expected["C_published_fit"])
    assert result.converged
    assert result.length_controlled_winrate == pytest.approx(expected["length_controlled_winrate"], abs=0.02)
    coefficients = expected["coef_published"]
    assert result.length == pytest.approx(coefficients["length"], abs=2e-3)
    assert result.covariates == pytest.approx((coefficients["difficulty"], coefficients["quality"]), abs=2e-3)
    if expected["lc_standard_error"] is not None:
        assert result.lc_standard_error == pytest.approx(expected["lc_standard_error"], abs=1e-3)


@pytest.mark.parametrize("c", [1.0, 100.0, math.inf])
def test_swapping_the_sides_mirrors_the_minimal_variant(c: float) -> None:
    generator = np.random.default_rng(0)
    y = generator.uniform(size=60) ** 2
    length_baseline, length_model = generator.integers(10, 900, size=(2, 60)).astype(float)
    there = length_controlled(y, length_baseline, length_model, c=c)
    back = length_controlled(1 - y, length_model, length_baseline, c=c)
    assert back.length_controlled_winrate == pytest.approx(100 - there.length_controlled_winrate, abs=1e-9)
    assert back.length == pytest.approx(there.length, abs=1e-9)
    assert back.covariates[0] == pytest.approx(-there.covariates[0], abs=1e-9)


def test_swapping_the_sides_mirrors_the_variant_with_difficulty() -> None:
    generator = np.random.default_rng(1)
    y, ones = generator.uniform(size=60) ** 2, np.ones(60)
    length_baseline, length_model = generator.integers(10, 900, size=(2, 60)).astype(float)
    covariates = np.column_stack([generator.normal(size=60), ones])
    lengths = length_terms(length_baseline, length_model, ones)
    there = at_equal_lengths(length_controlled_glm(y, lengths, covariates, ones, c=2.8), covariates)
    back = at_equal_lengths(length_controlled_glm(1 - y, -lengths, covariates, ones, c=2.8), covariates)
    assert back.length_controlled_winrate == pytest.approx(100 - there.length_controlled_winrate, abs=1e-9)
    assert back.covariates == pytest.approx([-value for value in there.covariates], abs=1e-9)


@pytest.mark.parametrize("gap", [0.0, 250.0, 0.1])
def test_without_varying_lengths_the_win_rate_is_left_as_it_is(gap: float) -> None:
    y = np.array([0.1, 0.9, 0.7, 1.0, 0.3])
    length_baseline = np.array([300.7, 1000.2, 550.0, 12.9, 340.1])
    result = length_controlled(y, length_baseline, length_baseline + gap, c=math.inf)
    assert result.length_controlled_winrate == pytest.approx(60.0, abs=1e-9)
    assert result.length == 0.0


@pytest.mark.parametrize("length_bias", [-2.0, 0.0, 1.5])
def test_a_planted_length_bias_leaves_the_controlled_win_rate(length_bias: float) -> None:
    """The population of the model itself, so exact: only the length coefficient takes up the bias."""
    y, length_baseline, length_model = _planted(phi=0.3 + length_bias, theta=0.4)
    result = length_controlled(y, length_baseline, length_model, c=math.inf)
    assert result.length_controlled_winrate == pytest.approx(100 * _sigmoid(np.array(0.4)), abs=1e-9)
    assert result.length == pytest.approx(0.3 + length_bias, abs=1e-9)


def test_a_planted_length_bias_moves_the_plain_win_rate() -> None:
    unbiased, biased = (win_rate(_planted(phi=phi, theta=0.4)[0]).win_rate for phi in (0.0, -1.5))
    assert biased - unbiased > 8


def test_the_default_penalty_costs_what_the_documentation_says() -> None:
    """At the optimum the mean fitted preference is 1 / (c * n) from the mean preference."""
    y = np.array([1.0, 0.9, 0.8, 0.7] * 25)
    lengths = np.full(100, 10.0)
    assert length_controlled(y, lengths, lengths).length_controlled_winrate == pytest.approx(85 - 0.01, abs=1e-9)


def test_the_unit_of_length_does_not_matter() -> None:
    y, length_baseline, length_model = _planted(phi=-1.0, theta=-0.2)
    one = length_controlled(y, length_baseline, length_model)
    other = length_controlled(y, 3.7 * length_baseline, 3.7 * length_model)
    assert other.length_controlled_winrate == pytest.approx(one.length_controlled_winrate, abs=1e-10)


def test_failed_judgments_leave_the_fit_and_stay_in_the_mean() -> None:
    """Row 3 has no preference: the fit is that of the others, the mean prediction is over all four."""
    y, ones = np.array([0.2, 0.6, 0.9, np.nan]), np.ones(4)
    lengths = np.array([0.5, -0.2, -0.7, 0.1])
    covariates = np.column_stack([[0.0, 1.0, -1.0, 3.0], ones])
    fit = length_controlled_glm(y, lengths, covariates, ones, c=5.0)
    without = length_controlled_glm(y[:3], lengths[:3], covariates[:3], ones[:3], c=5.0)
    np.testing.assert_allclose(fit.coefficients, without.coefficients, rtol=0, atol=1e-12)
    predictions = 100 * _sigmoid(covariates @ without.coefficients[1:])
    assert at_equal_lengths(fit, covariates).length_controlled_winrate == pytest.approx(predictions.mean(), abs=1e-9)
    assert at_equal_lengths(fit, covariates).lc_standard_error == pytest.approx(predictions.std(ddof=1) / 2, abs=1e-9)


def test_length_terms_by_hand() -> None:
    """Differences 100, -100, 0 have the standard deviation 100."""
    terms = length_terms(np.array([300.0, 200.0, 50.0]), np.array([200.0, 300.0, 50.0]), np.ones(3))
    np.testing.assert_allclose(terms, [math.tanh(1), -math.tanh(1), 0.0], rtol=0, atol=1e-15)


def test_weights_of_rows_are_repetitions_of_rows() -> None:
    y, length_baseline, length_model = _planted(phi=-1.0, theta=0.1, rows=30)
    y = np.random.default_rng(5).permutation(y)
    counts = np.random.default_rng(6).integers(0, 4, size=30)
    weighted = length_controlled_statistic(y, length_baseline, length_model)(counts[None].astype(float))
    repeated = length_controlled(*(np.repeat(column, counts) for column in (y, length_baseline, length_model)))
    assert weighted[0] == pytest.approx(repeated.length_controlled_winrate, abs=1e-9)


def test_bootstrap_of_the_controlled_win_rate_covers_the_truth() -> None:
    """200 coin-flip judgments of a planted model; the interval is centred on the fit and holds the true rate."""
    prob, length_baseline, length_model = _planted(phi=-1.0, theta=0.4, rows=200)
    y = (np.random.default_rng(7).uniform(size=200) < prob).astype(float)
    estimate = cluster_bootstrap(
        length_controlled_statistic(y, length_baseline, length_model), np.arange(200), seed=0, draws=1000
    )
    low, high = estimate.interval
    assert estimate.value == pytest.approx(
        length_controlled(y, length_baseline, length_model).length_controlled_winrate
    )
    assert low < 100 * _sigmoid(np.array(0.4)) < high
    # a plain proportion of 0.6 on 200 rows has 3.46; losing the length column's direction costs a little more
    assert 3.46 < estimate.standard_error < 7.0

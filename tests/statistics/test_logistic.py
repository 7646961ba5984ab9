"""Soft-label logistic regression against scikit-learn, and the length slope against its score equation."""

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from prefloop.statistics import length_slope, soft_logistic


def _problem(rows: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    features = np.column_stack([np.tanh(generator.normal(size=rows)), generator.normal(size=rows), np.ones(rows)])
    targets = generator.uniform(size=rows) ** 2
    return features, targets, generator.uniform(0.1, 2.0, size=rows)


def _score(slope: float, gaps: np.ndarray, weights: np.ndarray, prob: np.ndarray) -> float:
    terms = weights * gaps * (prob - 1.0 / (1.0 + np.exp(-slope * gaps)))
    return abs(math.fsum(terms)) / float(np.sum(weights * np.abs(gaps)))


@pytest.mark.parametrize("c", [0.02, 0.1, 1.0, 100.0])
def test_soft_logistic_equals_liblinear_on_duplicated_rows(c: float) -> None:
    """Tolerance: liblinear stops near 1e-8 here."""
    features, targets, weights = _problem()
    # l1_ratio=1 is the L1 penalty
    reference = LogisticRegression(
        l1_ratio=1.0, solver="liblinear", C=c, fit_intercept=False, tol=1e-12, max_iter=100_000, random_state=0
    )
    reference.fit(
        np.concatenate([features, features]),
        np.repeat([1, 0], targets.size),
        sample_weight=np.concatenate([weights * targets, weights * (1 - targets)]),
    )

    fit = soft_logistic(features, targets, weights, c=c)

    assert fit.converged
    np.testing.assert_allclose(fit.coefficients, reference.coef_[0], rtol=0, atol=1e-6)


def test_a_strong_penalty_gives_exact_zeros() -> None:
    features, targets, weights = _problem()
    fit = soft_logistic(features, targets, weights, c=1e-3)
    np.testing.assert_array_equal(fit.coefficients, 0.0)


def test_unpenalised_score_is_zero_at_the_solution() -> None:
    features, targets, weights = _problem()
    fit = soft_logistic(features, targets, weights, c=math.inf)
    prob = 1.0 / (1.0 + np.exp(-features @ fit.coefficients))
    np.testing.assert_allclose(features.T @ (weights * (prob - targets)), 0.0, atol=1e-11)


@pytest.mark.parametrize("c", [0.1, math.inf])
def test_a_batch_gives_the_fits_of_its_members(c: float) -> None:
    features, targets, _ = _problem()
    weights = np.random.default_rng(1).poisson(1.0, size=(5, targets.size)).astype(float)
    batch = soft_logistic(features, targets, weights, c=c)
    singles = [soft_logistic(features, targets, row, c=c).coefficients for row in weights]
    np.testing.assert_allclose(batch.coefficients, singles, rtol=0, atol=1e-11)


def test_a_nearly_collinear_column_still_converges() -> None:
    """Population of a known model; the columns' correlation is 0.999999."""
    lengths = -1.0 + 2e-3 * np.linspace(-1, 1, 50)
    features = np.column_stack([lengths, np.ones(50)])
    targets = 1.0 / (1.0 + np.exp(-(features @ np.array([-2.0, 0.5]))))
    unpenalised = soft_logistic(features, targets, np.ones(50), c=math.inf)
    np.testing.assert_allclose(unpenalised.coefficients, [-2.0, 0.5], rtol=0, atol=1e-6)
    assert soft_logistic(features, targets, np.ones(50), c=100.0).converged


def test_separable_rows_stay_finite_and_the_penalty_bounds_them() -> None:
    """With one constant column the optimum is n * (1 - p) = 1 / c."""
    ones = np.ones((20, 1))
    assert np.isfinite(soft_logistic(ones, ones[:, 0], ones[:, 0], c=math.inf).coefficients).all()
    fit = soft_logistic(ones, ones[:, 0], ones[:, 0], c=100.0)
    assert fit.coefficients[0] == pytest.approx(math.log(20 * 100 - 1), abs=1e-9)


@pytest.mark.parametrize(
    ("targets", "weights", "c", "message"),
    [([0.5], [1.0], 0.0, "c is 0.0"), ([1.5], [1.0], 1.0, r"\[0, 1\]"), ([0.5], [-1.0], 1.0, "weights")],
)
def test_values_out_of_range_are_refused(targets: list[float], weights: list[float], c: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        soft_logistic(np.ones((1, 1)), np.array(targets), np.array(weights), c=c)


def test_length_slope_solves_the_score_equation() -> None:
    generator = np.random.default_rng(0)
    gaps = generator.integers(-300, 400, size=500).astype(float)
    fitted = length_slope(gaps, cap=1.0)
    assert not fitted.capped
    assert fitted.pairs == 500
    assert _score(fitted.slope, gaps, np.ones(500), np.ones(500)) < 1e-12


def test_length_slope_solves_the_weighted_soft_score_equation() -> None:
    generator = np.random.default_rng(1)
    gaps, weights, prob = generator.normal(size=80), generator.uniform(size=80), generator.uniform(size=80)
    fitted = length_slope(gaps, cap=10.0, weights=weights, prob_chosen_wins=prob)
    assert _score(fitted.slope, gaps, weights, prob) < 1e-12


@pytest.mark.parametrize("true_slope", [-0.03, 0.0, 0.004, 0.2])
def test_length_slope_of_a_population_is_the_one_that_made_it(true_slope: float) -> None:
    """All ordered pairs, each with the mass with which it is observed."""
    lengths = np.array([3.0, 10.0, 17.0, 40.0, 41.0])
    first, second = np.nonzero(~np.eye(5, dtype=bool))
    gaps = lengths[first] - lengths[second]
    mass = 1.0 / (1.0 + np.exp(-true_slope * gaps))
    observed = length_slope(gaps, cap=1.0, weights=mass)
    soft = length_slope(gaps, cap=1.0, prob_chosen_wins=mass)
    assert observed.slope == pytest.approx(true_slope, abs=1e-9)
    assert soft.slope == pytest.approx(true_slope, abs=1e-9)


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_separable_pairs_give_the_cap(scale: float) -> None:
    gaps = scale * np.array([1.0, 5.0, 0.0, 2.0])
    assert length_slope(gaps, cap=2.0).slope == 2.0
    assert length_slope(-gaps, cap=2.0).slope == -2.0
    assert length_slope(gaps, cap=2.0).capped
    assert length_slope(-gaps, cap=2.0).capped


def test_a_maximiser_beyond_the_cap_gives_the_cap() -> None:
    """Nine wins of ten at gap 1: the unbounded slope is log 9 = 2.197."""
    gaps = np.array([1.0] * 9 + [-1.0])
    assert length_slope(gaps, cap=3.0).slope == pytest.approx(math.log(9), abs=1e-12)
    assert length_slope(gaps, cap=2.0).slope == 2.0
    assert length_slope(gaps, cap=2.0).capped


def test_equal_lengths_give_slope_zero() -> None:
    fitted = length_slope(np.zeros(4), cap=1.0)
    assert (fitted.slope, fitted.capped, fitted.pairs) == (0.0, False, 4)


def test_one_extreme_gap_does_not_stop_the_search() -> None:
    gaps = np.array([1e6, -1.0, -1.0, -1.0])
    fitted = length_slope(gaps, cap=100.0)
    assert _score(fitted.slope, gaps, np.ones(4), np.ones(4)) < 1e-12


def test_no_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        length_slope(np.array([]), cap=1.0)

"""Clustered uncertainty against closed forms, hand counts and simulated coverage."""

import math

import numpy as np
import pytest

from prefloop.statistics import cluster_bootstrap, clustered_mean


def _weighted_mean(values: np.ndarray):
    return lambda weights: weights @ values / weights.sum(-1)


def test_one_row_a_cluster_gives_the_usual_standard_error() -> None:
    values = np.array([1.0, 2.0, 4.0, 9.0])
    estimate = clustered_mean(values, np.arange(4))
    assert estimate.value == 4.0
    assert estimate.standard_error == pytest.approx(values.std(ddof=1) / 2, abs=1e-14)
    # Student's t with 3 degrees of freedom: 3.182446305284263 at 97.5 %
    assert estimate.interval[1] - 4.0 == pytest.approx(3.182446305284263 * estimate.standard_error, abs=1e-9)
    assert 4.0 - estimate.interval[0] == pytest.approx(estimate.interval[1] - 4.0, abs=1e-12)


def test_standard_error_of_uneven_clusters_by_hand() -> None:
    """Mean 2; cluster sums of residuals are -1 + 0, 3 and -2: variance 3/2 * (1 + 9 + 4) / 16."""
    estimate = clustered_mean(np.array([1.0, 2.0, 5.0, 0.0]), np.array(["a", "a", "b", "c"]))
    assert estimate.standard_error == pytest.approx(math.sqrt(1.5 * 14 / 16), abs=1e-14)
    assert (estimate.n, estimate.clusters) == (4, 3)


def test_copying_rows_inside_clusters_adds_no_certainty() -> None:
    values = np.array([1.0, 2.0, 4.0, 9.0])
    once = clustered_mean(values, np.arange(4))
    copied = clustered_mean(np.repeat(values, 5), np.repeat(np.arange(4), 5))
    assert copied.standard_error == pytest.approx(once.standard_error, abs=1e-14)


def test_a_single_cluster_has_no_uncertainty_to_report() -> None:
    estimate = clustered_mean(np.array([1.0, 3.0]), np.array([7, 7]))
    assert estimate.value == 2.0
    assert math.isnan(estimate.standard_error)


def test_intervals_of_clustered_rows_cover_the_truth_as_often_as_stated() -> None:
    """2,000 sets of 20 clusters of 3 rows with a shared shift; 95 % +- 4 standard errors of the simulation (0.49 %)."""
    generator = np.random.default_rng(0)
    clusters = np.repeat(np.arange(20), 3)
    rows = np.repeat(generator.normal(size=(2000, 20)), 3, axis=1) + generator.normal(size=(2000, 60))
    intervals = np.array([clustered_mean(row, clusters).interval for row in rows])
    covered = np.mean((intervals[:, 0] < 0) & (intervals[:, 1] > 0))
    assert covered == pytest.approx(0.95, abs=0.02)


def test_bootstrap_of_a_mean_agrees_with_the_formula() -> None:
    """Equal clusters: the bootstrap's variance is (G - 1) / G of the formula's; 4,000 draws leave 1.1 %."""
    generator = np.random.default_rng(1)
    clusters = np.repeat(np.arange(50), 4)
    values = np.repeat(generator.normal(size=50), 4) + generator.normal(size=200)
    formula = clustered_mean(values, clusters)
    drawn = cluster_bootstrap(_weighted_mean(values), clusters, seed=0, draws=4000)
    assert drawn.value == pytest.approx(formula.value, abs=1e-12)
    assert drawn.standard_error == pytest.approx(formula.standard_error * math.sqrt(49 / 50), rel=0.045)
    assert drawn.interval[0] == pytest.approx(formula.value - 1.96 * formula.standard_error, abs=0.03)
    assert drawn.interval[1] == pytest.approx(formula.value + 1.96 * formula.standard_error, abs=0.03)
    assert (drawn.n, drawn.clusters) == (200, 50)


def test_whole_clusters_are_drawn_as_many_as_there_are() -> None:
    clusters = np.array(["x", "y", "x", "z", "z", "z"])
    seen: list[np.ndarray] = []

    def watch(weights: np.ndarray) -> np.ndarray:
        seen.append(weights)
        return weights.sum(-1)

    cluster_bootstrap(watch, clusters, seed=3, draws=250)

    weights = np.concatenate([batch for batch in seen if len(batch) > 1])
    assert weights.shape == (250, 6)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, 3], weights[:, 5])
    np.testing.assert_array_equal(weights[:, 0] + weights[:, 1] + weights[:, 3], 3.0)


def test_a_seed_fixes_every_digit() -> None:
    values, clusters = np.arange(30.0), np.arange(30) // 2
    first, again, other = (cluster_bootstrap(_weighted_mean(values), clusters, seed=seed) for seed in (5, 5, 6))
    assert first == again
    assert first.interval != other.interval


def test_a_higher_level_widens_the_interval() -> None:
    values, clusters = np.arange(30.0), np.arange(30)
    narrow, wide = (cluster_bootstrap(_weighted_mean(values), clusters, seed=0, level=level) for level in (0.5, 0.99))
    assert wide.interval[0] < narrow.interval[0] < narrow.interval[1] < wide.interval[1]


@pytest.mark.parametrize("level", [0.0, 95.0])
def test_a_level_that_is_no_share_is_refused(level: float) -> None:
    with pytest.raises(ValueError, match="level is"):
        clustered_mean(np.ones(2), np.arange(2), level=level)

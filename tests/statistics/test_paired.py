"""Statistics of totals by cluster."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from prefloop.statistics import (
    cluster_bootstrap,
    clustered_mean,
    clustered_statistic,
    detectable_difference,
    ratio_of_means,
    totals_by_cluster,
)

Floats = NDArray[np.float64]


def difference(totals: Floats) -> Floats:
    """Mean of the second arm minus mean of the first; columns: sum, count, sum, count."""
    return totals[..., 2] / totals[..., 3] - totals[..., 0] / totals[..., 1]


def mean(totals: Floats) -> Floats:
    return totals[..., 0] / totals[..., 1]


def counted(values: Floats) -> Floats:
    return np.column_stack([values, np.ones_like(values)])


def test_totals_are_hand_counted_sums_in_the_order_of_the_names() -> None:
    rows = np.array([[1.0, 1.0], [2.0, 1.0], [4.0, 1.0], [8.0, 1.0]])

    totals = totals_by_cluster(rows, np.array(["b", "a", "b", "unwanted"]), np.array(["a", "b", "empty"]))

    assert totals.tolist() == [[2.0, 1.0], [5.0, 2.0], [0.0, 0.0]]


def test_the_standard_error_of_a_paired_difference_is_the_textbook_one() -> None:
    generator = np.random.default_rng(1)
    first, second = generator.normal(size=(2, 17))
    totals = np.hstack([counted(first), counted(second)])

    found = clustered_statistic(difference, totals, rows=17, seed=0)

    gaps = second - first
    assert found.value == pytest.approx(gaps.mean(), abs=1e-14)
    assert found.standard_error == pytest.approx(gaps.std(ddof=1) / math.sqrt(17), rel=1e-12)


def test_several_rows_a_cluster_give_the_textbook_error_of_cluster_means() -> None:
    generator = np.random.default_rng(2)
    first, second = generator.normal(size=(2, 11, 4))
    totals = np.hstack([np.column_stack([arm.sum(1), np.full(11, 4.0)]) for arm in (first, second)])

    found = clustered_statistic(difference, totals, rows=44, seed=0)

    gaps = second.mean(1) - first.mean(1)
    assert found.standard_error == pytest.approx(gaps.std(ddof=1) / math.sqrt(11), rel=1e-12)


def test_two_arms_that_rise_and_fall_together_differ_by_a_number_without_error() -> None:
    values = np.random.default_rng(3).normal(size=30)
    totals = np.hstack([counted(values), counted(values + 0.25)])

    found = clustered_statistic(difference, totals, rows=30, seed=0)

    assert found.value == pytest.approx(0.25)
    assert found.standard_error == pytest.approx(0.0, abs=1e-14)
    assert found.interval == pytest.approx((0.25, 0.25))


def test_a_mean_agrees_with_the_statistics_of_rows() -> None:
    generator = np.random.default_rng(4)
    clusters = np.repeat(np.arange(9), 3)
    values = generator.normal(size=27)
    totals = totals_by_cluster(counted(values), clusters, np.arange(9))

    found = clustered_statistic(mean, totals, rows=27, seed=5, draws=400)

    by_rows = clustered_mean(values, clusters)
    resampled = cluster_bootstrap(lambda w: (w @ values) / w.sum(-1), clusters, seed=5, draws=400)
    assert (found.value, found.standard_error) == pytest.approx((by_rows.value, by_rows.standard_error), rel=1e-12)
    assert found.interval == pytest.approx(resampled.interval, rel=1e-12)
    assert (found.n, found.clusters) == (27, 9)


def test_the_jackknife_error_of_a_ratio_is_that_of_its_definition() -> None:
    totals = np.array([[4.0, 2.0], [9.0, 3.0], [1.0, 4.0], [6.0, 1.0]])

    found = clustered_statistic(mean, totals, rows=10, seed=0)

    without = [(20 - a) / (10 - b) for a, b in totals.tolist()]
    middle = sum(without) / 4
    assert found.standard_error == pytest.approx(math.sqrt(3 / 4 * sum((x - middle) ** 2 for x in without)))


def test_a_single_cluster_has_no_uncertainty_that_could_be_known() -> None:
    found = clustered_statistic(mean, np.array([[3.0, 4.0]]), rows=4, seed=0)

    assert found.value == 0.75
    assert math.isnan(found.standard_error)
    assert all(map(math.isnan, found.interval))


def test_bad_input_is_refused() -> None:
    totals = np.ones((3, 2))
    with pytest.raises(ValueError, match="there is no cluster"):
        clustered_statistic(mean, totals[:0], rows=0, seed=0)
    with pytest.raises(ValueError, match="draws is 1, expected >= 2"):
        clustered_statistic(mean, totals, rows=3, seed=0, draws=1)
    with pytest.raises(ValueError, match=r"level is 1\.0, expected in \(0, 1\)"):
        clustered_statistic(mean, totals, rows=3, seed=0, level=1.0)


def test_the_detectable_difference_is_found_with_the_power_that_it_claims() -> None:
    found = detectable_difference(2.0)

    assert found == pytest.approx(2 * 2.801585, abs=1e-5)
    assert norm.sf(norm.ppf(0.975) - found / 2.0) == pytest.approx(0.8, abs=1e-12)


def test_a_ratio_of_means_takes_any_number_of_resamples() -> None:
    """Means 2 and 4, and 3 and 1."""
    totals = np.array([[6.0, 3.0, 8.0, 2.0], [9.0, 3.0, 2.0, 2.0]])
    assert ratio_of_means(totals).tolist() == [0.5, 3.0]
    assert float(ratio_of_means(totals[0])) == 0.5

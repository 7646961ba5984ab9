"""The BCa interval against SciPy's, and what it promises: transformations, degenerate data, coverage."""

import math

import numpy as np
import pytest
import scipy.stats

from prefloop.statistics import bca_bootstrap, bca_bounds, clustered_share, mid_p_interval


def _mean(values: np.ndarray):
    return lambda weights: weights @ values / weights.sum(-1)


def test_it_agrees_with_scipy() -> None:
    """Both with 20,000 draws of their own: the bounds differ by the noise of a quantile, some 1 % of the width."""
    values = np.random.default_rng(0).exponential(size=60)
    ours = bca_bootstrap(_mean(values), np.arange(60), seed=0, draws=20_000)
    theirs = scipy.stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1))
    width = ours.interval[1] - ours.interval[0]
    assert ours.interval == pytest.approx(theirs.confidence_interval, abs=0.02 * width)
    assert ours.standard_error == pytest.approx(theirs.standard_error, rel=0.02)


def test_it_agrees_with_scipy_on_a_biased_statistic() -> None:
    """The variance of 20 skewed numbers lies below most of what it is drawn from: z0 is 0.2 and moves both bounds."""
    values = np.random.default_rng(4).exponential(size=20)

    def variance(weights: np.ndarray) -> np.ndarray:
        return weights @ values**2 / 20 - (weights @ values / 20) ** 2

    def of_shares(weights: np.ndarray) -> np.ndarray:
        return variance(weights * (20 / weights.sum(-1, keepdims=True)))

    ours = bca_bootstrap(of_shares, np.arange(20), seed=0, draws=20_000)
    theirs = scipy.stats.bootstrap((values,), np.var, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1))
    width = ours.interval[1] - ours.interval[0]
    assert ours.interval == pytest.approx(theirs.confidence_interval, abs=0.03 * width)
    percentile = scipy.stats.bootstrap((values,), np.var, n_resamples=20_000, method="percentile", rng=2)
    assert ours.interval[0] - percentile.confidence_interval.low > 0.1 * width


def test_a_monotone_function_of_the_statistic_has_the_function_of_its_bounds() -> None:
    """Up to the acceleration, which is of the statistic itself: 0.1 % here."""
    values = np.random.default_rng(0).exponential(size=300)
    plain = bca_bootstrap(_mean(values), np.arange(300), seed=0, draws=4000)
    logged = bca_bootstrap(lambda weights: np.log(_mean(values)(weights)), np.arange(300), seed=0, draws=4000)
    assert logged.interval == pytest.approx(np.log(plain.interval), abs=2e-3)


def test_rows_of_one_cluster_are_drawn_together() -> None:
    values = np.random.default_rng(0).normal(size=40)
    once = bca_bootstrap(_mean(values), np.arange(40), seed=3, draws=500)
    copied = bca_bootstrap(_mean(np.repeat(values, 4)), np.repeat(np.arange(40), 4), seed=3, draws=500)
    assert copied.interval == pytest.approx(once.interval, abs=1e-12)
    assert (copied.n, copied.clusters) == (160, 40)


def test_a_statistic_that_cannot_move_has_an_interval_of_no_width() -> None:
    assert bca_bootstrap(_mean(np.full(9, 0.3)), np.arange(9), seed=0).interval == pytest.approx((0.3, 0.3), abs=1e-12)


def test_a_single_cluster_has_no_interval() -> None:
    estimate = bca_bootstrap(_mean(np.array([0.2, 0.4])), np.array([1, 1]), seed=0)
    assert estimate.value == pytest.approx(0.3)
    assert math.isnan(estimate.interval[0])
    assert math.isnan(estimate.standard_error)


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="draws is 1"):
        bca_bootstrap(_mean(np.ones(3)), np.arange(3), seed=0, draws=1)
    with pytest.raises(ValueError, match="level is 1"):
        bca_bootstrap(_mean(np.ones(3)), np.arange(3), seed=0, level=1.0)
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        clustered_share(np.array([0.5, 1.5]), np.arange(2), seed=0)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_share_of_nothing_or_all_has_the_mid_p_interval_over_clusters(value: float) -> None:
    estimate = clustered_share(np.full(30, value), np.repeat(np.arange(10), 3), seed=0)
    assert estimate.interval == mid_p_interval(value, 10)
    assert estimate.value == value


def test_draws_only_are_no_share_of_nothing() -> None:
    assert clustered_share(np.full(8, 0.5), np.arange(8), seed=0).interval == (0.5, 0.5)


@pytest.mark.slow
def test_intervals_of_skewed_shares_cover_the_truth_as_often_as_stated() -> None:
    """1,500 sets of 120 prompts with 2 answers each, whose preferences are skewed and share their prompt's difficulty.
    The simulation's own standard error is 0.56 %."""
    generator = np.random.default_rng(0)
    clusters, covered = np.repeat(np.arange(120), 2), 0
    for number in range(1500):
        shares = generator.beta(0.3, 1.2, size=120)
        values = (generator.uniform(size=240) < np.repeat(shares, 2)).astype(float)
        low, high = clustered_share(values, clusters, seed=number, draws=500).interval
        covered += low <= 0.2 <= high
    assert 0.93 <= covered / 1500 <= 0.97


def test_resamples_equal_to_the_estimate_count_half_as_below() -> None:
    """30 % below and 40 % equal is a median without bias: the bounds are plain quantiles."""
    values = np.concatenate([np.zeros(300), np.ones(400), np.linspace(2.0, 3.0, 300)])
    bounds = bca_bounds(values, np.array([-1.0, 0.0, 1.0]), 1.0)
    assert bounds == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))

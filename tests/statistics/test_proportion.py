"""Intervals of a share, and that of a mean of several shares."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom, binomtest

from prefloop.statistics import combined_interval, mid_p_interval, wilson_interval

Interval = Callable[[float, int], tuple[float, float]]


@pytest.mark.parametrize(("wins", "count"), [(0, 5), (5, 5), (1, 3), (44, 100), (500, 1234)])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_it_is_scipys(wins: int, count: int, level: float) -> None:
    expected = binomtest(wins, count).proportion_ci(level, method="wilson")
    assert wilson_interval(wins / count, count, level=level) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("share", "count", "level"), [(0.5, 0, 0.95), (1.1, 3, 0.95), (0.5, 3, 1.0)])
def test_what_is_out_of_range_is_refused(share: float, count: int, level: float) -> None:
    with pytest.raises(ValueError, match=r"row|share"):
        wilson_interval(share, count, level=level)


@pytest.mark.parametrize("interval", [wilson_interval, mid_p_interval])
def test_exchanging_wins_and_losses_exchanges_the_bounds(interval: Interval) -> None:
    low, high = interval(0.3, 20)
    assert interval(0.7, 20) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(("wins", "count"), [(1, 3), (7, 20), (44, 100), (500, 1234)])
def test_mid_p_ends_where_the_tails_with_half_of_what_was_seen_are_a_fortieth(wins: int, count: int) -> None:
    low, high = mid_p_interval(wins / count, count)
    assert binom.sf(wins, count, low) + binom.pmf(wins, count, low) / 2 == pytest.approx(0.025)
    assert binom.cdf(wins - 1, count, high) + binom.pmf(wins, count, high) / 2 == pytest.approx(0.025)
    exact = binomtest(wins, count).proportion_ci(0.95, method="exact")
    assert exact.low < low < wins / count < high < exact.high


def test_mid_p_of_nothing_and_of_all_leaves_room_on_one_side() -> None:
    assert mid_p_interval(0.0, 8) == pytest.approx((0.0, 1 - 0.05 ** (1 / 8)))
    assert mid_p_interval(1.0, 8) == pytest.approx((0.05 ** (1 / 8), 1.0))


def coverage(interval: Interval, count: int, shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """By enumeration, of each share."""
    bounds = np.array([interval(wins / count, count) for wins in range(count + 1)])
    chance = binom.pmf(np.arange(count + 1), count, shares[:, None])
    inside = (bounds[:, 0] <= shares[:, None]) & (shares[:, None] <= bounds[:, 1])
    return (chance * inside).sum(1)


@pytest.mark.parametrize("count", [40, 60, 100, 200])
def test_mid_p_covers_as_stated(count: int) -> None:
    """Up to 0.9 between 93 and 97 % but for single shares; near 1, where counts oscillate, not lower than Wilson's."""
    usual, extreme = np.linspace(0.5, 0.9, 81), np.linspace(0.9, 0.995, 96)
    covered = coverage(mid_p_interval, count, usual)
    assert np.mean((covered >= 0.93) & (covered <= 0.97)) >= 0.97
    assert covered.min() > 0.93
    near = coverage(mid_p_interval, count, extreme)
    assert 0.93 < near.mean() < 0.97
    assert near.min() > 0.915
    assert near.min() > coverage(wilson_interval, count, extreme).min() - 2e-3


def test_of_one_part_the_combined_interval_is_mid_ps_and_of_two_it_is_narrower() -> None:
    assert combined_interval([0.3], [20], [1.0]) == pytest.approx(mid_p_interval(0.3, 20))
    low, high = combined_interval([0.3, 0.3], [20, 20], [0.5, 0.5])
    mid_p = mid_p_interval(0.3, 20)
    assert 0.3 - low == pytest.approx((0.3 - mid_p[0]) / 2**0.5)
    assert high - 0.3 == pytest.approx((mid_p[1] - 0.3) / 2**0.5)
    assert combined_interval([1.0, 1.0], [9, 9], [1.0, 3.0])[1] == 4.0


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.9, 0.6), (0.95, 0.8), (0.97, 0.97)])
def test_the_combined_interval_covers_as_stated(shares: tuple[float, float]) -> None:
    """By enumeration of all that two parts of 40 and 60 rows can show; weights as different as RewardBench's."""
    counts, weights = (40, 60), (0.3, 0.7)
    truth = sum(weight * share for weight, share in zip(weights, shares, strict=True))
    chance = [binom.pmf(np.arange(count + 1), count, share) for count, share in zip(counts, shares, strict=True)]
    covered = 0.0
    for one, other in product(range(41), range(61)):
        if chance[0][one] * chance[1][other] > 1e-9:
            low, high = combined_interval([one / 40, other / 60], counts, weights)
            covered += chance[0][one] * chance[1][other] * (low <= truth <= high)
    assert 0.93 <= covered <= 0.97


def test_weights_below_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="weights must be >= 0"):
        combined_interval([0.5], [2], [-1.0])

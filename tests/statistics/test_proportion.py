"""Wilson's interval, and that of a mean of several shares."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from prefloop.statistics import combined_interval, wilson_interval


@pytest.mark.parametrize(("wins", "count"), [(0, 5), (5, 5), (1, 3), (44, 100), (500, 1234)])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_it_is_scipys(wins: int, count: int, level: float) -> None:
    expected = binomtest(wins, count).proportion_ci(level, method="wilson")
    assert wilson_interval(wins / count, count, level=level) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("share", "count", "level"), [(0.5, 0, 0.95), (1.1, 3, 0.95), (0.5, 3, 1.0)])
def test_what_is_out_of_range_is_refused(share: float, count: int, level: float) -> None:
    with pytest.raises(ValueError, match=r"row|share"):
        wilson_interval(share, count, level=level)


def test_of_one_part_the_combined_interval_is_wilsons_and_of_two_it_is_narrower() -> None:
    assert combined_interval([0.3], [20], [1.0]) == pytest.approx(wilson_interval(0.3, 20))
    low, high = combined_interval([0.3, 0.3], [20, 20], [0.5, 0.5])
    wilson = wilson_interval(0.3, 20)
    assert 0.3 - low == pytest.approx((0.3 - wilson[0]) / 2**0.5)
    assert high - 0.3 == pytest.approx((wilson[1] - 0.3) / 2**0.5)
    assert combined_interval([1.0, 1.0], [9, 9], [1.0, 3.0])[1] == 4.0


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.9, 0.6), (0.95, 0.8), (0.97, 0.97)])
def test_the_combined_interval_covers_as_stated(shares: tuple[float, float]) -> None:
    """By enumeration of all that two parts of 40 and 60 rows can show; weights as different as RewardBench's.

    Near 1 Wilson's own coverage of 40 rows oscillates below 0.93, and the sum's with it.
    """
    counts, weights = (40, 60), (0.3, 0.7)
    truth = sum(weight * share for weight, share in zip(weights, shares, strict=True))
    chance = [binom.pmf(np.arange(count + 1), count, share) for count, share in zip(counts, shares, strict=True)]
    covered = 0.0
    for one, other in product(range(41), range(61)):
        if chance[0][one] * chance[1][other] > 1e-9:
            low, high = combined_interval([one / 40, other / 60], counts, weights)
            covered += chance[0][one] * chance[1][other] * (low <= truth <= high)
    assert 0.925 <= covered <= 0.975


def test_weights_below_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="weights must be >= 0"):
        combined_interval([0.5], [2], [-1.0])

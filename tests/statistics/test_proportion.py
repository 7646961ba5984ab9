"""Wilson's interval."""

import pytest
from scipy.stats import binomtest

from prefloop.statistics import wilson_interval


@pytest.mark.parametrize(("wins", "count"), [(0, 5), (5, 5), (1, 3), (44, 100), (500, 1234)])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_it_is_scipys(wins: int, count: int, level: float) -> None:
    expected = binomtest(wins, count).proportion_ci(level, method="wilson")
    assert wilson_interval(wins / count, count, level=level) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("share", "count", "level"), [(0.5, 0, 0.95), (1.1, 3, 0.95), (0.5, 3, 1.0)])
def test_what_is_out_of_range_is_refused(share: float, count: int, level: float) -> None:
    with pytest.raises(ValueError, match=r"row|share"):
        wilson_interval(share, count, level=level)

"""DiscoPOP: the bump at its start, and extremes at which the released code gives NaN."""

import math

import pytest
import torch
from torch import Tensor

from prefloop.objectives import discopop


def at(*margins: float, tau: float = 0.05, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Losses and slopes at margins."""
    margin = torch.tensor(margins, dtype=dtype, requires_grad=True)
    zero = torch.zeros_like(margin)
    losses = discopop(margin, zero, zero, zero, beta=1.0, tau=tau)
    return losses.detach(), torch.autograd.grad(losses.sum(), [margin])[0]


def test_at_the_reference_its_slope_is_positive_so_that_descent_lowers_the_margin() -> None:
    slope = at(0.0)[1].item()
    assert slope == pytest.approx((1 - math.log(2)) / (4 * 0.05) - 0.75)
    assert slope == pytest.approx(0.7843, abs=1e-4)


@pytest.mark.parametrize(("place", "before"), [(-0.1186, -1), (0.0720, 1)])
def test_it_has_a_minimum_below_and_a_maximum_above_the_reference(place: float, before: int) -> None:
    """To the four digits of the page."""
    slopes = at(place - 1e-4, place + 1e-4)[1]
    assert slopes.sign().tolist() == [before, -before]


def test_far_away_it_is_the_logistic_loss_below_and_the_exponential_one_above() -> None:
    losses = at(-30.0, 30.0)[0]
    assert losses.tolist() == pytest.approx([30.0, math.exp(-30)], rel=1e-9)


@pytest.mark.parametrize("margin", [-100.0, 100.0, -2000.0, 2000.0])
@pytest.mark.parametrize("tau", [0.05, 1.0])
def test_where_the_exponential_overflows_and_its_weight_underflows_it_stays_finite(margin: float, tau: float) -> None:
    losses, slopes = at(margin, tau=tau, dtype=torch.float32)
    assert bool(losses.isfinite().all())
    assert bool(slopes.isfinite().all())

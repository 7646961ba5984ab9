"""Objectives that anchor each answer: their slopes where training starts, and where they lead."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from prefloop.objectives import apo_down, apo_zero, bco_pair, cal_dpo, dpo, nca_pair, rebel, sppo_hard


def slopes(function: Callable[..., Tensor], chosen: float, rejected: float, **hyper: float) -> tuple[float, float]:
    """Derivatives of the loss by the two log-ratios."""
    rho = torch.tensor([[chosen], [rejected]], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, dtype=torch.float64)
    (found,) = torch.autograd.grad(function(rho[0], rho[1], zero, zero, **hyper).sum(), [rho])
    return found[0].item(), found[1].item()


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (nca_pair, (-1 / 4, 1 / 4)),
        (bco_pair, (-1 / 2, 1 / 2)),
        (apo_zero, (-1 / 4, 1 / 4)),
        (apo_down, (0.0, 1 / 4)),
    ],
    ids=["nca_pair", "bco_pair", "apo_zero", "apo_down"],
)
def test_slopes_at_the_reference(function: Callable[..., Tensor], expected: tuple[float, float]) -> None:
    beta = 0.3
    assert slopes(function, 0.0, 0.0, beta=beta) == pytest.approx([beta * slope for slope in expected], abs=1e-15)


def test_sppo_pulls_from_the_reference_by_one_over_beta() -> None:
    assert slopes(sppo_hard, 0.0, 0.0, beta=0.004) == pytest.approx((-250.0, 250.0))


@pytest.mark.parametrize("beta", [0.01, 0.5])
def test_ncas_best_chosen_reward_is_log_2_and_its_rejected_reward_falls_for_ever(beta: float) -> None:
    chosen, rejected = slopes(nca_pair, math.log(2) / beta, -30 / beta, beta=beta)
    assert chosen == pytest.approx(0.0, abs=1e-15)
    assert 0 < rejected < 1e-12


@pytest.mark.parametrize("beta", [0.001, 0.2])
def test_sppo_has_its_minimum_where_it_says(beta: float) -> None:
    zero, target = torch.zeros(1, dtype=torch.float64), torch.tensor([1 / (2 * beta)], dtype=torch.float64)
    assert sppo_hard(target, -target, zero, zero, beta=beta).tolist() == [0.0]


@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0])
def test_cal_dpos_minimum_is_less_than_half_a_nat_from_the_squares(beta: float) -> None:
    """It solves 2 (rho - 1/(2 beta)) = sigmoid(-2 rho), with the two log-ratios opposite."""
    target = 1 / (2 * beta)
    assert slopes(cal_dpo, target, -target, beta=beta)[0] < 0
    assert slopes(cal_dpo, target + 0.5, -target - 0.5, beta=beta)[0] > 0


@pytest.mark.parametrize("function", [apo_zero, apo_down], ids=["apo_zero", "apo_down"])
def test_apo_gives_up_on_what_is_far_away_on_either_side(function: Callable[..., Tensor]) -> None:
    for sign in (1, -1):
        assert slopes(function, sign * 50.0, -sign * 50.0, beta=1.0) == pytest.approx((0.0, 0.0), abs=1e-20)


def test_bco_of_a_pair_is_never_below_dpo() -> None:
    generator = torch.Generator().manual_seed(0)
    numbers = 20 * torch.randn(4, 500, generator=generator, dtype=torch.float64)
    assert bool((bco_pair(*numbers, beta=0.1) > dpo(*numbers, beta=0.1)).all())


@pytest.mark.parametrize("function", [nca_pair, bco_pair, apo_zero, sppo_hard, cal_dpo])
def test_a_constant_of_the_prompt_in_the_reference_does_matter(function: Callable[..., Tensor]) -> None:
    numbers = torch.tensor([[-3.0], [-4.0], [-5.0], [-3.5]], dtype=torch.float64)
    moved = numbers + torch.tensor([[0.0], [0.0], [2.0], [2.0]], dtype=torch.float64)
    assert (function(*moved, beta=0.5) - function(*numbers, beta=0.5)).abs().item() > 1e-3


@pytest.mark.parametrize("eta", [0.1, 2.0])
def test_rebels_minimum_is_a_gap_of_eta_times_the_scores(eta: float) -> None:
    zero, gap = torch.zeros(1, dtype=torch.float64), torch.tensor([3.0], dtype=torch.float64)
    assert rebel(eta * gap, zero, zero, zero, gap + 1, zero + 1, eta=eta).item() == pytest.approx(0.0, abs=1e-30)
    assert rebel(zero, zero, zero, zero, gap, zero, eta=eta).item() == pytest.approx(9.0)

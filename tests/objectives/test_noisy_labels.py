"""Conservative and robust DPO: where their gradient turns, and where it never does."""

import math

import pytest
import torch

from prefloop.objectives import conservative_dpo, dpo, robust_dpo
from prefloop.worlds import Bandit

ZERO = torch.zeros(1, dtype=torch.float64)


@pytest.mark.parametrize("smoothing", [0.01, 0.1, 0.4])
@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_conservative_dpo_has_its_minimum_where_the_policy_is_as_sure_as_the_labels(
    beta: float, smoothing: float
) -> None:
    gap = math.log((1 - smoothing) / smoothing) / beta
    chosen = torch.tensor([gap * 0.99, gap, gap * 1.01], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros_like(chosen)
    losses = conservative_dpo(chosen, zero, zero, zero, beta=beta, label_smoothing=smoothing)
    (slope,) = torch.autograd.grad(losses.sum(), [chosen])
    assert slope[0] < 0
    assert slope[1].item() == pytest.approx(0, abs=1e-15)
    assert slope[2] > 0


@pytest.mark.parametrize("smoothing", [0.1, 0.3])
def test_robust_dpo_falls_for_ever_at_its_slope(smoothing: float) -> None:
    beta = 0.1
    chosen = torch.tensor([1e4], dtype=torch.float64, requires_grad=True)
    losses = robust_dpo(chosen, ZERO, ZERO, ZERO, beta=beta, label_smoothing=smoothing)
    (slope,) = torch.autograd.grad(losses.sum(), [chosen])
    assert losses.item() == pytest.approx(-smoothing * beta * 1e4 / (1 - 2 * smoothing))
    assert slope.item() == pytest.approx(-smoothing * beta / (1 - 2 * smoothing))


def test_on_flipped_labels_robust_dpo_ends_where_dpo_ends_on_clean_ones() -> None:
    """Every ordered pair, with the label that Bradley-Terry on the reward gives and flips of probability e."""
    world, flips, beta = Bandit.of(4, seed=1), 0.2, 0.7
    chosen, rejected = (1 - torch.eye(4)).nonzero(as_tuple=True)
    clean = (world.reward[chosen] - world.reward[rejected]).sigmoid()
    noisy = (1 - flips) * clean + flips * (1 - clean)
    policy = world.optimum("dpo", beta=beta).requires_grad_()
    pair = (policy[chosen], policy[rejected], world.ref[chosen], world.ref[rejected])
    expected = (clean * dpo(*pair, beta=beta)).sum()
    found = (noisy * robust_dpo(*pair, beta=beta, label_smoothing=flips)).sum()
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    (slope,) = torch.autograd.grad(found, [policy])
    assert slope.abs().max() < 1e-6

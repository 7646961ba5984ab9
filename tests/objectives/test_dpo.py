"""DPO against its optimum and its gradient on paper."""

import math

import pytest
import torch

from prefloop.objectives import dpo
from prefloop.worlds import Bandit


@pytest.mark.parametrize("beta", [0.05, 0.1, 1.0])
def test_population_optimum_is_the_tilted_reference(beta: float) -> None:
    """Under Bradley-Terry preferences the minimiser is pi_ref * exp(reward / beta), exactly."""
    world = Bandit.of(5, seed=0)
    torch.testing.assert_close(world.optimum("dpo", beta=beta), world.tilted(world.reward / beta), rtol=0, atol=1e-9)


@pytest.mark.parametrize("beta", [0.01, 0.1, 2.0])
def test_at_the_reference_the_loss_is_log_2_and_the_gradient_half_of_beta(beta: float) -> None:
    ref_chosen, ref_rejected = torch.tensor([-3.0, -90.0]).double(), torch.tensor([-40.0, -2.0]).double()
    chosen, rejected = ref_chosen.clone().requires_grad_(), ref_rejected.clone().requires_grad_()
    losses = dpo(chosen, rejected, ref_chosen, ref_rejected, beta=beta)
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([math.log(2)] * 2, abs=1e-15)
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert chosen.grad.tolist() == pytest.approx([-beta / 2] * 2, abs=1e-15)
    assert rejected.grad.tolist() == pytest.approx([beta / 2] * 2, abs=1e-15)


def test_a_constant_of_the_prompt_in_the_reference_changes_nothing() -> None:
    chosen, rejected = torch.tensor([-3.0, -9.0]).double(), torch.tensor([-4.0, -2.0]).double()
    ref_chosen, ref_rejected = torch.tensor([-5.0, -7.0]).double(), torch.tensor([-6.0, -1.0]).double()
    prompt = torch.tensor([2.0, -8.0]).double()
    moved = dpo(chosen, rejected, ref_chosen + prompt, ref_rejected + prompt)
    torch.testing.assert_close(moved, dpo(chosen, rejected, ref_chosen, ref_rejected), rtol=0, atol=1e-14)

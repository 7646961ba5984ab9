"""SELM and XPO: DPO with a bonus for what has not been tried."""

import pytest
import torch
from torch import Tensor

from prefloop.objectives import dpo, selm, xpo


def drawn(count: int, seed: int = 0, pairs: int = 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [-40 * torch.rand(pairs, generator=generator, dtype=torch.float64) for _ in range(count)]


def test_without_optimism_both_are_dpo() -> None:
    *pair, own, ref_own = drawn(6)
    expected = dpo(*pair, beta=0.2).tolist()
    assert selm(*pair, own, ref_own, beta=0.2, alpha=0.0).tolist() == expected
    assert xpo(*pair, own, beta=0.2, alpha=0.0).tolist() == expected


@pytest.mark.parametrize("moved", [0.0, -1000.0])
def test_the_bonus_of_selm_never_saturates_and_pushes_the_own_answer_down(moved: float) -> None:
    *pair, own, ref_own = drawn(6)
    own = (own + moved).requires_grad_()
    (grad,) = torch.autograd.grad(selm(*pair, own, ref_own, beta=0.2, alpha=0.05).sum(), [own])
    assert grad.tolist() == pytest.approx([0.05 * 0.2] * 6, rel=1e-12)


def test_the_bonus_of_xpo_is_not_multiplied_by_beta() -> None:
    *pair, sample = drawn(5)
    sample.requires_grad_()
    (grad,) = torch.autograd.grad(xpo(*pair, sample, beta=0.2, alpha=0.05).sum(), [sample])
    assert grad.tolist() == pytest.approx([0.05] * 6, rel=1e-12)


def test_an_own_answer_that_was_chosen_still_rises_unless_the_pair_is_learnt() -> None:
    """-beta * sigmoid(-m) + alpha * beta: up while sigmoid(-m) > alpha."""
    zero = torch.zeros(2, dtype=torch.float64)
    chosen = torch.tensor([0.0, 80.0], dtype=torch.float64, requires_grad=True)
    losses = selm(chosen, zero, zero, zero, chosen, zero, beta=0.1, alpha=0.01)
    (grad,) = torch.autograd.grad(losses.sum(), [chosen])
    assert grad.sign().tolist() == [-1, 1]
    assert grad[0].item() == pytest.approx(-0.1 * 0.5 + 0.01 * 0.1)


def test_an_own_answer_that_was_rejected_is_pushed_down_harder() -> None:
    zero = torch.zeros(1, dtype=torch.float64)
    rejected = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    losses = selm(zero, rejected, zero, zero, rejected, zero, beta=0.1, alpha=0.01)
    (grad,) = torch.autograd.grad(losses.sum(), [rejected])
    assert grad.item() == pytest.approx(0.1 * 0.5 + 0.01 * 0.1)


def test_at_the_reference_the_bonus_of_xpo_has_no_expected_gradient() -> None:
    """alpha * (pi_ref - pi) in the logits, by enumeration of the reference's samples."""
    ref = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()
    for shift, expected in ((0.0, 0.0), (0.4, None)):
        theta = (ref + torch.tensor([shift, 0.0, 0.0])).requires_grad_()
        policy, zero = theta.log_softmax(0), torch.zeros(3, dtype=torch.float64)
        bonus = (ref.exp() * (xpo(zero, zero, zero, zero, policy, alpha=0.1) - dpo(zero, zero, zero, zero))).sum()
        (grad,) = torch.autograd.grad(bonus, [theta])
        torch.testing.assert_close(grad, 0.1 * (ref.exp() - policy.exp()).detach(), rtol=0, atol=1e-14)
        assert expected is None or grad.abs().max().item() < 1e-15

"""TDPO: the sequential KL from logits, and where its gradient goes."""

import math

import pytest
import torch
from torch import Tensor

from prefloop.objectives import sequential_kl, tdpo1, tdpo2

ZERO = torch.zeros(1, dtype=torch.float64)


def logits(seed: int, pairs: int = 3, tokens: int = 4, vocab: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(pairs, tokens, vocab, generator=generator, dtype=torch.float64)


EVERY = torch.ones(3, 4, dtype=torch.bool)
MASK = torch.tensor([[True, True, False, False], [True, False, True, True], [True] * 4])


def test_it_is_the_sum_of_probabilities_times_log_ratios() -> None:
    policy, ref = logits(0), logits(1)
    expected = [0.0] * 3
    for pair in range(3):
        for token in range(4):
            if MASK[pair, token]:
                p, q = (side[pair, token].softmax(0).tolist() for side in (policy, ref))
                expected[pair] += sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
    assert sequential_kl(policy, ref, MASK).tolist() == pytest.approx(expected, rel=1e-12)


def test_it_is_zero_at_the_reference_and_its_gradient_too() -> None:
    policy = logits(0).requires_grad_()
    found = sequential_kl(policy, logits(0), EVERY)
    found.sum().backward()
    assert found.tolist() == [0.0] * 3
    assert policy.grad is not None
    assert policy.grad.abs().max() < 1e-15


def test_its_gradient_is_p_minus_q_at_counted_positions_and_zero_elsewhere() -> None:
    policy, ref = logits(0).requires_grad_(), logits(1)
    sequential_kl(policy, ref, MASK).sum().backward()
    expected = (policy.softmax(2) - ref.softmax(2)).detach() * MASK[:, :, None]
    torch.testing.assert_close(policy.grad, expected, rtol=0, atol=1e-14)


def test_it_adds_up_over_positions_and_does_not_depend_on_the_order_of_the_vocabulary() -> None:
    policy, ref = logits(0), logits(1)
    parts = [sequential_kl(policy[:, [token]], ref[:, [token]], EVERY[:, [token]]) for token in range(4)]
    whole = sequential_kl(policy, ref, EVERY)
    torch.testing.assert_close(sum(parts), whole, rtol=1e-13, atol=0)
    order = [3, 0, 4, 1, 2]
    torch.testing.assert_close(sequential_kl(policy[:, :, order], ref[:, :, order], EVERY), whole, rtol=1e-13, atol=0)


def test_probabilities_that_underflow_and_tokens_that_are_excluded_add_nothing() -> None:
    """The authors' log(softmax) gives NaN in both."""
    policy, ref = logits(0).float(), logits(1).float()
    plain = sequential_kl(policy, ref, EVERY)
    far, gone = (torch.cat([side, torch.full((3, 4, 1), -1e4)], 2) for side in (policy, ref))
    torch.testing.assert_close(sequential_kl(far, gone, EVERY), plain)
    learnt, excluded = (torch.cat([side, torch.full((3, 4, 1), -torch.inf)], 2) for side in (policy, ref))
    found = sequential_kl(learnt.requires_grad_(), excluded, EVERY)
    found.sum().backward()
    torch.testing.assert_close(found, plain)
    assert learnt.grad is not None
    assert bool(learnt.grad.isfinite().all())


def kl_slopes(variant: int, beta: float, alpha: float) -> tuple[float, float, float]:
    chosen, rejected = ((ZERO + value).requires_grad_() for value in (1.5, 2.5))
    pair = (ZERO - 1, ZERO - 2, ZERO, ZERO, chosen, rejected)
    loss = tdpo1(*pair, beta=beta) if variant == 1 else tdpo2(*pair, beta=beta, alpha=alpha)
    found = torch.autograd.grad(loss.sum(), [chosen, rejected], allow_unused=True, materialize_grads=True)
    return loss.item(), found[0].item(), found[1].item()


def test_tdpo1_pushes_the_chosen_answers_divergence_up_as_hard_as_the_rejected_ones_down() -> None:
    loss, chosen, rejected = kl_slopes(1, beta=0.2, alpha=1.0)
    assert chosen == -rejected
    assert rejected == pytest.approx(0.2 * (1 - math.exp(-loss)))


def test_tdpo2_leaves_the_chosen_answers_divergence_alone() -> None:
    loss, chosen, rejected = kl_slopes(2, beta=0.2, alpha=0.5)
    assert chosen == 0
    assert rejected == pytest.approx(0.5 * 0.2 * (1 - math.exp(-loss)))


def test_at_alpha_1_the_two_agree_in_value_but_not_in_gradient() -> None:
    one, two = kl_slopes(1, beta=0.2, alpha=1.0), kl_slopes(2, beta=0.2, alpha=1.0)
    assert one[0] == two[0]
    assert one[1] != two[1]
    assert one[2] == two[2]

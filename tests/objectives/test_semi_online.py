"""SoPo, which leaves out good samples, and SPO, which also grades degraded answers."""

import math

import pytest
import torch
from torch import Tensor

from prefloop.objectives import degree_cross_entropy, dpo, sopo, sopo_joint, spo


def drawn(count: int, seed: int = 0, pairs: int = 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [-20 * torch.rand(pairs, generator=generator, dtype=torch.float64) for _ in range(count)]


ZERO = torch.zeros(6, dtype=torch.float64)
SCORES = torch.tensor([0.1, 0.44, 0.45, 0.46, 0.9, 0.2], dtype=torch.float64)
SIMILARITY = torch.tensor([-0.2, 0.0, 0.3, 0.9, -0.7, 0.5], dtype=torch.float64)


def test_with_the_threshold_above_all_scores_and_no_weights_both_are_dpo() -> None:
    """The joint form multiplies the rejected answer by beta once more: it needs beta = 1."""
    pair = drawn(4)
    torch.testing.assert_close(sopo(*pair, SCORES, ZERO, beta=0.3, weight_constant=1.0, tau=1.0), dpo(*pair, beta=0.3))
    torch.testing.assert_close(
        sopo_joint(*pair, SCORES, ZERO, beta=1.0, weight_constant=1.0, tau=1.0), dpo(*pair, beta=1.0)
    )


def test_a_rejected_answer_that_scores_the_threshold_or_more_has_no_gradient_and_no_part() -> None:
    pair = drawn(4)
    pair[1].requires_grad_()
    losses = sopo(*pair, SCORES, SIMILARITY, tau=0.45)
    (grad,) = torch.autograd.grad(losses.sum(), [pair[1]])
    assert (grad != 0).tolist() == [True, True, False, False, False, True]
    assert (grad >= 0).all()
    unread = sopo(pair[0], pair[1].detach() - 99, *pair[2:], SCORES, SIMILARITY, tau=0.45)
    assert unread[2:5].tolist() == losses[2:5].tolist()


def test_both_forms_are_one_where_nothing_is_rejected() -> None:
    pair = drawn(4)
    one, other = (form(*pair, SCORES, SIMILARITY, tau=0.0) for form in (sopo, sopo_joint))
    assert one.tolist() == other.tolist()


def test_a_chosen_answer_that_is_all_like_the_samples_has_no_weight() -> None:
    pair = drawn(4)
    found = sopo(*pair, SCORES, torch.ones_like(ZERO), weight_constant=1.0, tau=0.0)
    assert found.tolist() == pytest.approx([math.log(2)] * 6, rel=1e-15)


def test_the_chosen_answer_alone_bounds_the_pair_where_the_sample_has_become_less_likely() -> None:
    w, r, ref_w, ref_r = drawn(4)
    r = torch.minimum(r, ref_r)
    alone, both = (sopo(w, r, ref_w, ref_r, SCORES, SIMILARITY, tau=tau) for tau in (-1.0, 2.0))
    assert bool((alone >= both).all())


# ---------------------------------------------------------------------------------------------------------------- SPO


GRADES = torch.tensor([[0, 3, 1], [2, 0, 0]])
MASK = torch.tensor([[True, True, True], [True, True, False]])


def logits(seed: int = 0) -> Tensor:
    return torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_without_its_weight_the_head_learns_nothing() -> None:
    pair, head = drawn(4, pairs=2), logits().requires_grad_()
    losses = spo(*pair, head, GRADES, MASK, gamma=0.0)
    assert losses.tolist() == dpo(*pair).tolist()
    (grad,) = torch.autograd.grad(losses.sum(), [head])
    assert grad.abs().max().item() == 0


def test_a_head_that_knows_nothing_costs_the_log_of_the_number_of_classes() -> None:
    assert degree_cross_entropy(0 * logits(), GRADES, MASK).tolist() == pytest.approx([math.log(4)] * 2)


def test_the_gradient_of_the_head_is_softmax_minus_the_grade_over_the_versions() -> None:
    pair, head = drawn(4, pairs=2), logits().requires_grad_()
    (grad,) = torch.autograd.grad(spo(*pair, head, GRADES, MASK, gamma=0.5).mean(), [head])
    versions = torch.tensor([3.0, 2.0]).double()[:, None, None]
    expected = 0.5 / (2 * versions) * (head.softmax(2) - torch.nn.functional.one_hot(GRADES, 4)) * MASK[:, :, None]
    torch.testing.assert_close(grad, expected.detach(), rtol=1e-12, atol=1e-15)


def test_a_version_that_is_not_there_does_not_count() -> None:
    changed = logits()
    changed[1, 2] = 77.0
    assert degree_cross_entropy(changed, GRADES, MASK).tolist() == degree_cross_entropy(logits(), GRADES, MASK).tolist()

"""Step-DPO, BMC and WPO: which tokens count, and how much."""

import math

import pytest
import torch
from torch import Tensor

from prefloop.objectives import bmc, bmc_weights, step_dpo, wpo, wpo_log_weights, wpo_uncapped


def numbers(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_a_prefix_is_neither_seen_nor_learnt_and_the_step_is_learnt_evenly() -> None:
    chosen = numbers([-1.0, -2.0, -3.0, -4.0]).requires_grad_()
    rejected = numbers([-1.0, -2.0, -0.5]).requires_grad_()
    prefix = torch.tensor([2])
    losses = step_dpo(chosen, rejected, 0 * chosen.detach(), 0 * rejected.detach(), prefix, prefix, beta=0.4)
    losses.sum().backward()
    assert chosen.grad is not None
    assert rejected.grad is not None
    pull = 0.4 / (1 + math.exp(0.4 * (-7.0 + 0.5)))
    assert chosen.grad[0].tolist() == pytest.approx([0.0, 0.0, -pull, -pull])
    assert rejected.grad[0].tolist() == pytest.approx([0.0, 0.0, pull])
    moved = numbers([-9.0, 0.0, -3.0, -4.0])
    again = step_dpo(moved, rejected, 0 * moved, 0 * rejected.detach(), prefix, prefix, beta=0.4)
    assert again.tolist() == losses.tolist()


def test_each_answer_has_a_prefix_of_its_own() -> None:
    chosen, rejected = numbers([-1.0, -2.0, -4.0]), numbers([-8.0, -16.0, -32.0])
    losses = step_dpo(chosen, rejected, 0 * chosen, 0 * rejected, torch.tensor([1]), torch.tensor([2]), beta=0.1)
    assert losses.tolist() == pytest.approx([math.log1p(math.exp(-0.1 * (-6.0 + 32.0)))])


def test_bmc_weights_grow_as_tokens_get_less_likely_up_to_their_cap() -> None:
    marked = torch.tensor([[True, True, True, True, False]])
    weights = bmc_weights(numbers([0.0, math.log(0.8), math.log(0.5), -800.0, -3.0]), marked, 1.5)
    assert weights.tolist() == [pytest.approx([2.0, 2.25, 2.5, 2.5, 1.0])]


@pytest.mark.parametrize("delta", [0.3, 1.0])
def test_below_1_what_bmc_adds_does_not_depend_on_the_policy(delta: float) -> None:
    marked = torch.ones(1, 3, dtype=torch.bool)
    assert bmc_weights(numbers([-0.1, -5.0, 0.0]), marked, delta).tolist() == [[1 + delta] * 3]


def test_no_gradient_flows_through_bmcs_weights() -> None:
    chosen = numbers([-0.2, -1.0]).requires_grad_()
    marked, zero = torch.tensor([[True, False]]), numbers([0.0, 0.0])
    losses = bmc(chosen, zero, chosen.detach(), zero, marked, marked, beta=0.1, delta=2.0)
    losses.sum().backward()
    assert chosen.grad is not None
    assert chosen.grad[0].tolist() == pytest.approx([-0.05 * (1 + math.exp(0.2)), -0.05])


def test_wpo_weighs_by_the_mean_token_of_both_answers_and_only_the_authors_cap_it() -> None:
    chosen, rejected = numbers([-1.0, -3.0, 0.0]), numbers([-1.0, 0.0])
    squares, other = numbers([-1.5, -1.5, 0.0]), numbers([-2.5, 0.0])
    lengths = torch.tensor([2.0]).double(), torch.tensor([1.0]).double()
    tokens = (chosen, rejected, squares, other, *lengths)
    assert wpo_log_weights(*tokens).tolist() == pytest.approx([-0.5 + 1.5])
    pair = (chosen, rejected, chosen, rejected, squares, other, *lengths)
    assert wpo(*pair).tolist() == pytest.approx([math.log(2)])
    assert wpo_uncapped(*pair).tolist() == pytest.approx([math.e * math.log(2)])


def test_no_gradient_flows_through_wpos_weight() -> None:
    chosen = numbers([-1.0, -3.0]).requires_grad_()
    squares = numbers([-1.5, -0.5]).requires_grad_()
    zero, two = numbers([0.0, 0.0]), torch.tensor([2.0]).double()
    wpo(chosen, zero, chosen.detach(), zero, squares, zero, two, two, beta=0.2).sum().backward()
    assert chosen.grad is not None
    assert chosen.grad[0].tolist() == pytest.approx([-0.1 * math.exp(-1.0)] * 2)
    assert squares.grad is None

"""DPOP: its gradient on both sides of the reference, and its claim on answers that differ early and agree later."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefloop.objectives import dpo, dpop, dpop_outside_beta

ZERO = torch.zeros(1, dtype=torch.float64)


def slopes(function: Callable[..., Tensor], chosen: float, rejected: float, **hyper: float) -> tuple[float, float]:
    both = [(ZERO + value).requires_grad_() for value in (chosen, rejected)]
    up, down = torch.autograd.grad(function(*both, ZERO, ZERO, **hyper).sum(), both)
    return up.item(), down.item()


@pytest.mark.parametrize("lam", [0.5, 5.0, 50.0])
def test_below_the_reference_the_chosen_answer_is_pulled_1_plus_lambda_times_as_hard(lam: float) -> None:
    up, down = slopes(dpop, -0.5, -2.0, beta=0.1, lam=lam)
    assert up / down == pytest.approx(-(1 + lam))


def test_at_the_reference_the_first_step_is_that_of_dpo() -> None:
    """The positive part's derivative at 0 is 0; half, as `torch.maximum` has it, would scale it by up to 26."""
    assert slopes(dpop, 0.0, 0.0, beta=0.3, lam=50.0) == slopes(dpo, 0.0, 0.0, beta=0.3)
    assert slopes(dpop_outside_beta, 0.0, 0.0, beta=0.3, lam=50.0) == slopes(dpo, 0.0, 0.0, beta=0.3)


def test_it_never_rises_with_the_chosen_nor_falls_with_the_rejected_answer() -> None:
    steps = torch.linspace(-30, 30, 121, dtype=torch.float64)
    zero = torch.zeros_like(steps)
    assert dpop(steps, zero, zero, zero).diff().max() <= 0
    assert dpop(zero, steps, zero, zero).diff().min() >= 0


def test_a_thousand_nats_below_the_reference_it_is_linear_and_finite() -> None:
    loss = dpop(ZERO - 1000, ZERO, ZERO, ZERO, beta=0.1, lam=500.0)
    assert loss.item() == pytest.approx(0.1 * (1000 + 500 * 1000))


SHARED = 10
"""Tokens that both answers have behind the one in which they differ."""


def answers(parameters: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the right and the wrong answer of a model of two parameters.

    The first decides on the token in which they differ; the second is the one logit of all shared tokens, which the
    model finds more likely behind the right token (bias 1.5) than behind the wrong one (0).
    """
    differing, shared = parameters
    right = logsigmoid(differing) + SHARED * logsigmoid(shared + 1.5)
    wrong = logsigmoid(-differing) + SHARED * logsigmoid(shared)
    return right[None], wrong[None]


def drop_of_the_chosen_answer(function: Callable[..., Tensor], **hyper: float) -> float:
    """Nats below the reference after 200 steps of gradient descent from it."""
    parameters = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    ref_chosen, ref_rejected = (side.detach() for side in answers(parameters))
    optimizer = torch.optim.SGD([parameters], lr=0.01)
    for _ in range(200):
        optimizer.zero_grad()
        function(*answers(parameters), ref_chosen, ref_rejected, **hyper).sum().backward()
        torch.nn.utils.clip_grad_norm_([parameters], 1.0)
        optimizer.step()
    return (ref_chosen - answers(parameters)[0]).item()


def test_where_answers_differ_in_one_token_dpo_makes_the_chosen_less_likely_and_dpop_does_not() -> None:
    assert drop_of_the_chosen_answer(dpo, beta=0.3) > 1.5
    assert drop_of_the_chosen_answer(dpop, beta=0.3, lam=5.0) < 0
    assert drop_of_the_chosen_answer(dpop, beta=0.3, lam=50.0) < 0

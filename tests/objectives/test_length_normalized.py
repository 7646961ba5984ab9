"""SimPO and length-normalised DPO: averages, so that repetition gains nothing."""

import math

import pytest
import torch

from prefloop.objectives import length_normalized_dpo, simpo

ONE = torch.ones(1, dtype=torch.float64)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 3.0])
def test_equal_averages_miss_the_margin_by_gamma(gamma: float) -> None:
    loss = simpo(-10 * ONE, -100 * ONE, 5 * ONE, 50 * ONE, gamma=gamma)
    assert loss.item() == pytest.approx(math.log1p(math.exp(gamma)))


def test_gamma_is_a_margin_in_units_of_reward_outside_beta() -> None:
    """The papers' tables give gamma / beta: 0.5 there, at beta 2, is 1 here."""
    ratio, beta = 0.5, 2.0
    averages = (ONE * -0.3, ONE * -0.9)
    expected = -torch.nn.functional.logsigmoid(beta * (averages[0] - averages[1] - ratio))
    found = simpo(4 * averages[0], 7 * averages[1], 4 * ONE, 7 * ONE, beta=beta, gamma=ratio * beta)
    assert found.item() == pytest.approx(expected.item(), rel=1e-14)


def test_the_gradient_of_simpo_is_beta_over_the_length_times_what_is_missing() -> None:
    chosen, rejected = (-8 * ONE).requires_grad_(), (-9 * ONE).requires_grad_()
    loss = simpo(chosen, rejected, 4 * ONE, 3 * ONE, beta=2.0, gamma=1.0)
    up, down = torch.autograd.grad(loss.sum(), [chosen, rejected])
    z = 2.0 * (-2 + 3) - 1.0
    missing = 1 / (1 + math.exp(z))
    assert up.item() == pytest.approx(-2 / 4 * missing)
    assert down.item() == pytest.approx(2 / 3 * missing)


def test_repeating_an_answer_changes_neither() -> None:
    once = (simpo(-3 * ONE, -4 * ONE, 2 * ONE, 3 * ONE), length_normalized_dpo(*(-3 * ONE, -4 * ONE) * 2, ONE, 2 * ONE))
    twice = (
        simpo(-6 * ONE, -4 * ONE, 4 * ONE, 3 * ONE),
        length_normalized_dpo(-6 * ONE, -4 * ONE, -6 * ONE, -4 * ONE, 2 * ONE, 2 * ONE),
    )
    assert [loss.item() for loss in twice] == [loss.item() for loss in once]

"""LD-DPO: only the longer answer's tail counts less."""

import math

import pytest
import torch
from torch import Tensor

from prefloop.objectives import ld_dpo, ld_dpo_policy_only


def tokens(*values: float) -> tuple[Tensor, Tensor]:
    """One answer's token log-probabilities and the mask that counts all of them."""
    return torch.tensor([values], dtype=torch.float64), torch.ones(1, len(values), dtype=torch.bool)


LONG, LONG_MASK = tokens(-0.5, -1.5, -0.25, -2.0)
SHORT, SHORT_MASK = tokens(-1.0, -0.75)
LONG_REF, SHORT_REF = tokens(-0.7, -0.6, -0.5, -0.4)[0], tokens(-0.3, -0.2)[0]


def z(loss: Tensor) -> float:
    """The margin in loss = log(1 + exp(-z))."""
    return -math.log(math.expm1(loss.item()))


@pytest.mark.parametrize("a", [0.0, 0.3, 1.0])
def test_by_hand(a: float) -> None:
    rho_long = (-0.5 - 1.5 + 0.7 + 0.6) + a * (-0.25 - 2.0 + 0.5 + 0.4)
    rho_short = -1.75 + 0.5
    found = ld_dpo(LONG, SHORT, LONG_REF, SHORT_REF, LONG_MASK, SHORT_MASK, beta=0.4, ld_alpha=a)
    assert z(found) == pytest.approx(0.4 * (rho_long - rho_short), abs=1e-14)
    found = ld_dpo(SHORT, LONG, SHORT_REF, LONG_REF, SHORT_MASK, LONG_MASK, beta=0.4, ld_alpha=a)
    assert z(found) == pytest.approx(0.4 * (rho_short - rho_long), abs=1e-14)


@pytest.mark.parametrize("a", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("function", [ld_dpo, ld_dpo_policy_only])
def test_a_tail_token_has_a_times_the_gradient_of_a_head_token(function: object, a: float) -> None:
    long, short = LONG.clone().requires_grad_(), SHORT.clone().requires_grad_()
    loss = function(long, short, LONG_REF, SHORT_REF, LONG_MASK, SHORT_MASK, ld_alpha=a)
    up, down = torch.autograd.grad(loss.sum(), [long, short])
    assert (up / up[0, 0]).tolist() == [[1.0, 1.0, a, a]]
    assert down.tolist() == [[-up[0, 0].item()] * 2]


def test_positions_are_counted_among_the_counted_tokens() -> None:
    """Tokens of a user's turn in the middle are neither scored nor take up a place."""
    mask = torch.tensor([[True, False, True, True, True]])
    gap = tokens(-0.5, 9.0, -1.5, -0.25, -2.0)[0]
    ref = tokens(-0.7, 5.0, -0.6, -0.5, -0.4)[0]
    found = ld_dpo(gap, SHORT, ref, SHORT_REF, mask, SHORT_MASK)
    expected = ld_dpo(LONG, SHORT, LONG_REF, SHORT_REF, LONG_MASK, SHORT_MASK)
    assert found.item() == pytest.approx(expected.item(), rel=1e-14)


def test_at_the_reference_only_the_form_that_weights_both_is_at_log_2() -> None:
    at = (LONG, SHORT, LONG, SHORT, LONG_MASK, SHORT_MASK)
    assert ld_dpo(*at).item() == pytest.approx(math.log(2), abs=1e-15)
    surprise_of_the_tail = 0.25 + 2.0
    assert z(ld_dpo_policy_only(*at, beta=0.4, ld_alpha=0.3)) == pytest.approx(0.4 * 0.7 * surprise_of_the_tail)

"""Length regularisation, offset and token level in one loss: what it is without each of them."""

from typing import Any

import pytest
import torch
from torch import Tensor

from prefloop.objectives import (
    dpo,
    find_objective,
    length_regularized_dpo,
    length_regularized_token_odpo,
    odpo,
    tdpo2,
)
from prefloop.testing.drawn import quantities

LOGPS = ("policy_chosen_logps", "policy_rejected_logps", "ref_chosen_logps", "ref_rejected_logps")
KL = ("policy_chosen_seq_kl", "policy_rejected_seq_kl")
SCORES = ("chosen_scores", "rejected_scores")
LENGTHS = ("chosen_lengths", "rejected_lengths")


def drawn() -> dict[str, Any]:
    objective = find_objective("length_regularized_token_odpo", "objective")
    return dict(quantities(objective, objective.options().model_dump()))


def same(found: Tensor, other: Tensor, values: dict[str, Any]) -> None:
    """Equal losses, and equal gradients of what both read."""
    torch.testing.assert_close(found, other, rtol=0, atol=1e-12)
    for name in LOGPS[:2]:
        grads = [torch.autograd.grad(loss.sum(), values[name], retain_graph=True)[0] for loss in (found, other)]
        torch.testing.assert_close(grads[0], grads[1], rtol=0, atol=1e-12)


def of(values: dict[str, Any], *names: str) -> list[Tensor]:
    return [values[name] for name in names]


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_without_two_of_its_parts_it_is_the_method_of_the_third(beta: float) -> None:
    values = drawn()

    def combined(alpha: float = 0.0, offset: float = 0.0, kl_weight: float = 0.0) -> Tensor:
        return length_regularized_token_odpo(**values, beta=beta, alpha=alpha, offset=offset, kl_weight=kl_weight)

    same(combined(), dpo(*of(values, *LOGPS), beta=beta), values)
    length = length_regularized_dpo(*of(values, *LOGPS, *LENGTHS), beta=beta, alpha=0.03)
    same(combined(alpha=0.03), length, values)
    same(combined(offset=0.7), odpo(*of(values, *LOGPS, *SCORES), beta=beta, alpha=0.7), values)
    same(combined(kl_weight=0.4), tdpo2(*of(values, *LOGPS, *KL), beta=beta, alpha=0.4), values)


def test_only_the_rejected_answers_divergence_is_learnt_from() -> None:
    values = drawn()
    losses = length_regularized_token_odpo(**values, beta=0.3, alpha=0.0, offset=0.0, kl_weight=0.4)
    of_chosen, of_rejected = torch.autograd.grad(losses.sum(), of(values, *KL), allow_unused=True)
    assert of_chosen is None or not bool(of_chosen.any())
    assert bool((of_rejected > 0).all())


def test_its_margin_is_the_sum_of_the_three() -> None:
    zero, one = torch.zeros(1).double(), torch.ones(1).double()
    numbers = (*[zero] * 4, one, 3 * one, 5 * one, one, 9 * one, 4 * one)
    values = dict(zip((*LOGPS, *KL, *SCORES, *LENGTHS), numbers, strict=True))
    loss = length_regularized_token_odpo(**values, beta=0.2, alpha=0.1, offset=0.5, kl_weight=0.5)
    margin = -0.2 * 0.5 * (3 - 1) + 0.1 * (9 - 4) - 0.5 * torch.log(4 * one)
    torch.testing.assert_close(loss, torch.nn.functional.softplus(-margin), rtol=0, atol=1e-15)

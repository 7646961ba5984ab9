"""Losses that compare distributions over a step's examples instead of the two answers of each pair."""

import math
from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from prefloop.objectives.pieces import smoothed_logistic
from prefloop.objectives.registry import Elsewhere, objective


@objective(
    source="arXiv:2406.05882 (paired)",
    aliases=("aot_paired", "aot_pair"),
    elsewhere=(
        Elsewhere(
            "TRL",
            "loss_type=aot",
            {"beta": "beta", "label_smoothing": "label_smoothing"},
            "since 1.0; before, `aot` meant aot_unpaired, and this was `aot_pair`. It sorts each micro-batch alone",
        ),
    ),
    at_reference=lambda _: math.log(2),
    couples_batch=True,
    swap="ranks are of the whole step: exchanging the answers of one pair moves the others (use label_smoothing)",
)
def aot(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.01,
    label_smoothing: Annotated[float, Field(ge=0, le=0.5)] = 0.0,
) -> Float[Tensor, " pairs"]:
    r"""Alignment by optimal transport: the policy's margins as a distribution stand above the reference's.

    The margins log pi(chosen) - log pi(rejected) of the optimiser step are sorted, under the policy and, by
    themselves, under the reference; with d(k) the difference of the two at rank k, in nats, and e the smoothing:

        loss(k) = -(1 - e) * log sigmoid(beta * d(k)) - e * log sigmoid(-beta * d(k))

    The loss of a rank is given to the pair whose margin under the policy has it.

    Limits: one pair, or margins in the same order under both models, give `dpo` (with e, conservative DPO).

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        beta: KL strength, > 0.
        label_smoothing: share of labels taken to be wrong, e.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> zero = torch.zeros(2)
        >>> aot(zero, zero, zero, zero)
        tensor([0.6931, 0.6931])
    """
    policy_margins, order = (policy_chosen_logps - policy_rejected_logps).sort(stable=True)
    ref_margins, _ = (ref_chosen_logps - ref_rejected_logps).sort(stable=True)
    by_rank = smoothed_logistic(beta * (policy_margins - ref_margins), label_smoothing)
    return by_rank[order.argsort()]


@objective(
    source="arXiv:2406.05882 (unpaired)",
    elsewhere=(
        Elsewhere(
            "TRL",
            "loss_type=aot_unpaired",
            {"beta": "beta", "label_smoothing": "label_smoothing"},
            "since 1.0; before, this was `aot`. It sorts each micro-batch alone",
        ),
    ),
    at_reference=lambda _: math.log(2),
    couples_batch=True,
    swap="ranks are of the whole step: exchanging the answers of one pair moves the others (use label_smoothing)",
)
def aot_unpaired(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.01,
    label_smoothing: Annotated[float, Field(ge=0, le=0.5)] = 0.0,
) -> Float[Tensor, " pairs"]:
    r"""Alignment by optimal transport: log-ratios of chosen answers as a distribution stand above rejected ones'.

    With rho(y) = log pi(y|x) - log pi_ref(y|x), in nats, those of chosen answers sorted, those of rejected ones
    sorted, d(k) the difference at rank k, and e the smoothing:

        loss(k) = -(1 - e) * log sigmoid(beta * d(k)) - e * log sigmoid(-beta * d(k))

    The loss of a rank is given to the pair whose chosen answer has it.

    Limits: one pair, or chosen and rejected answers in the same order, give `dpo` (with e, conservative DPO). Which
    rejected answer stands with which chosen one makes no difference.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        beta: KL strength, > 0.
        label_smoothing: share of labels taken to be wrong, e.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> zero = torch.zeros(2)
        >>> aot_unpaired(zero, zero, zero, zero)
        tensor([0.6931, 0.6931])
    """
    rho_chosen, order = (policy_chosen_logps - ref_chosen_logps).sort(stable=True)
    rho_rejected, _ = (policy_rejected_logps - ref_rejected_logps).sort(stable=True)
    by_rank = smoothed_logistic(beta * (rho_chosen - rho_rejected), label_smoothing)
    return by_rank[order.argsort()]

"""Efficient exact optimisation on pairs: the reverse KL to smoothed labels."""

import math
from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefloop.objectives.registry import Elsewhere, objective


@objective(
    source="arXiv:2402.00856 eq. 16",
    aliases=("exo",),
    elsewhere=(
        Elsewhere(
            "TRL",
            "loss_type=exo_pair",
            {"beta": "beta", "label_smoothing": "label_smoothing"},
            "a label_smoothing of 0, its default, is replaced by 1e-3",
        ),
    ),
    at_reference=lambda hyper: (
        -math.log(2) - (math.log(1 - hyper["label_smoothing"]) + math.log(hyper["label_smoothing"])) / 2
    ),
)
def exo_pair(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
    label_smoothing: Annotated[float, Field(gt=0, lt=1)] = 1e-3,
) -> Float[Tensor, " pairs"]:
    r"""Reverse KL divergence from the policy's own preference to the smoothed label.

    With rho(y) = log pi(y|x) - log pi_ref(y|x), m = beta * (rho(chosen) - rho(rejected)) and s = sigmoid:

        loss = s(m) * (log s(m) - log(1 - e)) + s(-m) * (log s(-m) - log e)

    It is zero, its minimum, at m = log((1 - e) / e).

    Limits: with the two distributions exchanged (forward KL) it is `conservative_dpo` less the entropy of the label.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        beta: KL strength, > 0.
        label_smoothing: e, the probability that a label is wrong; above 0, since log e stands in the formula.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> zero = torch.zeros(1)
        >>> exo_pair(zero, zero, zero, zero, label_smoothing=0.5)  # the label says nothing, the policy neither
        tensor([0.])
    """
    rho_chosen = policy_chosen_logps - ref_chosen_logps
    rho_rejected = policy_rejected_logps - ref_rejected_logps
    margin = beta * (rho_chosen - rho_rejected)
    for_chosen = margin.sigmoid() * (logsigmoid(margin) - math.log(1 - label_smoothing))
    for_rejected = (-margin).sigmoid() * (logsigmoid(-margin) - math.log(label_smoothing))
    return for_chosen + for_rejected

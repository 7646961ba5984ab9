"""The loss that a language model proposed: a log-ratio modulated mixture."""

import math
from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefloop.objectives.registry import Elsewhere, objective


@objective(
    source="arXiv:2406.08414, log-ratio modulated loss",
    aliases=("lrml",),
    elsewhere=(
        Elsewhere(
            "TRL", "loss_type=discopop", {"beta": "beta", "tau": "discopop_tau"}, "NaN at margins of -100 in float32"
        ),
    ),
    at_reference=lambda _: (math.log(2) + 1) / 2,
)
def discopop(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.05,
    tau: Annotated[float, Field(gt=0)] = 0.05,
) -> Float[Tensor, " pairs"]:
    r"""Mixture of the logistic and the exponential loss, weighted by the margin itself.

    With rho(y) = log pi(y|x) - log pi_ref(y|x), m = beta * (rho(chosen) - rho(rejected)) and k = sigmoid(m / tau):

        loss = -log sigmoid(m) * (1 - k) + exp(-m) * k

    Limits: far below 0 it is `dpo`, far above the exponential loss. At tau 0.05 it starts on the wrong side of a bump:
    its slope at m = 0 is +0.7843, a minimum lies at m = -0.1186 and a maximum at m = +0.0720, so that plain gradient
    descent first lowers the margin. For tau > 1 it grows exponentially where the margin is negative.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        beta: KL strength, > 0.
        tau: width of the change from one loss to the other, > 0, in units of reward.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> zero = torch.zeros(1)
        >>> discopop(zero, zero, zero, zero)  # (log 2 + 1) / 2
        tensor([0.8466])
    """
    rho_chosen = policy_chosen_logps - ref_chosen_logps
    rho_rejected = policy_rejected_logps - ref_rejected_logps
    margin = beta * (rho_chosen - rho_rejected)
    logistic = -logsigmoid(margin) * (-margin / tau).sigmoid()
    exponential = (logsigmoid(margin / tau) - margin).exp()
    return logistic + exponential

"""Direct preference optimisation."""

import math
from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefloop.objectives.registry import Elsewhere, objective


@objective(
    source="arXiv:2305.18290 eq. 7",
    aliases=("sigmoid",),
    elsewhere=(
        Elsewhere("TRL", "loss_type=sigmoid", {"beta": "beta"}, "label_smoothing has no effect there"),
        Elsewhere("HALOs", "loss=dpo", {"beta": "beta"}),
        Elsewhere("OpenRLHF", "train_dpo", {"beta": "beta"}),
        Elsewhere("LLaMA-Factory", "pref_loss=sigmoid", {"beta": "pref_beta"}),
    ),
    at_reference=lambda _: math.log(2),
)
def dpo(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
) -> Float[Tensor, " pairs"]:
    r"""Negative log-likelihood of the preferences under the implicit reward.

    With rho(y) = log pi(y|x) - log pi_ref(y|x), in nats:

        loss = -log sigmoid(beta * (rho(chosen) - rho(rejected)))

    Limits: gradients vanish where a pair is satisfied; only the difference of the two log-ratios is learnt, so that
    both may fall together.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        beta: KL strength, > 0. Large beta keeps the policy near the reference.

    Returns:
        Loss of each pair, in nats. Not reduced: training owns the mean.

    Example:
        >>> import torch
        >>> zero = torch.zeros(1)
        >>> dpo(zero, zero, zero, zero)  # no preference learnt yet: log 2
        tensor([0.6931])
    """
    rho_chosen = policy_chosen_logps - ref_chosen_logps
    rho_rejected = policy_rejected_logps - ref_rejected_logps
    return -logsigmoid(beta * (rho_chosen - rho_rejected))

"""DavIR-DPO: log-ratios as shares of what the reference needs for the answer."""

import math
from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefloop.objectives.registry import objective


@objective(source="arXiv:2310.13008 (DavIR-DPO)", aliases=("davir",), at_reference=lambda _: math.log(2))
def davir_dpo(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 10.0,
    min_ref_nll: Annotated[float, Field(gt=0)] = 1e-3,
) -> Float[Tensor, " pairs"]:
    r"""DPO on the relative change of each answer's log-probability, which takes most of length out of the margin.

    With rho(y) = log pi(y|x) - log pi_ref(y|x), in nats:

        loss = -log sigmoid(beta * (rho(chosen) / |log pi_ref(chosen)| - rho(rejected) / |log pi_ref(rejected)|))

    Limits: where both denominators are c, it is `dpo` with beta / c. Doubling every log-probability, as repeating both
    answers would, changes nothing.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        beta: inverse temperature on relative log-ratios, > 0.
        min_ref_nll: least denominator, in nats, for answers that the reference is sure of.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> nats = torch.tensor([-10.0])
        >>> davir_dpo(nats, nats, nats, nats)
        tensor([0.6931])
    """
    relative_chosen = (policy_chosen_logps - ref_chosen_logps) / ref_chosen_logps.abs().clamp(min=min_ref_nll)
    relative_rejected = (policy_rejected_logps - ref_rejected_logps) / ref_rejected_logps.abs().clamp(min=min_ref_nll)
    return -logsigmoid(beta * (relative_chosen - relative_rejected))

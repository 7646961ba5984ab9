"""DPO-Positive: DPO that does not let the chosen answer fall below its reference."""

import math
from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from prefloop.objectives.registry import Elsewhere, objective


@objective(
    source="arXiv:2402.13228 eq. 3 (v2)",
    elsewhere=(
        Elsewhere("oat", "dap_algo=DPO dpo_positive_lambda=...", {"beta": "beta", "lam": "dpo_positive_lambda"}),
    ),
    at_reference=lambda _: math.log(2),
)
def dpop(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.3,
    lam: Annotated[float, Field(ge=0)] = 50.0,
) -> Float[Tensor, " pairs"]:
    r"""DPO with a penalty in its margin for every nat by which the chosen answer is less likely than at the reference.

    With rho(y) = log pi(y|x) - log pi_ref(y|x), in nats:

        penalty = max(0, -rho(chosen))
        loss = -log sigmoid(beta * (rho(chosen) - rho(rejected) - lambda * penalty))

    The penalty's derivative at 0 is 0, so that the first step from the reference is DPO's.

    Limits: lambda = 0, or rho(chosen) >= 0, give `dpo`. Below the reference the chosen answer is pulled up 1 + lambda
    times as hard as the rejected one is pushed down, without a bound: clip gradients.
    `dpop_outside_beta` at beta * lambda is the same loss.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        beta: KL strength, > 0.
        lam: lambda, weight of the penalty inside beta, >= 0; its authors see little change within 5 to 500.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> zero = torch.zeros(1)
        >>> dpop(zero - 1, zero - 9, zero, zero, beta=0.1, lam=5.0)  # dpo, blind to the fall of both: 0.3711
        tensor([0.5544])
    """
    rho_chosen = policy_chosen_logps - ref_chosen_logps
    rho_rejected = policy_rejected_logps - ref_rejected_logps
    penalty = relu(-rho_chosen)
    return -logsigmoid(beta * (rho_chosen - rho_rejected - lam * penalty))


@objective(
    source="arXiv:2402.13228 (an earlier form)",
    at_reference=lambda _: math.log(2),
)
def dpop_outside_beta(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.3,
    lam: Annotated[float, Field(ge=0)] = 15.0,
) -> Float[Tensor, " pairs"]:
    r"""DPOP with the penalty's weight outside beta, as in the paper's earlier form.

    With rho(y) = log pi(y|x) - log pi_ref(y|x), in nats:

        penalty = max(0, -rho(chosen))
        loss = -log sigmoid(beta * (rho(chosen) - rho(rejected)) - lambda * penalty)

    The penalty's derivative at 0 is 0, so that the first step from the reference is DPO's.

    Limits: lambda = 0, or rho(chosen) >= 0, give `dpo`; it is `dpop` at lambda / beta.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        beta: KL strength, > 0.
        lam: lambda, weight of the penalty, >= 0; not multiplied by beta.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> zero = torch.zeros(1)
        >>> dpop_outside_beta(zero - 1, zero - 9, zero, zero, beta=0.1, lam=0.5)
        tensor([0.5544])
    """
    rho_chosen = policy_chosen_logps - ref_chosen_logps
    rho_rejected = policy_rejected_logps - ref_rejected_logps
    penalty = relu(-rho_chosen)
    return -logsigmoid(beta * (rho_chosen - rho_rejected) - lam * penalty)

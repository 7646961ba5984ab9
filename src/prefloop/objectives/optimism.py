"""DPO with a bonus for what has not been tried: SELM and XPO."""

import math
from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefloop.objectives.registry import Elsewhere, objective


@objective(
    source="arXiv:2405.19332 eq. 6",
    elsewhere=(Elsewhere("shenao-zhang/SELM", "SELMTrainer", {"beta": "beta", "alpha": "alpha"}),),
    at_reference=lambda _: math.log(2),
)
def selm(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    policy_response_logps: Float[Tensor, " pairs"],
    ref_response_logps: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.01,
    alpha: Annotated[float, Field(ge=0)] = 0.001,
) -> Float[Tensor, " pairs"]:
    r"""DPO that moves away from the model's own present answer, in favour of what it would not have said.

    With rho(y) = log pi(y|x) - log pi_ref(y|x), in nats, and y_t the round start's own greedy answer:

        loss = -log sigmoid(beta * (rho(chosen) - rho(rejected))) + alpha * beta * rho(y_t)

    Among the rewards that fit the pairs alike it prefers the one whose best answer is worth most.

    Limits: alpha = 0 gives `dpo`. The bonus never saturates: on answers that no pair touches the loss has no lower
    bound, so that rho(y_t) has to be watched and training kept short.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        policy_response_logps: log pi(y_t | prompt), summed over tokens; gradient flows.
        ref_response_logps: the same under the frozen reference; no gradient.
        beta: KL strength, > 0.
        alpha: optimism, >= 0; minimising lowers the log-probability of y_t.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> zero = torch.zeros(1)
        >>> selm(zero, zero, zero, zero, zero - 10, zero, beta=0.1, alpha=0.01)  # it gains by not saying y_t
        tensor([0.6831])
    """
    rho_chosen = policy_chosen_logps - ref_chosen_logps
    rho_rejected = policy_rejected_logps - ref_rejected_logps
    rho_response = policy_response_logps - ref_response_logps
    return -logsigmoid(beta * (rho_chosen - rho_rejected)) + alpha * beta * rho_response


@objective(
    source="arXiv:2405.21046 algorithm 1",
    elsewhere=(
        Elsewhere(
            "TRL",
            "experimental.xpo",
            {"beta": "beta", "alpha": "alpha"},
            "the reference's sample is one of the two answers of the pair there",
        ),
    ),
)
def xpo(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    policy_response_logps: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
    alpha: Annotated[float, Field(ge=0)] = 1e-5,
) -> Float[Tensor, " pairs"]:
    r"""DPO that moves away from what the reference would say.

    With rho(y) = log pi(y|x) - log pi_ref(y|x), in nats, and y' a sample of the reference, in the algorithm one of the
    two answers of the pair:

        loss = -log sigmoid(beta * (rho(chosen) - rho(rejected))) + alpha * log pi(y'|x)

    Limits: alpha = 0 gives `dpo`. At the reference the bonus has no gradient in expectation. Unlike in `selm` it is not
    multiplied by beta.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        policy_response_logps: log pi(y' | prompt), summed over tokens; gradient flows.
        beta: KL strength, > 0.
        alpha: optimism, >= 0; minimising lowers the log-probability of y'.

    Returns:
        Loss of each pair, in nats; negative values are possible.

    Example:
        >>> import torch
        >>> zero = torch.zeros(1)
        >>> xpo(zero, zero, zero, zero, zero - 10, alpha=0.01)
        tensor([0.5931])
    """
    rho_chosen = policy_chosen_logps - ref_chosen_logps
    rho_rejected = policy_rejected_logps - ref_rejected_logps
    return -logsigmoid(beta * (rho_chosen - rho_rejected)) + alpha * policy_response_logps

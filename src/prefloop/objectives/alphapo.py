"""AlphaPO: the shape of the reward as a hyper-parameter."""

from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefloop.objectives.registry import Elsewhere, objective


def power_reward(average_logps: Float[Tensor, " pairs"], alpha: float) -> Float[Tensor, " pairs"]:
    """(1 - p^-alpha) / alpha of p = exp(average_logps); log p where alpha is 0."""
    return -torch.expm1(-alpha * average_logps) / alpha if alpha else average_logps


@objective(
    source="arXiv:2501.03884",
    elsewhere=(
        Elsewhere(
            "TRL",
            "CPOTrainer with loss_type=alphapo",
            {"beta": "beta", "gamma": "simpo_gamma", "alpha": "alpha"},
            "with cpo_alpha = 0",
        ),
    ),
    exponential="the reward is a power of the probability: with alpha 0.25, 400 nats a token overflow float32",
)
def alphapo(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    chosen_lengths: Float[Tensor, " pairs"],
    rejected_lengths: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 2.5,
    gamma: Annotated[float, Field(ge=0)] = 0.1,
    alpha: float = 0.25,
) -> Float[Tensor, " pairs"]:
    r"""SimPO with a reward that is a power of the mean token's probability instead of its logarithm.

    With a(y) = log pi(y|x) / |y|, in nats a token, and R(y) = (1 - exp(-alpha * a(y))) / alpha:

        loss = -log sigmoid(beta * (R(chosen) - R(rejected)) - gamma)

    Limits: alpha -> 0 is `simpo`, and is computed as such at 0. Positive alpha makes unlikely answers weigh more.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        chosen_lengths: tokens of the chosen answer, EOS included.
        rejected_lengths: tokens of the rejected answer, EOS included.
        beta: inverse temperature of the reward, > 0.
        gamma: margin that is asked for, in units of beta * R.
        alpha: power; 0 is the logarithm.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> nats, tokens = torch.tensor([-10.0]), torch.tensor([20.0])
        >>> alphapo(nats, nats, tokens, tokens, gamma=0.0)
        tensor([0.6931])
    """
    reward_chosen = power_reward(policy_chosen_logps / chosen_lengths, alpha)
    reward_rejected = power_reward(policy_rejected_logps / rejected_lengths, alpha)
    return -logsigmoid(beta * (reward_chosen - reward_rejected) - gamma)

"""REBEL: the difference of two answers' rewards, regressed on by the difference of their log-ratios."""

from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from prefloop.objectives.registry import Elsewhere, objective


@objective(
    source="arXiv:2404.16767",
    elsewhere=(Elsewhere("ZhaolinGao/REBEL", "rebel.py", {"eta": "rebel.eta"}, "its loss is eta^2 times this one"),),
)
def rebel(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    chosen_scores: Float[Tensor, " pairs"],
    rejected_scores: Float[Tensor, " pairs"],
    *,
    eta: Annotated[float, Field(gt=0)] = 1.0,
) -> Float[Tensor, " pairs"]:
    r"""Regression of the relative reward of two answers on their relative log-ratio to the policy that sampled them.

    With rho(y) = log pi(y|x) - log pi_ref(y|x), in nats, and scores s(y):

        loss = ((rho(chosen) - rho(rejected)) / eta - (s(chosen) - s(rejected)))^2

    The reference is the policy that sampled the answers (`references: {ref: round_start}`). The formula was checked
    against the authors' released code (ZhaolinGao/REBEL, `src/ultrafeedback/rebel.py`), which has the same minimum at
    rho(chosen) - rho(rejected) = eta * (s(chosen) - s(rejected)) and eta^2 times this loss; the paper's text was not
    read.

    Limits: exchanging the two answers changes nothing. Where all gaps of scores are 1/2, the minimum is that of the
    summed IPO with beta = 1/eta.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        chosen_scores: reward of the chosen answer.
        rejected_scores: reward of the rejected answer.
        eta: step size, > 0: nats of log-ratio for a reward of 1.

    Returns:
        Loss of each pair, in squared reward.

    Example:
        >>> import torch
        >>> zero, good, bad = torch.zeros(1), torch.tensor([3.0]), torch.tensor([1.0])
        >>> rebel(zero, zero, zero, zero, good, bad)
        tensor([4.])
    """
    rho_chosen = policy_chosen_logps - ref_chosen_logps
    rho_rejected = policy_rejected_logps - ref_rejected_logps
    return ((rho_chosen - rho_rejected) / eta - (chosen_scores - rejected_scores)) ** 2

"""Semi-online preference optimisation: given good answers against own bad ones, where they are bad."""

from typing import Annotated

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefloop.objectives.registry import objective

NOT_SWAPPED = "only a rejected answer that scores below tau is used, and only the chosen one is weighed by similarity"


def used_rejected(rejected_scores: Float[Tensor, " pairs"], *, tau: float) -> Bool[Tensor, " pairs"]:
    """Which rejected answers are bad enough to learn from: a score of tau itself is not."""
    return rejected_scores < tau


@objective(source="arXiv:2412.05095 eq. 14", swap=NOT_SWAPPED)
def sopo(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    rejected_scores: Float[Tensor, " pairs"],
    similarity: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
    weight_constant: Annotated[float, Field(ge=1)] = 2.0,
    tau: float = 0.45,
) -> Float[Tensor, " pairs"]:
    r"""DPO against the worst of K own samples where that is really bad, and the good answer alone elsewhere.

    With rho(y) = log pi(y|x) - log pi_ref(y|x), in nats, S the lowest similarity of the chosen answer with the K
    samples, C the weight constant and r the reward:

        loss = -log sigmoid(beta * (C - S) * rho(chosen) - beta * rho(rejected))    where r(rejected) < tau
        loss = -log sigmoid(beta * (C - S) * rho(chosen))                           elsewhere

    Limits: tau above all scores, C = 1 and S = 0 give `dpo`; tau below all scores never reads the rejected answers.
    S = C gives the chosen answer no weight. Where rho(rejected) <= 0 the loss on the chosen answer alone is an upper
    bound of that on the pair.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        rejected_scores: r(rejected), in the reward's own unit.
        similarity: S, from -1 to 1; 0 where nothing is measured.
        beta: KL strength, > 0; the paper has 1, for a bound of diffusion models, 0.1 suits sums over tokens.
        weight_constant: C, >= 1; 1 with S = 0 switches the weights off.
        tau: threshold on the reward; the paper's 0.45 is of its own reward. A quantile of your reward is a start.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> zero = torch.zeros(1)
        >>> sopo(zero, zero + 9, zero, zero, zero + 1, zero)  # a good sample is not pushed down: log 2
        tensor([0.6931])
    """
    rho_chosen = policy_chosen_logps - ref_chosen_logps
    rho_rejected = policy_rejected_logps - ref_rejected_logps
    chosen_beta = beta * (weight_constant - similarity)
    rejected_part = torch.where(used_rejected(rejected_scores, tau=tau), beta * rho_rejected, 0.0)
    return -logsigmoid(chosen_beta * rho_chosen - rejected_part)


@objective(source="arXiv:2412.05095 algorithm 1", swap=NOT_SWAPPED)
def sopo_joint(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    rejected_scores: Float[Tensor, " pairs"],
    similarity: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
    weight_constant: Annotated[float, Field(ge=1)] = 2.0,
    tau: float = 0.45,
) -> Float[Tensor, " pairs"]:
    r"""SoPo as the paper's algorithm box prints it, with the weight on both answers.

    With the letters of `sopo`:

        loss = -log sigmoid(beta * (C - S) * (rho(chosen) - beta * rho(rejected)))    where r(rejected) < tau
        loss = -log sigmoid(beta * (C - S) * rho(chosen))                             elsewhere

    Limits: it is `sopo` where beta = 1 and C - S = 1, and where no rejected answer is used.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        rejected_scores: r(rejected), in the reward's own unit.
        similarity: S, from -1 to 1; 0 where nothing is measured.
        beta: KL strength, > 0; it multiplies the rejected answer twice.
        weight_constant: C, >= 1.
        tau: threshold on the reward.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> zero = torch.zeros(1)
        >>> sopo_joint(zero, zero, zero, zero, zero, zero)
        tensor([0.6931])
    """
    rho_chosen = policy_chosen_logps - ref_chosen_logps
    rho_rejected = policy_rejected_logps - ref_rejected_logps
    chosen_beta = beta * (weight_constant - similarity)
    rejected_part = torch.where(used_rejected(rejected_scores, tau=tau), beta * rho_rejected, 0.0)
    return -logsigmoid(chosen_beta * (rho_chosen - rejected_part))

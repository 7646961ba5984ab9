"""Reward models: a scalar head that learns comparisons and rankings."""

import math
from typing import Annotated

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefloop.objectives.pieces import plackett_luce
from prefloop.objectives.registry import Elsewhere, objective


@objective(
    source="arXiv:2203.02155 eq. 1; the centring of arXiv:2312.09244",
    elsewhere=(
        Elsewhere(
            "TRL", "RewardTrainer", {"center_coef": "center_rewards_coefficient"}, "without is 0; 0.01 is advised"
        ),
        Elsewhere("OpenRLHF", "train_rm", {}, "without centring"),
        Elsewhere("LLaMA-Factory", "stage=rm", {}, "without centring"),
    ),
)
def bradley_terry(
    policy_chosen_rewards: Float[Tensor, " pairs"],
    policy_rejected_rewards: Float[Tensor, " pairs"],
    *,
    center_coef: Annotated[float, Field(ge=0)] = 0.01,
) -> Float[Tensor, " pairs"]:
    r"""Negative log-likelihood of the comparisons under a reward, and a small cost for rewards away from zero.

    With r(y) the output of the reward head:

        loss = -log sigmoid(r(chosen) - r(rejected)) + c * (r(chosen) + r(rejected))^2

    Limits: c = 0 leaves the mean of the rewards of a prompt open; equal rewards of 0 give log 2. It is
    `bradley_terry_margin` without a margin, and on two answers `ranked_rewards`.

    Args:
        policy_chosen_rewards: r(chosen); gradient flows.
        policy_rejected_rewards: r(rejected); gradient flows.
        center_coef: c, >= 0.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> bradley_terry(torch.tensor([1.0]), torch.tensor([-1.0]))
        tensor([0.1269])
    """
    centring = center_coef * (policy_chosen_rewards + policy_rejected_rewards) ** 2
    return -logsigmoid(policy_chosen_rewards - policy_rejected_rewards) + centring


@objective(
    source="arXiv:2307.09288 eq. 2; the centring of arXiv:2312.09244",
    elsewhere=(
        Elsewhere("TRL", "RewardTrainer with a column margin", {"center_coef": "center_rewards_coefficient"}),
        Elsewhere("OpenRLHF", "train_rm with a column margin", {}, "without centring"),
    ),
    swap="the margin is that of the order as labelled",
)
def bradley_terry_margin(
    policy_chosen_rewards: Float[Tensor, " pairs"],
    policy_rejected_rewards: Float[Tensor, " pairs"],
    margin: Float[Tensor, " pairs"],
    *,
    center_coef: Annotated[float, Field(ge=0)] = 0.01,
) -> Float[Tensor, " pairs"]:
    r"""Bradley-Terry where a clear preference has to be a large difference.

    With r(y) the output of the reward head and m the margin:

        loss = -log sigmoid(r(chosen) - r(rejected) - m) + c * (r(chosen) + r(rejected))^2

    Limits: m = 0 gives `bradley_terry`.

    Args:
        policy_chosen_rewards: r(chosen); gradient flows.
        policy_rejected_rewards: r(rejected); gradient flows.
        margin: m, in the unit of the reward, such as a step of a rating.
        center_coef: c, >= 0.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> bradley_terry_margin(torch.tensor([1.0]), torch.tensor([-1.0]), torch.tensor([2.0]))  # just there: log 2
        tensor([0.6931])
    """
    centring = center_coef * (policy_chosen_rewards + policy_rejected_rewards) ** 2
    return -logsigmoid(policy_chosen_rewards - policy_rejected_rewards - margin) + centring


@objective(source="arXiv:2306.02561 section 3.2, with one output", at_reference=lambda _: math.log(2))
def pair_ranker(
    policy_chosen_rewards: Float[Tensor, " pairs"],
    policy_rejected_rewards: Float[Tensor, " pairs"],
) -> Float[Tensor, " pairs"]:
    r"""Binary cross-entropy of a pairwise model on both orders of two answers (PairRM).

    Chosen and rejected are one text each, made of both answers by rule `side_by_side`: the better answer shown first,
    and shown second. With s the output of the head, the logit that what is shown first is better:

        loss = -(log sigmoid(s(chosen)) + log sigmoid(-s(rejected))) / 2

    Limits: s = 0 gives log 2. Unlike under `bradley_terry` a constant on both costs something: each order by itself is
    a probability.

    Args:
        policy_chosen_rewards: s with the better answer first; gradient flows.
        policy_rejected_rewards: s with the better answer second; gradient flows.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> pair_ranker(torch.tensor([1.0]), torch.tensor([-1.0]))
        tensor([0.3133])
    """
    return -(logsigmoid(policy_chosen_rewards) + logsigmoid(-policy_rejected_rewards)) / 2


@objective(source="arXiv:2305.18290 eq. 18, of rewards")
def ranked_rewards(
    policy_ranked_rewards: Float[Tensor, "pairs ranks"],
    ranked_mask: Bool[Tensor, "pairs ranks"],
) -> Float[Tensor, " pairs"]:
    r"""Negative log-likelihood of a whole ranking, best first, under a reward (Plackett-Luce).

    With r_1 (best) to r_K the outputs of the reward head:

        loss = sum_{k<K} (logsumexp_{j>=k} r_j - r_k)

    Limits: K = 2 gives `bradley_terry` without centring; equal rewards give log K!. Only differences of rewards enter.

    Args:
        policy_ranked_rewards: r_k, best first; gradient flows.
        ranked_mask: which ranks an example has; the others stand behind them.

    Returns:
        Loss of each ranking, in nats.

    Example:
        >>> import torch
        >>> ranked_rewards(torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool))  # log 3!
        tensor([1.7918])
    """
    return plackett_luce(policy_ranked_rewards, ranked_mask)


@objective(source="arXiv:2203.02155 eq. 1", at_reference=lambda _: math.log(2))
def ranked_rewards_by_pairs(
    policy_ranked_rewards: Float[Tensor, "pairs ranks"],
    ranked_mask: Bool[Tensor, "pairs ranks"],
) -> Float[Tensor, " pairs"]:
    r"""Bradley-Terry over all pairs of a ranking, averaged, so that a long ranking counts once (InstructGPT).

    With r_1 (best) to r_K the outputs of the reward head:

        loss = 2 / (K * (K - 1)) * sum_{j<k} -log sigmoid(r_j - r_k)

    Limits: K = 2 gives `bradley_terry` without centring; equal rewards give log 2. Only differences of rewards enter.

    Args:
        policy_ranked_rewards: r_k, best first; gradient flows.
        ranked_mask: which ranks an example has, two at least; the others stand behind them.

    Returns:
        Loss of each ranking, in nats.

    Example:
        >>> import torch
        >>> ranked_rewards_by_pairs(torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool))
        tensor([0.6931])
    """
    ranks = policy_ranked_rewards.shape[1]
    better, worse = torch.triu_indices(ranks, ranks, 1, device=ranked_mask.device).unbind()
    losses = -logsigmoid(policy_ranked_rewards[:, better] - policy_ranked_rewards[:, worse])
    compared = ranked_mask[:, better] & ranked_mask[:, worse]
    return losses.masked_fill(~compared, 0.0).sum(1) / compared.sum(1)

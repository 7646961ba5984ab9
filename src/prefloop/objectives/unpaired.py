"""Losses of single answers that are known to be good or bad: no pairs are needed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefloop.objectives.registry import Elsewhere, objective


def kto_reference_point(
    policy_kl_logps: Float[Tensor, " pairs"], ref_kl_logps: Float[Tensor, " pairs"]
) -> Float[Tensor, ""]:
    """Estimate of KL(policy || reference) by answers to other prompts, at least 0, without gradient."""
    return (policy_kl_logps - ref_kl_logps).mean().clamp(min=0).detach()


@objective(
    source="arXiv:2402.01306 eq. 8",
    elsewhere=(
        Elsewhere(
            "TRL",
            "KTOTrainer",
            {"beta": "beta", "desirable_weight": "desirable_weight", "undesirable_weight": "undesirable_weight"},
            "mismatched answers are rotated inside the micro-batch, which needs more than one example",
        ),
        Elsewhere(
            "HALOs",
            "loss=kto",
            {"beta": "beta", "desirable_weight": "desirable_weight", "undesirable_weight": "undesirable_weight"},
        ),
        Elsewhere(
            "OpenRLHF",
            "train_kto",
            {
                "beta": "beta",
                "desirable_weight": "desirable_loss_weight",
                "undesirable_weight": "undesirable_loss_weight",
            },
        ),
        Elsewhere(
            "LLaMA-Factory",
            "stage=kto",
            {"beta": "pref_beta", "desirable_weight": "kto_chosen_weight", "undesirable_weight": "kto_rejected_weight"},
        ),
    ),
    couples_batch=True,
)
def kto(
    policy_response_logps: Float[Tensor, " pairs"],
    ref_response_logps: Float[Tensor, " pairs"],
    response_labels: Bool[Tensor, " pairs"],
    policy_kl_logps: Float[Tensor, " pairs"],
    ref_kl_logps: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
    desirable_weight: Annotated[float, Field(ge=0)] = 1.0,
    undesirable_weight: Annotated[float, Field(ge=0)] = 1.0,
) -> Float[Tensor, " pairs"]:
    r"""Kahneman-Tversky optimisation: how far good answers stand above, and bad ones below, a reference point.

    With rho(y) = log pi(y|x) - log pi_ref(y|x), in nats, s = sigmoid, and z the mean log-ratio of the optimiser
    step's answers to other prompts, at least 0 and without gradient:

        loss = desirable_weight   * (1 - s(beta * (rho - z)))        of a good answer
        loss = undesirable_weight * (1 - s(beta * (z - rho)))        of a bad answer

    Limits: with z = 0 it is `apo_zero_unpaired`. At the reference every loss is half its weight. Gradients fade for
    answers that are far off on either side. desirable_weight * good / (undesirable_weight * bad), with the numbers of
    good and bad answers, is best in [1, 4/3].

    Args:
        policy_response_logps: log pi(response | prompt), summed over tokens; gradient flows.
        ref_response_logps: the same under the frozen reference; no gradient.
        response_labels: whether the response is a good one.
        policy_kl_logps: log pi(an answer to another prompt | prompt); no gradient.
        ref_kl_logps: the same under the frozen reference; no gradient.
        beta: KL strength, > 0.
        desirable_weight: of good answers.
        undesirable_weight: of bad answers.

    Returns:
        Loss of each answer, in [0, weight].

    Example:
        >>> import torch
        >>> zero, good = torch.zeros(2), torch.tensor([True, False])
        >>> kto(zero, zero, good, zero, zero)
        tensor([0.5000, 0.5000])
    """
    rho = policy_response_logps - ref_response_logps
    z = kto_reference_point(policy_kl_logps, ref_kl_logps)
    desirable = desirable_weight * torch.sigmoid(-beta * (rho - z))
    undesirable = undesirable_weight * torch.sigmoid(-beta * (z - rho))
    return torch.where(response_labels, desirable, undesirable)


@objective(
    source="arXiv:2408.06266 (APO-zero on single answers)",
    elsewhere=(
        Elsewhere(
            "TRL",
            "KTOTrainer with loss_type=apo_zero_unpaired",
            {"beta": "beta", "desirable_weight": "desirable_weight", "undesirable_weight": "undesirable_weight"},
        ),
    ),
)
def apo_zero_unpaired(
    policy_response_logps: Float[Tensor, " pairs"],
    ref_response_logps: Float[Tensor, " pairs"],
    response_labels: Bool[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
    desirable_weight: Annotated[float, Field(ge=0)] = 1.0,
    undesirable_weight: Annotated[float, Field(ge=0)] = 1.0,
) -> Float[Tensor, " pairs"]:
    r"""Anchored preference optimisation of single answers: good ones rise above the reference, bad ones fall below.

    With r = beta * (log pi(y|x) - log pi_ref(y|x)), in nats, and s = sigmoid:

        loss = desirable_weight   * s(-r)        of a good answer
        loss = undesirable_weight * s(r)         of a bad answer

    Limits: summed over the two answers of a pair, with weights of 1, it is `apo_zero`. It is `kto` with a reference
    point of 0, and needs no answers to other prompts.

    Args:
        policy_response_logps: log pi(response | prompt), summed over tokens; gradient flows.
        ref_response_logps: the same under the frozen reference; no gradient.
        response_labels: whether the response is a good one.
        beta: KL strength, > 0.
        desirable_weight: of good answers.
        undesirable_weight: of bad answers.

    Returns:
        Loss of each answer, in [0, weight].

    Example:
        >>> import torch
        >>> zero, good = torch.zeros(2), torch.tensor([True, False])
        >>> apo_zero_unpaired(zero, zero, good)
        tensor([0.5000, 0.5000])
    """
    reward = beta * (policy_response_logps - ref_response_logps)
    desirable = desirable_weight * torch.sigmoid(-reward)
    undesirable = undesirable_weight * torch.sigmoid(reward)
    return torch.where(response_labels, desirable, undesirable)


@dataclass(frozen=True)
class RewardMean:
    """Mean of all rewards so far, each answer counted once."""

    mean: float
    count: float

    @classmethod
    def initial(cls, hyper: Mapping[str, Any]) -> "RewardMean":
        """Nothing seen, and a mean of 0."""
        del hyper
        return cls(mean=0.0, count=0.0)

    def updated(
        self,
        *,
        policy_response_logps: Float[Tensor, " pairs"],
        ref_response_logps: Float[Tensor, " pairs"],
        beta: float,
    ) -> "RewardMean":
        """With the rewards of an optimiser step among those seen."""
        rewards = beta * (policy_response_logps - ref_response_logps)
        count = self.count + len(rewards)
        return RewardMean(mean=(self.mean * self.count + rewards.sum().item()) / count, count=count)


@objective(
    source="arXiv:2404.04656",
    elsewhere=(
        Elsewhere(
            "TRL",
            "BCOTrainer",
            {"beta": "beta"},
            "in experimental up to 1.10; weights of bad answers by min_density_ratio",
        ),
    ),
    at_reference=lambda _: math.log(2),
    couples_batch=True,
    state=RewardMean,
)
def bco(
    policy_response_logps: Float[Tensor, " pairs"],
    ref_response_logps: Float[Tensor, " pairs"],
    response_labels: Bool[Tensor, " pairs"],
    state: RewardMean,
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
) -> Float[Tensor, " pairs"]:
    r"""Binary classification of single answers by how far their reward stands from the mean of all rewards so far.

    With r = beta * (log pi(y|x) - log pi_ref(y|x)), in nats, and d the running mean of all rewards, those of this
    optimiser step included, without gradient:

        loss = -log sigmoid(r - d)           of a good answer
        loss = -log sigmoid(-(r - d))        of a bad answer

    Limits: with d = 0, summed over the two answers of a pair, it is `bco_pair`. Weights of bad answers,
    p / (1 - p) of a classifier of prompts within [0.5, 10], are the examples' weights.

    Args:
        policy_response_logps: log pi(response | prompt), summed over tokens; gradient flows.
        ref_response_logps: the same under the frozen reference; no gradient.
        response_labels: whether the response is a good one.
        state: the running mean; it is updated before it is subtracted.
        beta: KL strength, > 0.

    Returns:
        Loss of each answer, in nats.

    Example:
        >>> import torch
        >>> from prefloop.objectives import RewardMean
        >>> zero, good = torch.zeros(2), torch.tensor([True, False])
        >>> bco(zero, zero, good, RewardMean.initial({}))
        tensor([0.6931, 0.6931])
    """
    reward = beta * (policy_response_logps - ref_response_logps)
    above_mean = reward - state.mean
    return -logsigmoid(torch.where(response_labels, above_mean, -above_mean))

"""DPO that adapts to the step it is in: to running moments of the gaps between chosen and rejected answers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefloop.objectives.pieces import smoothed_logistic
from prefloop.objectives.registry import Elsewhere, objective

SMALLEST_STD = 1e-6
"""Gaps are all 0 where a round starts; their deviation is then taken to be this."""


def _moved(mean: float, std: float, gaps: Float[Tensor, " pairs"], ema: float) -> tuple[float, float]:
    """Moments moved towards those of a step (the unbiased deviation); one gap alone has no deviation."""
    step_std = gaps.std().item() if len(gaps) > 1 else std
    return ema * mean + (1 - ema) * gaps.mean().item(), ema * std + (1 - ema) * step_std


def averaged_gap(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    chosen_lengths: Float[Tensor, " pairs"],
    rejected_lengths: Float[Tensor, " pairs"],
) -> Float[Tensor, " pairs"]:
    """The margin of length-normalised DPO, in nats a token; without gradient."""
    policy = policy_chosen_logps / chosen_lengths - policy_rejected_logps / rejected_lengths
    ref = ref_chosen_logps / chosen_lengths - ref_rejected_logps / rejected_lengths
    return (policy - ref).detach()


@dataclass(frozen=True)
class AveragedGapMoments:
    """Moving mean and deviation of the steps' length-averaged gaps."""

    mean: float
    std: float

    @classmethod
    def initial(cls, hyper: Mapping[str, Any]) -> "AveragedGapMoments":
        """Both start from 0."""
        del hyper
        return cls(mean=0.0, std=0.0)

    def updated(
        self,
        *,
        policy_chosen_logps: Float[Tensor, " pairs"],
        policy_rejected_logps: Float[Tensor, " pairs"],
        ref_chosen_logps: Float[Tensor, " pairs"],
        ref_rejected_logps: Float[Tensor, " pairs"],
        chosen_lengths: Float[Tensor, " pairs"],
        rejected_lengths: Float[Tensor, " pairs"],
        ema: float,
    ) -> "AveragedGapMoments":
        """Moved towards an optimiser step."""
        gaps = averaged_gap(
            policy_chosen_logps,
            policy_rejected_logps,
            ref_chosen_logps,
            ref_rejected_logps,
            chosen_lengths,
            rejected_lengths,
        )
        mean, std = _moved(self.mean, self.std, gaps, ema)
        return AveragedGapMoments(mean, std)


def alpha_dpo_offset(
    gaps: Float[Tensor, " pairs"], state: AveragedGapMoments, gamma_beta_ratio: float, alpha: float
) -> Float[Tensor, " pairs"]:
    """g0 + alpha * (gap - mean) / std: pairs that are ahead of the others are asked for more."""
    return gamma_beta_ratio + alpha * (gaps - state.mean) / max(state.std, SMALLEST_STD)


@objective(
    source="arXiv:2410.10148",
    elsewhere=(
        Elsewhere(
            "junkangwu/alpha-DPO",
            "loss_type=alpha-dpo",
            {"beta": "beta", "gamma_beta_ratio": "gamma_beta_ratio", "alpha": "alpha"},
        ),
    ),
    couples_batch=True,
    state=AveragedGapMoments,
    swap="the offset compares the gaps of chosen over rejected answers with each other (use label_smoothing)",
)
def alpha_dpo(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    chosen_lengths: Float[Tensor, " pairs"],
    rejected_lengths: Float[Tensor, " pairs"],
    state: AveragedGapMoments,
    *,
    beta: Annotated[float, Field(gt=0)] = 10.0,
    gamma_beta_ratio: Annotated[float, Field(ge=0)] = 0.4,
    alpha: Annotated[float, Field(ge=0)] = 0.2,
    ema: Annotated[float, Field(ge=0, le=1)] = 0.9,
    label_smoothing: Annotated[float, Field(ge=0, le=0.5)] = 0.0,
) -> Float[Tensor, " pairs"]:
    r"""SimPO whose margin is larger for pairs on which the policy is already further from the reference than elsewhere.

    With a(y) = log pi(y|x) / |y|, aref(y) = log pi_ref(y|x) / |y|, in nats a token, gap = (a(chosen) - a(rejected))
    - (aref(chosen) - aref(rejected)), mean and std its moving moments over steps, this one included, all of them
    without gradient, and ce(x) = -(1 - e) * log sigmoid(x) - e * log sigmoid(-x), e the smoothing:

        offset = gamma_beta_ratio + alpha * (gap - mean) / std
        loss   = ce(beta * (a(chosen) - a(rejected) - offset))

    Limits: alpha = 0 is `simpo` with gamma = gamma_beta_ratio * beta. At the reference all gaps are 0, and so is the
    deviation, which is then taken to be 1e-6.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        chosen_lengths: tokens of the chosen answer, EOS included.
        rejected_lengths: tokens of the rejected answer, EOS included.
        state: moving moments of the gap; they are updated before they are used.
        beta: inverse temperature on averaged log-probabilities, > 0.
        gamma_beta_ratio: margin that every pair is asked for, in nats a token, g0.
        alpha: more that is asked for one standard deviation of the gap, in nats a token.
        ema: share of the old moments that stays at a step; read by the state.
        label_smoothing: share of labels taken to be wrong, e.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> from prefloop.objectives import AveragedGapMoments
        >>> nats, tokens = torch.full((2,), -10.0), torch.full((2,), 20.0)
        >>> still = AveragedGapMoments.initial({})
        >>> alpha_dpo(nats, nats, nats, nats, tokens, tokens, still, gamma_beta_ratio=0.0)
        tensor([0.6931, 0.6931])
    """
    del ema
    gaps = averaged_gap(
        policy_chosen_logps,
        policy_rejected_logps,
        ref_chosen_logps,
        ref_rejected_logps,
        chosen_lengths,
        rejected_lengths,
    )
    offset = alpha_dpo_offset(gaps, state, gamma_beta_ratio, alpha)
    margin = policy_chosen_logps / chosen_lengths - policy_rejected_logps / rejected_lengths
    return smoothed_logistic(beta * (margin - offset), label_smoothing)


@dataclass(frozen=True)
class GapMoments:
    """Moving mean and deviation of the steps' gaps."""

    mean: float
    std: float

    @classmethod
    def initial(cls, hyper: Mapping[str, Any]) -> "GapMoments":
        """Both start from 0."""
        del hyper
        return cls(mean=0.0, std=0.0)

    def updated(
        self,
        *,
        policy_chosen_logps: Float[Tensor, " pairs"],
        policy_rejected_logps: Float[Tensor, " pairs"],
        ref_chosen_logps: Float[Tensor, " pairs"],
        ref_rejected_logps: Float[Tensor, " pairs"],
        ema: float,
    ) -> "GapMoments":
        """Moved towards an optimiser step."""
        gaps = (policy_chosen_logps - ref_chosen_logps) - (policy_rejected_logps - ref_rejected_logps)
        mean, std = _moved(self.mean, self.std, gaps.detach(), ema)
        return GapMoments(mean, std)


def log_selection_weights(gaps: Float[Tensor, " pairs"], state: GapMoments) -> Float[Tensor, " pairs"]:
    """Exponent of exp(-((gap - mean) / std)^2 / 2): what a pair's chance of being drawn is proportional to."""
    return -0.5 * ((gaps - state.mean) / max(state.std, SMALLEST_STD)) ** 2


def drawn_pairs(
    log_weights: Float[Tensor, " pairs"], uniforms: Float[Tensor, " pairs"], drop: float
) -> Bool[Tensor, " pairs"]:
    """Pairs drawn without replacement, one after the other in proportion to their weights.

    The smallest of -log(u) / weight are those that such draws give (Efraimidis and Spirakis); in logarithms, weights
    that underflow still have their order. At least one pair is drawn.
    """
    keep = max(1, int(len(log_weights) * (1 - drop)))
    drawn = (torch.log(-torch.log(uniforms)) - log_weights).argsort(stable=True)[:keep]
    return torch.zeros_like(log_weights, dtype=torch.bool).index_fill(0, drawn, value=True)


def adapted_beta(
    gaps: Float[Tensor, " pairs"],
    drawn: Bool[Tensor, " pairs"],
    state: GapMoments,
    *,
    beta: float,
    a: float,
    min_beta: float,
) -> Float[Tensor, ""]:
    """Larger where the drawn pairs are further apart than steps were before; without gradient."""
    return (beta * (1 + a * (gaps[drawn].mean() - state.mean))).clamp(min=min_beta).detach()


@objective(
    source="arXiv:2407.08639",
    elsewhere=(Elsewhere("junkangwu/beta-DPO", "loss=beta_dpo", {"beta": "beta", "a": "a"}),),
    at_reference=lambda _: math.log(2),
    couples_batch=True,
    state=GapMoments,
    swap="beta and the drawn pairs follow from the gaps of chosen over rejected answers in the whole step",
)
def beta_dpo(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    uniforms: Float[Tensor, " pairs"],
    state: GapMoments,
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
    a: float = 0.6,
    drop: Annotated[float, Field(ge=0, lt=1)] = 0.2,
    ema: Annotated[float, Field(ge=0, le=1)] = 0.9,
    min_beta: Annotated[float, Field(gt=0)] = 1e-3,
) -> Float[Tensor, " pairs"]:
    r"""DPO with a beta that follows how far apart a step's pairs are, on pairs drawn near the usual distance.

    With rho(y) = log pi(y|x) - log pi_ref(y|x), in nats, gap = rho(chosen) - rho(rejected), mean and std its moving
    moments over steps, this one included, all but the gap in the loss without gradient:

        drawn = B * (1 - drop) of B pairs, with chances proportional to exp(-((gap - mean) / std)^2 / 2)
        beta' = max(min_beta, beta * (1 + a * (mean gap of the drawn - mean)))
        loss  = -log sigmoid(beta' * gap) * B / number drawn of a drawn pair, 0 of the others

    so that the mean over the step is the mean over the drawn pairs.

    Limits: a = 0 and drop = 0 is `dpo`.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        uniforms: a random number in [0, 1) of each pair and step; it decides which pairs are drawn.
        state: moving moments of the gap; they are updated before they are used.
        beta: KL strength at the usual gap, > 0.
        a: relative change of beta for a nat of gap.
        drop: share of pairs that are left out.
        ema: share of the old moments that stays at a step; read by the state.
        min_beta: least beta, > 0.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> from prefloop.objectives import GapMoments
        >>> zero, state = torch.zeros(2), GapMoments.initial({})
        >>> beta_dpo(zero, zero, zero, zero, torch.tensor([0.9, 0.1]), state, drop=0.5)  # 2 log 2, and 0
        tensor([1.3863, 0.0000])
    """
    del ema
    gaps = (policy_chosen_logps - ref_chosen_logps) - (policy_rejected_logps - ref_rejected_logps)
    drawn = drawn_pairs(log_selection_weights(gaps.detach(), state), uniforms, drop)
    step_beta = adapted_beta(gaps, drawn, state, beta=beta, a=a, min_beta=min_beta)
    share = drawn.to(gaps.dtype)
    return -logsigmoid(step_beta * gaps) * share / share.mean()

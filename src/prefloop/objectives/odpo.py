"""DPO with an offset: the better the chosen answer, the larger the margin that is asked for."""

import math
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefloop.errors import DataError
from prefloop.objectives.registry import Elsewhere, objective

ORDERED = "the offset is by how much the chosen answer's score is the higher one"


def score_gap(
    chosen_scores: Float[Tensor, " pairs"], rejected_scores: Float[Tensor, " pairs"]
) -> Float[Tensor, " pairs"]:
    """s(chosen) - s(rejected).

    Raises:
        DataError: scores contradict the order of a pair.
    """
    gap = chosen_scores - rejected_scores
    wrong = int((gap < 0).sum())
    if wrong:
        raise DataError(
            f"odpo: chosen_scores are below rejected_scores in {wrong} of {len(gap)} pairs, expected at least as high. "
            "Leave out pairs whose scores contradict their order."
        )
    return gap


def log_offset(
    chosen_scores: Float[Tensor, " pairs"], rejected_scores: Float[Tensor, " pairs"], alpha: float
) -> Float[Tensor, " pairs"]:
    """Offset alpha * log(s(chosen) - s(rejected)); 0 where alpha is, -inf where scores are equal."""
    return torch.xlogy(alpha, score_gap(chosen_scores, rejected_scores))


def log_ratio_offset(
    chosen_scores: Float[Tensor, " pairs"], rejected_scores: Float[Tensor, " pairs"], alpha: float
) -> Float[Tensor, " pairs"]:
    """Offset alpha * log(s(chosen) / s(rejected)).

    Raises:
        DataError: a score is not positive, or scores contradict the order of a pair.
    """
    score_gap(chosen_scores, rejected_scores)
    wrong = int((rejected_scores <= 0).sum())
    if wrong:
        raise DataError(
            f"odpo_log_ratio: scores are not positive in {wrong} of {len(chosen_scores)} pairs, expected all. "
            "Choose odpo or odpo_identity, or other scores."
        )
    return alpha * (chosen_scores.log() - rejected_scores.log())


def identity_offset(
    chosen_scores: Float[Tensor, " pairs"], rejected_scores: Float[Tensor, " pairs"], alpha: float
) -> Float[Tensor, " pairs"]:
    """Offset alpha * (s(chosen) - s(rejected))."""
    return alpha * score_gap(chosen_scores, rejected_scores)


@objective(
    source="arXiv:2402.10571",
    elsewhere=(Elsewhere("rycolab/odpo", "loss=odpo", {"beta": "beta", "alpha": "alpha"}, "log, its default"),),
    swap=ORDERED,
)
def odpo(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    chosen_scores: Float[Tensor, " pairs"],
    rejected_scores: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
    alpha: Annotated[float, Field(ge=0)] = 1.0,
) -> Float[Tensor, " pairs"]:
    r"""DPO that asks for a margin which grows with the logarithm of the gap between the scores.

    With rho(y) = log pi(y|x) - log pi_ref(y|x), in nats, and scores s(y):

        loss = -log sigmoid(beta * (rho(chosen) - rho(rejected)) - alpha * log(s(chosen) - s(rejected)))

    Limits: alpha = 0, or a gap of 1, give `dpo`. Equal scores have the offset -inf, so that their loss and
    gradient are 0: leave such pairs out. Multiplying scores by k adds alpha * log k to every offset.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        chosen_scores: score of the chosen answer, at least as high as the rejected one's.
        rejected_scores: score of the rejected answer.
        beta: KL strength, > 0.
        alpha: strength of the offset, in nats.

    Returns:
        Loss of each pair, in nats.

    Raises:
        DataError: scores contradict the order of a pair.

    Example:
        >>> import torch
        >>> zero, good, bad = torch.zeros(1), torch.tensor([3.0]), torch.tensor([1.0])
        >>> odpo(zero, zero, zero, zero, good, bad)  # a gap of 2: log(1 + 2)
        tensor([1.0986])
    """
    rho_chosen = policy_chosen_logps - ref_chosen_logps
    rho_rejected = policy_rejected_logps - ref_rejected_logps
    offset = log_offset(chosen_scores, rejected_scores, alpha)
    return -logsigmoid(beta * (rho_chosen - rho_rejected) - offset)


@objective(
    source="arXiv:2402.10571",
    elsewhere=(Elsewhere("rycolab/odpo", "loss=odpo", {"beta": "beta", "alpha": "alpha"}, "its flag `ratio`"),),
    swap=ORDERED,
)
def odpo_log_ratio(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    chosen_scores: Float[Tensor, " pairs"],
    rejected_scores: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
    alpha: Annotated[float, Field(ge=0)] = 1.0,
) -> Float[Tensor, " pairs"]:
    r"""ODPO with the logarithm of the ratio of the scores, which have to be positive.

    With rho(y) = log pi(y|x) - log pi_ref(y|x), in nats, and scores s(y):

        loss = -log sigmoid(beta * (rho(chosen) - rho(rejected)) - alpha * log(s(chosen) / s(rejected)))

    Limits: alpha = 0, or equal scores, give `dpo`. The unit of the scores makes no difference, their zero does.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        chosen_scores: score of the chosen answer, at least as high as the rejected one's.
        rejected_scores: score of the rejected answer.
        beta: KL strength, > 0.
        alpha: strength of the offset, in nats.

    Returns:
        Loss of each pair, in nats.

    Raises:
        DataError: scores contradict the order of a pair, or are not positive.

    Example:
        >>> import torch
        >>> zero, good, bad = torch.zeros(1), torch.tensor([3.0]), torch.tensor([1.0])
        >>> odpo_log_ratio(zero, zero, zero, zero, good, bad)  # a ratio of 3: log(1 + 3)
        tensor([1.3863])
    """
    rho_chosen = policy_chosen_logps - ref_chosen_logps
    rho_rejected = policy_rejected_logps - ref_rejected_logps
    offset = log_ratio_offset(chosen_scores, rejected_scores, alpha)
    return -logsigmoid(beta * (rho_chosen - rho_rejected) - offset)


@objective(source="arXiv:2402.10571 (an ablation)", swap=ORDERED)
def odpo_identity(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    chosen_scores: Float[Tensor, " pairs"],
    rejected_scores: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
    alpha: Annotated[float, Field(ge=0)] = 1.0,
) -> Float[Tensor, " pairs"]:
    r"""ODPO with the gap between the scores itself.

    With rho(y) = log pi(y|x) - log pi_ref(y|x), in nats, and scores s(y):

        loss = -log sigmoid(beta * (rho(chosen) - rho(rejected)) - alpha * (s(chosen) - s(rejected)))

    Limits: alpha = 0, or equal scores, give `dpo`; gaps of 1 give `odpo_constant`.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        chosen_scores: score of the chosen answer, at least as high as the rejected one's.
        rejected_scores: score of the rejected answer.
        beta: KL strength, > 0.
        alpha: strength of the offset, in nats.

    Returns:
        Loss of each pair, in nats.

    Raises:
        DataError: scores contradict the order of a pair.

    Example:
        >>> import torch
        >>> zero, good, bad = torch.zeros(1), torch.tensor([3.0]), torch.tensor([1.0])
        >>> odpo_identity(zero, zero, zero, zero, good, bad)  # a gap of 2: log(1 + e^2)
        tensor([2.1269])
    """
    rho_chosen = policy_chosen_logps - ref_chosen_logps
    rho_rejected = policy_rejected_logps - ref_rejected_logps
    offset = identity_offset(chosen_scores, rejected_scores, alpha)
    return -logsigmoid(beta * (rho_chosen - rho_rejected) - offset)


@objective(
    source="arXiv:2402.10571 (an ablation)",
    at_reference=lambda hyper: math.log1p(math.exp(hyper["alpha"])),
)
def odpo_constant(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
    alpha: Annotated[float, Field(ge=0)] = 1.0,
) -> Float[Tensor, " pairs"]:
    r"""DPO that asks every pair for the same margin; no scores are read.

    With rho(y) = log pi(y|x) - log pi_ref(y|x), in nats:

        loss = -log sigmoid(beta * (rho(chosen) - rho(rejected)) - alpha)

    Limits: alpha = 0 gives `dpo`. It is to `dpo` what gamma is to `simpo`.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        beta: KL strength, > 0.
        alpha: margin that is asked for, in nats.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> zero = torch.zeros(1)
        >>> odpo_constant(zero, zero, zero, zero)  # log(1 + e)
        tensor([1.3133])
    """
    rho_chosen = policy_chosen_logps - ref_chosen_logps
    rho_rejected = policy_rejected_logps - ref_rejected_logps
    return -logsigmoid(beta * (rho_chosen - rho_rejected) - alpha)

"""Contrastive preference optimisation: a contrast of the policy's own likelihoods, and imitation of a good answer."""

from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefloop.objectives.pieces import NllReduction, negative_log_likelihood, smoothed_logistic
from prefloop.objectives.registry import Elsewhere, objective


@objective(
    source="arXiv:2401.08417 eq. 8",
    elsewhere=(
        Elsewhere(
            "TRL",
            "CPOTrainer with loss_type=sigmoid",
            {
                "beta": "beta",
                "nll_weight": "cpo_alpha",
                "label_smoothing": "label_smoothing",
                "nll_reduction": "token_mean",
            },
        ),
    ),
)
def cpo(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    chosen_lengths: Float[Tensor, " pairs"],
    mean_chosen_length: Float[Tensor, ""],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
    nll_weight: Annotated[float, Field(ge=0)] = 1.0,
    nll_reduction: NllReduction = "token_mean",
    label_smoothing: Annotated[float, Field(ge=0, le=0.5)] = 0.0,
) -> Float[Tensor, " pairs"]:
    r"""DPO with a uniform reference, and imitation of the chosen answer in the reference's place.

    With ce(x) = -(1 - e) * log sigmoid(x) - e * log sigmoid(-x), e the smoothing:

        loss = ce(beta * (log pi(chosen|x) - log pi(rejected|x))) + nll_weight * NLL(chosen)

    Limits: nll_weight = 0 and e = 0 is `dpo` with a reference that gives both answers the same probability.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        chosen_lengths: tokens of the chosen answer, EOS included.
        mean_chosen_length: mean of the optimiser step's chosen_lengths.
        beta: inverse temperature of the contrast, > 0.
        nll_weight: weight of imitation, alpha of the paper.
        nll_reduction: over the step's tokens (`token_mean`), over its answers' own means (`sequence_mean`), or whole
            answers (`sequence_sum`).
        label_smoothing: share of labels taken to be wrong, e.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> nats, tokens = torch.tensor([-10.0]), torch.tensor([20.0])
        >>> cpo(nats, nats, tokens, tokens.mean())  # log 2 + 1/2
        tensor([1.1931])
    """
    contrast = smoothed_logistic(beta * (policy_chosen_logps - policy_rejected_logps), label_smoothing)
    nll = negative_log_likelihood(policy_chosen_logps, chosen_lengths, mean_chosen_length, nll_reduction)
    return contrast + nll_weight * nll


@objective(
    source="arXiv:2401.08417; arXiv:2405.14734 (their sum, fe1ixxu/CPO_SIMPO)",
    elsewhere=(
        Elsewhere(
            "TRL",
            "CPOTrainer with loss_type=simpo",
            {"beta": "beta", "gamma": "simpo_gamma", "nll_weight": "cpo_alpha", "nll_reduction": "token_mean"},
        ),
    ),
)
def cpo_simpo(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    chosen_lengths: Float[Tensor, " pairs"],
    rejected_lengths: Float[Tensor, " pairs"],
    mean_chosen_length: Float[Tensor, ""],
    *,
    beta: Annotated[float, Field(gt=0)] = 10.0,
    gamma: Annotated[float, Field(ge=0)] = 3.0,
    nll_weight: Annotated[float, Field(ge=0)] = 0.05,
    nll_reduction: NllReduction = "token_mean",
) -> Float[Tensor, " pairs"]:
    r"""SimPO with imitation of the chosen answer.

    With a(y) = log pi(y|x) / |y|, in nats a token:

        loss = -log sigmoid(beta * (a(chosen) - a(rejected)) - gamma) + nll_weight * NLL(chosen)

    Limits: nll_weight = 0 is `simpo`.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        chosen_lengths: tokens of the chosen answer, EOS included.
        rejected_lengths: tokens of the rejected answer, EOS included.
        mean_chosen_length: mean of the optimiser step's chosen_lengths.
        beta: inverse temperature on averaged log-probabilities, > 0.
        gamma: margin that is asked for, in units of the reward beta * a.
        nll_weight: weight of imitation, alpha of CPO.
        nll_reduction: over the step's tokens (`token_mean`), over its answers' own means (`sequence_mean`), or whole
            answers (`sequence_sum`).

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> nats, tokens = torch.tensor([-10.0]), torch.tensor([20.0])
        >>> cpo_simpo(nats, nats, tokens, tokens, tokens.mean(), gamma=0.0)  # log 2 + 0.05 / 2
        tensor([0.7181])
    """
    gap = policy_chosen_logps / chosen_lengths - policy_rejected_logps / rejected_lengths
    nll = negative_log_likelihood(policy_chosen_logps, chosen_lengths, mean_chosen_length, nll_reduction)
    return -logsigmoid(beta * gap - gamma) + nll_weight * nll


@objective(
    source="arXiv:2405.16681 (TPO)",
    elsewhere=(
        Elsewhere(
            "TRL",
            "TPOTrainer with loss_type=sigmoid",
            {"beta": "beta", "nll_weight": "tpo_alpha", "nll_reduction": "token_mean"},
        ),
    ),
    swap="the gold answer is the one that is imitated, whichever of the other two wins: use prob_chosen_wins with cpo",
)
def tpo(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    policy_gold_logps: Float[Tensor, " pairs"],
    gold_lengths: Float[Tensor, " pairs"],
    mean_gold_length: Float[Tensor, ""],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.01,
    nll_weight: Annotated[float, Field(ge=0)] = 1.0,
    nll_reduction: NllReduction = "token_mean",
) -> Float[Tensor, " pairs"]:
    r"""Triple preference optimisation: a contrast of two answers, and imitation of a third that is better than both.

        loss = -log sigmoid(beta * (log pi(chosen|x) - log pi(rejected|x))) + nll_weight * NLL(gold)

    Limits: where the gold answer is the chosen one it is `cpo`.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        policy_gold_logps: log pi(gold | prompt), summed over tokens; gradient flows.
        gold_lengths: tokens of the gold answer, EOS included.
        mean_gold_length: mean of the optimiser step's gold_lengths.
        beta: inverse temperature of the contrast, > 0.
        nll_weight: weight of imitation, alpha of the paper.
        nll_reduction: over the step's tokens (`token_mean`), over its answers' own means (`sequence_mean`), or whole
            answers (`sequence_sum`).

    Returns:
        Loss of each triple, in nats.

    Example:
        >>> import torch
        >>> nats, tokens = torch.tensor([-10.0]), torch.tensor([20.0])
        >>> tpo(nats, nats, nats, tokens, tokens.mean())  # log 2 + 1/2
        tensor([1.1931])
    """
    contrast = -logsigmoid(beta * (policy_chosen_logps - policy_rejected_logps))
    nll = negative_log_likelihood(policy_gold_logps, gold_lengths, mean_gold_length, nll_reduction)
    return contrast + nll_weight * nll


@objective(
    source="arXiv:2405.16681 (TPO-L)",
    aliases=("tpo_l",),
    elsewhere=(
        Elsewhere(
            "TRL",
            "TPOTrainer with loss_type=tpo-l",
            {"beta": "beta", "gamma": "tpo_l_gamma", "nll_weight": "tpo_alpha", "nll_reduction": "token_mean"},
        ),
    ),
    swap="the gold answer is the one that is imitated, whichever of the other two wins: use prob_chosen_wins with cpo",
)
def tpo_length_normalised(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    chosen_lengths: Float[Tensor, " pairs"],
    rejected_lengths: Float[Tensor, " pairs"],
    policy_gold_logps: Float[Tensor, " pairs"],
    gold_lengths: Float[Tensor, " pairs"],
    mean_gold_length: Float[Tensor, ""],
    *,
    beta: Annotated[float, Field(gt=0)] = 10.0,
    gamma: Annotated[float, Field(ge=0)] = 3.0,
    nll_weight: Annotated[float, Field(ge=0)] = 1.0,
    nll_reduction: NllReduction = "token_mean",
) -> Float[Tensor, " pairs"]:
    r"""Triple preference optimisation with a contrast of mean tokens and a margin.

    With a(y) = log pi(y|x) / |y|, in nats a token:

        loss = -log sigmoid(beta * (a(chosen) - a(rejected)) - gamma) + nll_weight * NLL(gold)

    Limits: where the gold answer is the chosen one it is `cpo_simpo`; nll_weight = 0 is `simpo`.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        chosen_lengths: tokens of the chosen answer, EOS included.
        rejected_lengths: tokens of the rejected answer, EOS included.
        policy_gold_logps: log pi(gold | prompt), summed over tokens; gradient flows.
        gold_lengths: tokens of the gold answer, EOS included.
        mean_gold_length: mean of the optimiser step's gold_lengths.
        beta: inverse temperature on averaged log-probabilities, > 0.
        gamma: margin that is asked for, in units of the reward beta * a.
        nll_weight: weight of imitation, alpha of the paper.
        nll_reduction: over the step's tokens (`token_mean`), over its answers' own means (`sequence_mean`), or whole
            answers (`sequence_sum`).

    Returns:
        Loss of each triple, in nats.

    Example:
        >>> import torch
        >>> nats, tokens = torch.tensor([-10.0]), torch.tensor([20.0])
        >>> tpo_length_normalised(nats, nats, tokens, tokens, nats, tokens, tokens.mean(), gamma=0.0)
        tensor([1.1931])
    """
    gap = policy_chosen_logps / chosen_lengths - policy_rejected_logps / rejected_lengths
    nll = negative_log_likelihood(policy_gold_logps, gold_lengths, mean_gold_length, nll_reduction)
    return -logsigmoid(beta * gap - gamma) + nll_weight * nll

"""Objectives with the likelihood of the chosen answer among their terms: SFT, unlikelihood, RPO, MPO."""

from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefloop.objectives.pieces import NllReduction, negative_log_likelihood
from prefloop.objectives.registry import Elsewhere, objective


@objective(
    source="arXiv:2203.02155, supervised fine-tuning",
    elsewhere=(
        Elsewhere("TRL", "loss_type=sft", {"nll_reduction": "token_mean"}),
        Elsewhere("OpenRLHF", "train_sft", {"nll_reduction": "token_mean"}),
    ),
)
def sft(
    policy_chosen_logps: Float[Tensor, " pairs"],
    chosen_lengths: Float[Tensor, " pairs"],
    mean_chosen_length: Float[Tensor, ""],
    *,
    nll_reduction: NllReduction = "token_mean",
) -> Float[Tensor, " pairs"]:
    r"""Negative log-likelihood of the chosen answer.

        loss = -log pi(chosen|x), over a number of tokens

    token_mean divides by the mean length of the step's chosen answers, so that the mean over the step is the mean over
    its tokens; sequence_mean by the answer's own length; sequence_sum by nothing.

    Limits: on answers of one length, token_mean and sequence_mean are the same.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        chosen_lengths: tokens of the chosen answer, EOS included.
        mean_chosen_length: their mean over the optimiser step.
        nll_reduction: over the step's tokens (`token_mean`), over its answers' own means (`sequence_mean`), or whole
            answers (`sequence_sum`).

    Returns:
        Loss of each example, in nats a token, or in nats under `sequence_sum`.

    Example:
        >>> import torch
        >>> logps, lengths = torch.tensor([-2.0, -18.0]), torch.tensor([1.0, 9.0])
        >>> sft(logps, lengths, lengths.mean())  # 2 nats a token, and the longer answer counts more
        tensor([0.4000, 3.6000])
    """
    return negative_log_likelihood(policy_chosen_logps, chosen_lengths, mean_chosen_length, nll_reduction)


@objective(source="arXiv:2305.18290 section 6, its baseline `unlikelihood`")
def unlikelihood(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    *,
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.05,
) -> Float[Tensor, " pairs"]:
    r"""Likelihood of the chosen answer up, that of the rejected one down: what DPO was compared with.

        loss = -log pi(chosen|x) + alpha * log pi(rejected|x)

    It has no lower bound: nothing stops a likelihood from falling, so that it ends in texts without meaning where it is
    trained for long (the paper's remark on summaries and dialogues).

    Limits: alpha = 0 gives `sft` under `sequence_sum`, which on chosen answers is the paper's Preferred-FT.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        alpha: weight of the rejected answer, in [0, 1]; the paper tried 0.05, 0.1, 0.5 and 1.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> unlikelihood(torch.tensor([-2.0]), torch.tensor([-10.0]), alpha=0.5)
        tensor([-3.])
    """
    return -policy_chosen_logps + alpha * policy_rejected_logps


@objective(
    source="arXiv:2404.19733; arXiv:2405.16436",
    elsewhere=(
        Elsewhere(
            "TRL",
            "loss_type=[sigmoid, sft]",
            {"beta": "beta", "nll_weight": "loss_weights = [1, nll_weight]", "nll_reduction": "token_mean"},
            "formerly rpo_alpha",
        ),
        Elsewhere(
            "LLaMA-Factory",
            "pref_loss=sigmoid pref_ftx=...",
            {"beta": "pref_beta", "nll_weight": "pref_ftx", "nll_reduction": "sequence_mean"},
        ),
        Elsewhere(
            "OpenRLHF",
            "train_dpo --nll_loss_coef",
            {"beta": "beta", "nll_weight": "nll_loss_coef", "nll_reduction": "sequence_mean"},
        ),
        Elsewhere(
            "oat",
            "dap_algo=DPO sft_weight=...",
            {"beta": "beta", "nll_weight": "sft_weight", "nll_reduction": "sequence_mean"},
        ),
    ),
)
def rpo(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    chosen_lengths: Float[Tensor, " pairs"],
    mean_chosen_length: Float[Tensor, ""],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
    nll_weight: Annotated[float, Field(ge=0)] = 1.0,
    nll_reduction: NllReduction = "token_mean",
) -> Float[Tensor, " pairs"]:
    r"""DPO and the chosen answer's likelihood, so that learning the gap does not lower the chosen answer.

    With rho(y) = log pi(y|x) - log pi_ref(y|x), in nats:

        loss = -log sigmoid(beta * (rho(chosen) - rho(rejected))) + nll_weight * NLL(chosen)

    Limits: nll_weight = 0 gives `dpo`.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        chosen_lengths: tokens of the chosen answer, EOS included.
        mean_chosen_length: their mean over the optimiser step.
        beta: KL strength, > 0.
        nll_weight: weight of the likelihood, >= 0; 1 for reasoning, 0.005 for chat.
        nll_reduction: over the step's tokens (`token_mean`), over its answers' own means (`sequence_mean`), or whole
            answers (`sequence_sum`).

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> zero, length = torch.zeros(1), torch.tensor([5.0])
        >>> rpo(zero - 10, zero, zero - 10, zero, length, length.mean())  # log 2, and 2 nats a token
        tensor([2.6931])
    """
    rho_chosen = policy_chosen_logps - ref_chosen_logps
    rho_rejected = policy_rejected_logps - ref_rejected_logps
    margin = beta * (rho_chosen - rho_rejected)
    nll = negative_log_likelihood(policy_chosen_logps, chosen_lengths, mean_chosen_length, nll_reduction)
    return -logsigmoid(margin) + nll_weight * nll


@objective(
    source="arXiv:2411.10442",
    elsewhere=(
        Elsewhere(
            "TRL",
            "loss_type=[sigmoid, bco_pair, sft]",
            {
                "beta": "beta",
                "preference_weight": "loss_weights[0]",
                "quality_weight": "loss_weights[1]",
                "generation_weight": "loss_weights[2]",
                "shift": "0",
                "nll_reduction": "token_mean",
            },
        ),
        Elsewhere(
            "LLaMA-Factory",
            "pref_loss=sigmoid pref_bco_weight=... pref_ftx=...",
            {
                "beta": "pref_beta",
                "preference_weight": "preference_weight = 1 / (1 + pref_bco_weight)",
                "quality_weight": "quality_weight = pref_bco_weight / (1 + pref_bco_weight)",
                "generation_weight": "pref_ftx",
                "nll_reduction": "sequence_mean",
            },
            "shift is a running mean of rewards there",
        ),
    ),
)
def mpo(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    chosen_lengths: Float[Tensor, " pairs"],
    mean_chosen_length: Float[Tensor, ""],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
    preference_weight: Annotated[float, Field(ge=0)] = 0.8,
    quality_weight: Annotated[float, Field(ge=0)] = 0.2,
    generation_weight: Annotated[float, Field(ge=0)] = 1.0,
    shift: float = 0.0,
    nll_reduction: NllReduction = "token_mean",
) -> Float[Tensor, " pairs"]:
    r"""Mixed preference optimisation: which answer is better, whether each is good, and the good one's likelihood.

    With rho(y) = log pi(y|x) - log pi_ref(y|x), in nats, and r(y) = beta * rho(y):

        preference = -log sigmoid(r(chosen) - r(rejected))
        quality    = -log sigmoid(r(chosen) - shift) - log sigmoid(-(r(rejected) - shift))
        loss       = preference_weight * preference + quality_weight * quality + generation_weight * NLL(chosen)

    Limits: weights 1, 0, 0 give `dpo`; 0, 1, 0 without shift `bco_pair`; 0, 0, 1 `sft`; 1, 0, w `rpo`.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        ref_chosen_logps: the same under the frozen reference; no gradient.
        ref_rejected_logps: the same under the frozen reference; no gradient.
        chosen_lengths: tokens of the chosen answer, EOS included.
        mean_chosen_length: their mean over the optimiser step.
        beta: KL strength, > 0.
        preference_weight: weight of the pair's order, >= 0.
        quality_weight: weight of each answer's own quality, >= 0.
        generation_weight: weight of the likelihood, >= 0.
        shift: reward at which an answer is neither good nor bad.
        nll_reduction: over the step's tokens (`token_mean`), over its answers' own means (`sequence_mean`), or whole
            answers (`sequence_sum`).

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> zero, length = torch.zeros(1), torch.tensor([5.0])
        >>> mpo(zero - 10, zero, zero - 10, zero, length, length.mean())  # 0.8 log 2 + 0.2 * 2 log 2 + 2
        tensor([2.8318])
    """
    reward_chosen = beta * (policy_chosen_logps - ref_chosen_logps)
    reward_rejected = beta * (policy_rejected_logps - ref_rejected_logps)
    preference = -logsigmoid(reward_chosen - reward_rejected)
    quality = -logsigmoid(reward_chosen - shift) - logsigmoid(-(reward_rejected - shift))
    nll = negative_log_likelihood(policy_chosen_logps, chosen_lengths, mean_chosen_length, nll_reduction)
    return preference_weight * preference + quality_weight * quality + generation_weight * nll

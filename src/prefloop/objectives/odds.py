"""Losses of the odds of an answer's mean token, without a reference."""

from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefloop.objectives.pieces import NllReduction, log_odds, negative_log_likelihood
from prefloop.objectives.registry import Elsewhere, objective


@objective(
    source="arXiv:2403.07691 eq. 6",
    elsewhere=(
        Elsewhere(
            "LLaMA-Factory",
            "pref_loss=orpo",
            {"lam": "pref_beta", "nll_reduction": "sequence_mean"},
        ),
        Elsewhere("xfactlab/orpo", "disable_prompt_loss", {"lam": "alpha", "nll_reduction": "token_mean"}),
    ),
)
def orpo(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    chosen_lengths: Float[Tensor, " pairs"],
    rejected_lengths: Float[Tensor, " pairs"],
    mean_chosen_length: Float[Tensor, ""],
    *,
    lam: Annotated[float, Field(ge=0)] = 0.1,
    nll_reduction: NllReduction = "token_mean",
) -> Float[Tensor, " pairs"]:
    r"""Supervised fine-tuning on the chosen answer, and its odds raised over the rejected one's.

    With a(y) = log pi(y|x) / |y|, in nats a token, and o(y) = a(y) - log(1 - exp(a(y))), the log-odds:

        loss = NLL(chosen) - lam * log sigmoid(o(chosen) - o(rejected))

    Limits: lam = 0 is supervised fine-tuning. `orpo_with_prompt` also learns the prompt.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        chosen_lengths: tokens of the chosen answer, EOS included.
        rejected_lengths: tokens of the rejected answer, EOS included.
        mean_chosen_length: mean of the optimiser step's chosen_lengths.
        lam: weight of the odds, lambda of the paper.
        nll_reduction: over the step's tokens (`token_mean`), over its answers' own means (`sequence_mean`), or whole
            answers (`sequence_sum`).

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> nats, tokens = torch.tensor([-10.0]), torch.tensor([20.0])
        >>> orpo(nats, nats, tokens, tokens, tokens.mean())  # 1/2 + 0.1 log 2
        tensor([0.5693])
    """
    odds_chosen = log_odds(policy_chosen_logps / chosen_lengths)
    odds_rejected = log_odds(policy_rejected_logps / rejected_lengths)
    nll = negative_log_likelihood(policy_chosen_logps, chosen_lengths, mean_chosen_length, nll_reduction)
    return nll - lam * logsigmoid(odds_chosen - odds_rejected)


@objective(
    source="arXiv:2403.07691 (as its code and TRL run it)",
    elsewhere=(
        Elsewhere("TRL", "ORPOTrainer", {"lam": "beta", "nll_reduction": "token_mean"}),
        Elsewhere("xfactlab/orpo", "OddsRatioTrainer", {"lam": "alpha", "nll_reduction": "token_mean"}),
    ),
)
def orpo_with_prompt(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    policy_prompt_logps: Float[Tensor, " pairs"],
    chosen_lengths: Float[Tensor, " pairs"],
    rejected_lengths: Float[Tensor, " pairs"],
    prompt_lengths: Float[Tensor, " pairs"],
    mean_chosen_length: Float[Tensor, ""],
    mean_prompt_length: Float[Tensor, ""],
    *,
    lam: Annotated[float, Field(ge=0)] = 0.1,
    nll_reduction: NllReduction = "token_mean",
) -> Float[Tensor, " pairs"]:
    r"""ORPO as TRL and the authors' code run it: fine-tuning on prompt and chosen answer, odds of the answers alone.

    With a(y) = log pi(y|x) / |y|, in nats a token, and o(y) = a(y) - log(1 - exp(a(y))), the log-odds:

        loss = NLL(prompt and chosen) - lam * log sigmoid(o(chosen) - o(rejected))

    Limits: where prompts are sure (log-probability 0) and the reduction is sequence_sum, it is `orpo`.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        policy_prompt_logps: log-probability of the prompt's tokens after the first, summed; gradient flows.
        chosen_lengths: tokens of the chosen answer, EOS included.
        rejected_lengths: tokens of the rejected answer, EOS included.
        prompt_lengths: tokens of the prompt after the first.
        mean_chosen_length: mean of the optimiser step's chosen_lengths.
        mean_prompt_length: mean of the optimiser step's prompt_lengths.
        lam: weight of the odds, lambda of the paper.
        nll_reduction: over the step's tokens (`token_mean`), over its texts' own means (`sequence_mean`), or whole
            texts (`sequence_sum`).

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> nats, tokens = torch.tensor([-10.0]), torch.tensor([20.0])
        >>> orpo_with_prompt(nats, nats, nats, tokens, tokens, tokens, tokens.mean(), tokens.mean())
        tensor([0.5693])
    """
    odds_chosen = log_odds(policy_chosen_logps / chosen_lengths)
    odds_rejected = log_odds(policy_rejected_logps / rejected_lengths)
    nll = negative_log_likelihood(
        policy_prompt_logps + policy_chosen_logps,
        prompt_lengths + chosen_lengths,
        mean_prompt_length + mean_chosen_length,
        nll_reduction,
    )
    return nll - lam * logsigmoid(odds_chosen - odds_rejected)


@objective(source="arXiv:2409.10571; arXiv:2502.01237 sec. 2.3 (one stage)")
def asft(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    chosen_lengths: Float[Tensor, " pairs"],
    rejected_lengths: Float[Tensor, " pairs"],
    *,
    lam: Annotated[float, Field(ge=0)] = 1.0,
) -> Float[Tensor, " pairs"]:
    r"""Aligned supervised fine-tuning in one stage: the chosen answer learnt, the rejected one unlearnt, each alone.

    With a(y) = log pi(y|x) / |y|, in nats a token, p(y) = exp(a(y)), and o(y) = a(y) - log(1 - p(y)), the log-odds:

        loss = -log p(chosen) + lam * (-log sigmoid(o(chosen)) - log sigmoid(-o(rejected)))
             = -(1 + lam) * log p(chosen) - lam * log(1 - p(rejected))

    Limits: lam = 0 is supervised fine-tuning with the mean of each answer's tokens. The term with lam is `asft_align`
    at beta = 1. No term sees both answers, and nothing holds the policy near where it started.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        chosen_lengths: tokens of the chosen answer, EOS included.
        rejected_lengths: tokens of the rejected answer, EOS included.
        lam: weight of the alignment part, lambda of the paper.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> nats, tokens = torch.tensor([-10.0]), torch.tensor([10.0])
        >>> asft(nats, nats, tokens, tokens)
        tensor([2.4587])
    """
    logp_chosen = policy_chosen_logps / chosen_lengths
    # sigmoid(-log_odds) is 1 - p, held above 0.
    log_not_rejected = logsigmoid(-log_odds(policy_rejected_logps / rejected_lengths))
    return -(1 + lam) * logp_chosen - lam * log_not_rejected


@objective(source="arXiv:2502.01237 sec. 3 (two stages, with a temperature)")
def asft_align(
    policy_chosen_logps: Float[Tensor, " pairs"],
    policy_rejected_logps: Float[Tensor, " pairs"],
    chosen_lengths: Float[Tensor, " pairs"],
    rejected_lengths: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1,
) -> Float[Tensor, " pairs"]:
    r"""The alignment stage of ASFT, after supervised fine-tuning: each answer's odds classified, at a temperature.

    With a(y) = log pi(y|x) / |y|, in nats a token, and o(y) = a(y) - log(1 - exp(a(y))), the log-odds:

        loss = -log sigmoid(beta * o(chosen)) - log sigmoid(-beta * o(rejected))

    Limits: at beta = 1 it is -log p(chosen) - log(1 - p(rejected)). Never below the odds term of `orpo`.

    Args:
        policy_chosen_logps: log pi(chosen | prompt), summed over tokens; gradient flows.
        policy_rejected_logps: log pi(rejected | prompt), summed over tokens; gradient flows.
        chosen_lengths: tokens of the chosen answer, EOS included.
        rejected_lengths: tokens of the rejected answer, EOS included.
        beta: temperature on the odds, > 0.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> nats, tokens = torch.tensor([-10.0]), torch.tensor([10.0])
        >>> asft_align(nats, nats, tokens, tokens, beta=1.0)
        tensor([1.4587])
    """
    odds_chosen = log_odds(policy_chosen_logps / chosen_lengths)
    odds_rejected = log_odds(policy_rejected_logps / rejected_lengths)
    return -logsigmoid(beta * odds_chosen) - logsigmoid(-beta * odds_rejected)

"""DPO in which tokens, or pairs by their tokens, count differently."""

import math
from typing import Annotated

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefloop.objectives.pieces import smoothed_logistic
from prefloop.objectives.registry import Elsewhere, objective


def after_prefix(
    token_logps: Float[Tensor, "pairs tokens"], prefix_lengths: Int[Tensor, " pairs"]
) -> Float[Tensor, " pairs"]:
    """Sum over the tokens behind a prefix, which gets no gradient."""
    position = torch.arange(token_logps.shape[1], device=token_logps.device)
    return token_logps.masked_fill(position < prefix_lengths[:, None], 0.0).sum(1)


@objective(
    source="arXiv:2406.18629 eq. 2",
    elsewhere=(Elsewhere("dvlab-research/Step-DPO", "train.py", {"beta": "beta"}, "no EOS behind a step"),),
    at_reference=lambda _: math.log(2),
)
def step_dpo(
    policy_chosen_token_logps: Float[Tensor, "pairs chosen_tokens"],
    policy_rejected_token_logps: Float[Tensor, "pairs rejected_tokens"],
    ref_chosen_token_logps: Float[Tensor, "pairs chosen_tokens"],
    ref_rejected_token_logps: Float[Tensor, "pairs rejected_tokens"],
    chosen_prefix_lengths: Int[Tensor, " pairs"],
    rejected_prefix_lengths: Int[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.4,
) -> Float[Tensor, " pairs"]:
    r"""DPO on one step of a solution: what stands before it is given, correct, and not learnt.

    With rho(s) the sum over the tokens behind the prefix of log pi(token) - log pi_ref(token), in nats:

        loss = -log sigmoid(beta * (rho(chosen step) - rho(rejected step)))

    Limits: without prefix it is `dpo` on the two steps. Where the prefix stands in the prompt already, as the records
    of step-wise rules have it, `dpo` is the same and costs less.

    Args:
        policy_chosen_token_logps: log pi of each token of the chosen answer; gradient flows.
        policy_rejected_token_logps: log pi of each token of the rejected answer; gradient flows.
        ref_chosen_token_logps: the same under the frozen reference; no gradient.
        ref_rejected_token_logps: the same under the frozen reference; no gradient.
        chosen_prefix_lengths: tokens of the chosen answer before the step.
        rejected_prefix_lengths: tokens of the rejected answer before the step.
        beta: KL strength, > 0; larger than for whole answers, since a step has few tokens.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> zero, prefix = torch.zeros(1, 5), torch.tensor([2])
        >>> step_dpo(zero, zero, zero, zero, prefix, prefix)
        tensor([0.6931])
    """
    rho_chosen = after_prefix(policy_chosen_token_logps - ref_chosen_token_logps, chosen_prefix_lengths)
    rho_rejected = after_prefix(policy_rejected_token_logps - ref_rejected_token_logps, rejected_prefix_lengths)
    return -logsigmoid(beta * (rho_chosen - rho_rejected))


def bmc_weights(
    token_logps: Float[Tensor, "pairs tokens"], diff_mask: Bool[Tensor, "pairs tokens"], delta: float
) -> Float[Tensor, "pairs tokens"]:
    """1 + min(1 / p, delta) of changed tokens, 1 of the others; without gradient."""
    return 1 + diff_mask * torch.exp(-token_logps.detach()).clamp(max=delta)


@objective(source="arXiv:2408.07471", at_reference=lambda _: math.log(2))
def bmc(
    policy_chosen_token_logps: Float[Tensor, "pairs chosen_tokens"],
    policy_rejected_token_logps: Float[Tensor, "pairs rejected_tokens"],
    ref_chosen_token_logps: Float[Tensor, "pairs chosen_tokens"],
    ref_rejected_token_logps: Float[Tensor, "pairs rejected_tokens"],
    chosen_diff_mask: Bool[Tensor, "pairs chosen_tokens"],
    rejected_diff_mask: Bool[Tensor, "pairs rejected_tokens"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.05,
    delta: Annotated[float, Field(ge=0)] = 2.0,
) -> Float[Tensor, " pairs"]:
    r"""DPO on minimally edited pairs in which the edited tokens count more, the more the less likely they are.

    With W(t) = 1 + d(t) * min(1 / pi(t), delta), without gradient, d(t) = 1 where the token was changed:

        S(y) = sum_t W(t) * (log pi(t) - log pi_ref(t))
        loss = -log sigmoid(beta * (S(chosen) - S(rejected)))

    Limits: no changed tokens, or delta = 0, give `dpo`; all tokens changed and delta = 1, `dpo` with 2 * beta. For
    delta <= 1 the weights do not depend on the policy.

    Args:
        policy_chosen_token_logps: log pi of each token of the chosen answer; gradient flows.
        policy_rejected_token_logps: log pi of each token of the rejected answer; gradient flows.
        ref_chosen_token_logps: the same under the frozen reference; no gradient.
        ref_rejected_token_logps: the same under the frozen reference; no gradient.
        chosen_diff_mask: which tokens of the chosen answer were inserted or replaced.
        rejected_diff_mask: which tokens of the rejected answer were deleted or replaced.
        beta: KL strength, > 0.
        delta: most that is added to a weight.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> zero, changed = torch.zeros(1, 3), torch.tensor([[False, True, False]])
        >>> bmc(zero, zero, zero, zero, changed, changed)
        tensor([0.6931])
    """
    weights_chosen = bmc_weights(policy_chosen_token_logps, chosen_diff_mask, delta)
    weights_rejected = bmc_weights(policy_rejected_token_logps, rejected_diff_mask, delta)
    score_chosen = (weights_chosen * (policy_chosen_token_logps - ref_chosen_token_logps)).sum(1)
    score_rejected = (weights_rejected * (policy_rejected_token_logps - ref_rejected_token_logps)).sum(1)
    return -logsigmoid(beta * (score_chosen - score_rejected))


@objective(
    source="arXiv:2408.07471 (as its code runs it)",
    elsewhere=(Elsewhere("YJiangcm/BMC", "DPO-BMC", {"beta": "beta", "delta": "delta"}),),
    at_reference=lambda _: math.log(2),
)
def bmc_own_weights(
    policy_chosen_token_logps: Float[Tensor, "pairs chosen_tokens"],
    policy_rejected_token_logps: Float[Tensor, "pairs rejected_tokens"],
    ref_chosen_token_logps: Float[Tensor, "pairs chosen_tokens"],
    ref_rejected_token_logps: Float[Tensor, "pairs rejected_tokens"],
    chosen_diff_mask: Bool[Tensor, "pairs chosen_tokens"],
    rejected_diff_mask: Bool[Tensor, "pairs rejected_tokens"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.05,
    delta: Annotated[float, Field(ge=0)] = 2.0,
) -> Float[Tensor, " pairs"]:
    r"""BMC as its released code runs it: each model's log-probabilities are weighted by its own confidence.

    With W(t) = 1 + d(t) * min(1 / pi(t), delta), Wref(t) the same of the reference, both without gradient:

        S(y) = sum_t W(t) * log pi(t) - sum_t Wref(t) * log pi_ref(t)
        loss = -log sigmoid(beta * (S(chosen) - S(rejected)))

    Limits: no changed tokens, or delta = 0, give `dpo`; at the reference it is `bmc`, away from it S is no weighted
    log-ratio.

    Args:
        policy_chosen_token_logps: log pi of each token of the chosen answer; gradient flows.
        policy_rejected_token_logps: log pi of each token of the rejected answer; gradient flows.
        ref_chosen_token_logps: the same under the frozen reference; no gradient.
        ref_rejected_token_logps: the same under the frozen reference; no gradient.
        chosen_diff_mask: which tokens of the chosen answer were inserted or replaced.
        rejected_diff_mask: which tokens of the rejected answer were deleted or replaced.
        beta: KL strength, > 0.
        delta: most that is added to a weight.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> zero, changed = torch.zeros(1, 3), torch.tensor([[False, True, False]])
        >>> bmc_own_weights(zero, zero, zero, zero, changed, changed)
        tensor([0.6931])
    """
    policy_chosen = bmc_weights(policy_chosen_token_logps, chosen_diff_mask, delta) * policy_chosen_token_logps
    policy_rejected = bmc_weights(policy_rejected_token_logps, rejected_diff_mask, delta) * policy_rejected_token_logps
    ref_chosen = bmc_weights(ref_chosen_token_logps, chosen_diff_mask, delta) * ref_chosen_token_logps
    ref_rejected = bmc_weights(ref_rejected_token_logps, rejected_diff_mask, delta) * ref_rejected_token_logps
    score_chosen = policy_chosen.sum(1) - ref_chosen.sum(1)
    score_rejected = policy_rejected.sum(1) - ref_rejected.sum(1)
    return -logsigmoid(beta * (score_chosen - score_rejected))


def wpo_log_weights(
    policy_chosen_token_logps: Float[Tensor, "pairs chosen_tokens"],
    policy_rejected_token_logps: Float[Tensor, "pairs rejected_tokens"],
    policy_chosen_token_log_sum_sq: Float[Tensor, "pairs chosen_tokens"],
    policy_rejected_token_log_sum_sq: Float[Tensor, "pairs rejected_tokens"],
    chosen_lengths: Float[Tensor, " pairs"],
    rejected_lengths: Float[Tensor, " pairs"],
) -> Float[Tensor, " pairs"]:
    """How much less likely a pair's mean token is than one of the policy's own, of both answers; without gradient."""
    chosen = (policy_chosen_token_logps - policy_chosen_token_log_sum_sq).sum(1) / chosen_lengths
    rejected = (policy_rejected_token_logps - policy_rejected_token_log_sum_sq).sum(1) / rejected_lengths
    return (chosen + rejected).detach()


@objective(
    source="arXiv:2406.11827",
    elsewhere=(Elsewhere("wzhouad/WPO", "run_wpo.py", {"beta": "beta"}),),
)
def wpo(
    policy_chosen_token_logps: Float[Tensor, "pairs chosen_tokens"],
    policy_rejected_token_logps: Float[Tensor, "pairs rejected_tokens"],
    ref_chosen_token_logps: Float[Tensor, "pairs chosen_tokens"],
    ref_rejected_token_logps: Float[Tensor, "pairs rejected_tokens"],
    policy_chosen_token_log_sum_sq: Float[Tensor, "pairs chosen_tokens"],
    policy_rejected_token_log_sum_sq: Float[Tensor, "pairs rejected_tokens"],
    chosen_lengths: Float[Tensor, " pairs"],
    rejected_lengths: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.01,
    label_smoothing: Annotated[float, Field(ge=0, le=0.5)] = 0.0,
) -> Float[Tensor, " pairs"]:
    r"""DPO in which pairs that the policy would hardly write itself count less.

    With rho(y) = log pi(y|x) - log pi_ref(y|x), in nats, e the smoothing, m = beta * (rho(chosen) - rho(rejected)),
    and u(y) the mean over the answer's tokens of log pi(t) - log sum_v pi(v)^2, without gradient:

        loss = min(1, exp(u(chosen) + u(rejected))) * (-(1 - e) * log sigmoid(m) - e * log sigmoid(-m))

    Limits: where every token is certain, the weight is 1 and it is `dpo`. TRL's is `wpo_uncapped`.

    Args:
        policy_chosen_token_logps: log pi of each token of the chosen answer; gradient flows.
        policy_rejected_token_logps: log pi of each token of the rejected answer; gradient flows.
        ref_chosen_token_logps: the same under the frozen reference; no gradient.
        ref_rejected_token_logps: the same under the frozen reference; no gradient.
        policy_chosen_token_log_sum_sq: log sum_v pi(v)^2 at each token of the chosen answer; no gradient.
        policy_rejected_token_log_sum_sq: the same of the rejected answer; no gradient.
        chosen_lengths: tokens of the chosen answer, EOS included.
        rejected_lengths: tokens of the rejected answer, EOS included.
        beta: KL strength, > 0.
        label_smoothing: share of labels taken to be wrong, e.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> zero, tokens = torch.zeros(1, 3), torch.tensor([3.0])
        >>> wpo(zero, zero, zero, zero, zero, zero, tokens, tokens)
        tensor([0.6931])
    """
    rho_chosen = (policy_chosen_token_logps - ref_chosen_token_logps).sum(1)
    rho_rejected = (policy_rejected_token_logps - ref_rejected_token_logps).sum(1)
    log_weights = wpo_log_weights(
        policy_chosen_token_logps,
        policy_rejected_token_logps,
        policy_chosen_token_log_sum_sq,
        policy_rejected_token_log_sum_sq,
        chosen_lengths,
        rejected_lengths,
    )
    return log_weights.clamp(max=0).exp() * smoothed_logistic(beta * (rho_chosen - rho_rejected), label_smoothing)


@objective(
    source="arXiv:2406.11827 (without the cap)",
    elsewhere=(
        Elsewhere(
            "TRL",
            "use_weighting=True",
            {"beta": "beta"},
            "with loss_type=sigmoid, which ignores label_smoothing",
        ),
    ),
    exponential="the weight is an exponential of the mean token's log-probability, as TRL has it",
)
def wpo_uncapped(
    policy_chosen_token_logps: Float[Tensor, "pairs chosen_tokens"],
    policy_rejected_token_logps: Float[Tensor, "pairs rejected_tokens"],
    ref_chosen_token_logps: Float[Tensor, "pairs chosen_tokens"],
    ref_rejected_token_logps: Float[Tensor, "pairs rejected_tokens"],
    policy_chosen_token_log_sum_sq: Float[Tensor, "pairs chosen_tokens"],
    policy_rejected_token_log_sum_sq: Float[Tensor, "pairs rejected_tokens"],
    chosen_lengths: Float[Tensor, " pairs"],
    rejected_lengths: Float[Tensor, " pairs"],
    *,
    beta: Annotated[float, Field(gt=0)] = 0.01,
    label_smoothing: Annotated[float, Field(ge=0, le=0.5)] = 0.0,
) -> Float[Tensor, " pairs"]:
    r"""WPO as TRL runs it: pairs that are likelier than the policy's own samples weigh more than 1.

    With rho(y) = log pi(y|x) - log pi_ref(y|x), in nats, e the smoothing, m = beta * (rho(chosen) - rho(rejected)),
    and u(y) the mean over the answer's tokens of log pi(t) - log sum_v pi(v)^2, without gradient:

        loss = exp(u(chosen) + u(rejected)) * (-(1 - e) * log sigmoid(m) - e * log sigmoid(-m))

    Limits: where every token is certain, the weight is 1 and it is `dpo`; where weights are at most 1, it is `wpo`.

    Args:
        policy_chosen_token_logps: log pi of each token of the chosen answer; gradient flows.
        policy_rejected_token_logps: log pi of each token of the rejected answer; gradient flows.
        ref_chosen_token_logps: the same under the frozen reference; no gradient.
        ref_rejected_token_logps: the same under the frozen reference; no gradient.
        policy_chosen_token_log_sum_sq: log sum_v pi(v)^2 at each token of the chosen answer; no gradient.
        policy_rejected_token_log_sum_sq: the same of the rejected answer; no gradient.
        chosen_lengths: tokens of the chosen answer, EOS included.
        rejected_lengths: tokens of the rejected answer, EOS included.
        beta: KL strength, > 0.
        label_smoothing: share of labels taken to be wrong, e.

    Returns:
        Loss of each pair, in nats.

    Example:
        >>> import torch
        >>> zero, tokens = torch.zeros(1, 3), torch.tensor([3.0])
        >>> wpo_uncapped(zero, zero, zero, zero, zero, zero, tokens, tokens)
        tensor([0.6931])
    """
    rho_chosen = (policy_chosen_token_logps - ref_chosen_token_logps).sum(1)
    rho_rejected = (policy_rejected_token_logps - ref_rejected_token_logps).sum(1)
    log_weights = wpo_log_weights(
        policy_chosen_token_logps,
        policy_rejected_token_logps,
        policy_chosen_token_log_sum_sq,
        policy_rejected_token_log_sum_sq,
        chosen_lengths,
        rejected_lengths,
    )
    return log_weights.exp() * smoothed_logistic(beta * (rho_chosen - rho_rejected), label_smoothing)

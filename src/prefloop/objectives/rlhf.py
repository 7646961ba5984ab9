"""The policy step of the classical pipeline, PPO and RLOO, with everything that they compute on the way.

PPO is an objective. RLOO's answers stand in groups, the samples of one prompt one after the other, which no quantity
says; it is a pure function for who has them so.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from prefloop.objectives.pieces import masked_sum
from prefloop.objectives.registry import Elsewhere, objective

Tokens = Float[Tensor, "pairs response_tokens"]
Mask = Bool[Tensor, "pairs response_tokens"]
Estimator = Literal["k1", "k3"]
"""Of KL(pi || pi_ref) from one sample: k1 has mean KL and either sign, k3 has mean KL and is never negative."""


# ------------------------------------------------------------------------------------------- rewards and advantages


def kl_estimate(
    logps: Float[Tensor, "*shape"], ref_logps: Float[Tensor, "*shape"], *, estimator: Estimator
) -> Float[Tensor, "*shape"]:
    """With d = log pi - log pi_ref: k1 = d, k3 = exp(-d) - 1 + d, in nats."""
    log_ratio = logps - ref_logps
    return log_ratio if estimator == "k1" else torch.expm1(-log_ratio) + log_ratio


def token_rewards(
    old_response_token_logps: Tokens,
    ref_response_token_logps: Tokens,
    response_scores: Float[Tensor, " pairs"],
    response_token_mask: Mask,
    *,
    kl_coef: float,
    kl_estimator: Estimator,
) -> Tokens:
    """Minus kl_coef times the KL estimate at each counted token, and the score at the last of them."""
    kl = kl_estimate(old_response_token_logps, ref_response_token_logps, estimator=kl_estimator)
    rewards = (-kl_coef * kl).masked_fill(~response_token_mask, 0.0)
    last = response_token_mask & (response_token_mask.flip(1).long().cumsum(1).flip(1) == 1)
    return rewards + last * response_scores[:, None]


@dataclass(frozen=True)
class Advantages:
    """What generalised advantage estimation makes of rewards and values."""

    advantages: Tokens
    returns: Tokens
    """Advantage plus value: what the value head learns."""


def generalized_advantages(rewards: Tokens, values: Tokens, mask: Mask, *, gamma: float, lam: float) -> Advantages:
    """A_t = delta_t + gamma * lam * A_{t+1} with delta_t = R_t + gamma * V_{t+1} - V_t, and V = 0 after the end.

    The counted tokens of an answer stand one after the other. lam = 1 with gamma = 1 is the sum of the rewards to come
    minus V_t; lam = 0 is one step of temporal differences.
    """
    rewards, values = rewards.masked_fill(~mask, 0.0), values.masked_fill(~mask, 0.0)
    after = torch.zeros_like(values[:, 0])
    next_value, advantages = after, list[Tensor]()
    for reward, value in zip(reversed(rewards.unbind(1)), reversed(values.unbind(1)), strict=True):
        after = reward + gamma * next_value - value + gamma * lam * after
        next_value = value
        advantages.append(after)
    found = torch.stack(advantages[::-1], 1).masked_fill(~mask, 0.0)
    return Advantages(found, found + values)


def whitened(values: Tokens, mask: Mask) -> Tokens:
    """Values of mean 0 and variance 1 over all counted tokens: (A - mean) / sqrt(var + 1e-8), unbiased variance."""
    counted = values[mask]
    if len(counted) < 2:
        raise ValueError("whitening needs two tokens at least; whiten_advantages=False takes one")
    return ((values - counted.mean()) / (counted.var() + 1e-8).sqrt()).masked_fill(~mask, 0.0)


def adapted_kl_coef(kl_coef: float, *, kl: float, target: float, num_steps: int, horizon: int) -> float:
    """The KL coefficient after a batch whose mean KL was `kl`: up where it is above target, by a fifth of it at most.

    kl_coef * (1 + clip(kl / target - 1, -0.2, 0.2) * num_steps / horizon), num_steps episodes of a horizon of many.
    """
    return kl_coef * (1 + min(max(kl / target - 1, -0.2), 0.2) * num_steps / horizon)


# --------------------------------------------------------------------------------------------------------------- PPO


def clipped_surrogate(
    log_ratios: Float[Tensor, "*shape"], advantages: Float[Tensor, "*shape"], *, cliprange: float
) -> Float[Tensor, "*shape"]:
    """max(-A * q, -A * clip(q, 1 - e, 1 + e)) with q = exp(log ratio): no gain, and no gradient, from going too far.

    Where A > 0 the clip holds above 1 + e, where A < 0 below 1 - e; the harmful side is never clipped.
    """
    limit = 1 + cliprange * advantages.sign()
    beyond = torch.where(advantages > 0, log_ratios > limit.log(), log_ratios < limit.log())
    # exp is kept from what is clipped: there it may overflow, and 0 times infinity would be the gradient.
    ratios = torch.where(beyond, limit, log_ratios.masked_fill(beyond, 0.0).exp())
    return -advantages * ratios


def clipped_value_error(values: Tokens, old_values: Tokens, returns: Tokens, *, cliprange: float) -> Tokens:
    """0.5 * max((V - G)^2, (clip(V, V_old - e, V_old + e) - G)^2), the unclipped one where they are equal."""
    unclipped = (values - returns) ** 2
    clipped = (values.clamp(old_values - cliprange, old_values + cliprange) - returns) ** 2
    return 0.5 * torch.where(unclipped >= clipped, unclipped, clipped)


@dataclass(frozen=True)
class PpoTerms:
    """Everything that PPO computes about each token; only the two losses carry gradient."""

    token_rewards: Tokens
    advantages: Tokens
    returns: Tokens
    used_advantages: Tokens
    """Whitened, where they are."""
    policy_losses: Tokens
    value_losses: Tokens


def ppo_terms(
    policy_response_token_logps: Tokens,
    old_response_token_logps: Tokens,
    ref_response_token_logps: Tokens,
    policy_response_token_values: Tokens,
    old_response_token_values: Tokens,
    response_scores: Float[Tensor, " pairs"],
    response_token_mask: Mask,
    *,
    kl_coef: float,
    kl_estimator: Estimator,
    gamma: float,
    lam: float,
    cliprange: float,
    cliprange_value: float,
    whiten_advantages: bool,
) -> PpoTerms:
    """The steps of PPO's loss; `ppo` puts them together and explains the arguments."""
    mask = response_token_mask
    rewards = token_rewards(
        old_response_token_logps,
        ref_response_token_logps,
        response_scores,
        mask,
        kl_coef=kl_coef,
        kl_estimator=kl_estimator,
    )
    found = generalized_advantages(rewards, old_response_token_values, mask, gamma=gamma, lam=lam)
    used = whitened(found.advantages, mask) if whiten_advantages else found.advantages
    log_ratios = (policy_response_token_logps - old_response_token_logps).masked_fill(~mask, 0.0)
    errors = clipped_value_error(
        policy_response_token_values, old_response_token_values, found.returns, cliprange=cliprange_value
    )
    return PpoTerms(
        token_rewards=rewards,
        advantages=found.advantages,
        returns=found.returns,
        used_advantages=used,
        policy_losses=clipped_surrogate(log_ratios, used, cliprange=cliprange),
        value_losses=errors.masked_fill(~mask, 0.0),
    )


@objective(
    source="arXiv:1707.06347 eq. 7; GAE of arXiv:1506.02438",
    elsewhere=(
        Elsewhere(
            "TRL",
            "experimental.ppo",
            {
                "kl_coef": "kl_coef",
                "kl_estimator": "kl_estimator",
                "gamma": "gamma",
                "lam": "lam",
                "cliprange": "cliprange",
                "cliprange_value": "cliprange_value",
                "vf_coef": "vf_coef",
                "whiten_advantages": "always on there",
            },
        ),
    ),
    couples_batch=True,
    exponential="the ratio of the policy to the one that sampled is an exponential, unclipped on the harmful side",
)
def ppo(
    policy_response_token_logps: Tokens,
    old_response_token_logps: Tokens,
    ref_response_token_logps: Tokens,
    policy_response_token_values: Tokens,
    old_response_token_values: Tokens,
    response_scores: Float[Tensor, " pairs"],
    response_token_mask: Mask,
    *,
    kl_coef: Annotated[float, Field(ge=0)] = 0.05,
    kl_estimator: Estimator = "k1",
    gamma: Annotated[float, Field(ge=0, le=1)] = 1.0,
    lam: Annotated[float, Field(ge=0, le=1)] = 0.95,
    cliprange: Annotated[float, Field(gt=0, lt=1)] = 0.2,
    cliprange_value: Annotated[float, Field(gt=0)] = 0.2,
    vf_coef: Annotated[float, Field(ge=0)] = 0.1,
    whiten_advantages: bool = True,
) -> Float[Tensor, " pairs"]:
    r"""Clipped policy and value losses of answers that an older policy sampled, paid by a reward minus KL.

    With q_t = pi(y_t) / pi_old(y_t), k_t the KL estimate of pi_old, R_t = -kl_coef * k_t and the score added to the
    last, A_t the advantage of R and V_old, G_t = A_t + V_old_t, and N the counted tokens of the step:

        policy_t = max(-A_t * q_t, -A_t * clip(q_t, 1 - e, 1 + e))
        value_t  = 0.5 * max((V_t - G_t)^2, (clip(V_t, V_old_t - e_v, V_old_t + e_v) - G_t)^2)
        loss     = examples / N * sum_t (policy_t + vf_coef * value_t)

    so that the mean over the examples is the mean over the tokens. Rewards, advantages and returns are constants; A is
    whitened over the step's tokens in policy_t.

    Limits: at pi = pi_old the gradient of an answer's log-probabilities is -A_t / N, plain policy gradient. lam = 1
    with gamma = 1 takes what was really paid minus V; lam = 0 trusts V after one step.

    Args:
        policy_response_token_logps: log pi(y_t | prompt, y_<t); gradient flows.
        old_response_token_logps: the same under the policy that sampled; no gradient.
        ref_response_token_logps: the same under the frozen reference; no gradient.
        policy_response_token_values: V_t, of the value head before each token; gradient flows.
        old_response_token_values: V_old_t, when the answers were sampled; no gradient.
        response_scores: what the reward model gave the answer.
        response_token_mask: which tokens are counted, one after the other, EOS included.
        kl_coef: reward that a nat of KL costs, >= 0.
        kl_estimator: `k1` is the log-ratio, `k3` is never negative.
        gamma: discount of rewards to come.
        lam: of the advantage estimate.
        cliprange: e, how far a token's probability ratio is rewarded.
        cliprange_value: e_v, how far a value may move in a step at no cost.
        vf_coef: weight of the value loss, >= 0.
        whiten_advantages: advantages of mean 0 and variance 1 over the step's tokens, of which it needs two.

    Returns:
        Loss of each answer.

    Example:
        >>> import torch
        >>> zero, mask = torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool)
        >>> ppo(zero, zero, zero, zero, zero, torch.ones(1), mask, vf_coef=0.0, lam=1.0, whiten_advantages=False)
        tensor([-1.])
    """
    terms = ppo_terms(
        policy_response_token_logps,
        old_response_token_logps,
        ref_response_token_logps,
        policy_response_token_values,
        old_response_token_values,
        response_scores,
        response_token_mask,
        kl_coef=kl_coef,
        kl_estimator=kl_estimator,
        gamma=gamma,
        lam=lam,
        cliprange=cliprange,
        cliprange_value=cliprange_value,
        whiten_advantages=whiten_advantages,
    )
    of_tokens = terms.policy_losses + vf_coef * terms.value_losses
    return masked_sum(of_tokens, response_token_mask) * len(response_token_mask) / response_token_mask.sum()


# -------------------------------------------------------------------------------------------------------------- RLOO


@dataclass(frozen=True)
class RlooTerms:
    """Everything that RLOO computes about each answer; only the loss carries gradient."""

    rewards: Float[Tensor, " pairs"]
    advantages: Float[Tensor, " pairs"]
    losses: Float[Tensor, " pairs"]


def leave_one_out_advantages(
    rewards: Float[Tensor, " pairs"], *, num_samples: int, normalize: bool
) -> Float[Tensor, " pairs"]:
    """Each reward minus the mean of the other samples of its prompt, K / (K - 1) * (R - mean R).

    Args:
        rewards: the `num_samples` samples of a prompt one after the other.
        num_samples: K, >= 2.
        normalize: divide by the standard deviation over the batch plus 1e-4.
    """
    groups = rewards.view(-1, num_samples)
    advantages = (num_samples / (num_samples - 1) * (groups - groups.mean(1, keepdim=True))).flatten()
    return advantages / (advantages.std() + 1e-4) if normalize else advantages


def rloo(
    policy_response_logps: Float[Tensor, " pairs"],
    old_response_logps: Float[Tensor, " pairs"],
    ref_response_logps: Float[Tensor, " pairs"],
    response_scores: Float[Tensor, " pairs"],
    *,
    num_samples: int = 4,
    kl_coef: float = 0.05,
    normalize_advantages: bool = False,
) -> RlooTerms:
    r"""REINFORCE with the other samples of a prompt as the baseline (arXiv:2402.14740).

    With R = score - kl_coef * (log pi_old(y|x) - log pi_ref(y|x)) and A the leave-one-out advantage of R:

        loss = -A * log pi(y|x)

    Only the gradient means something. The advantages of a prompt sum to 0, so that equal rewards teach nothing and a
    constant added to a prompt's scores changes nothing.

    Args:
        policy_response_logps: log pi(y | prompt), summed over tokens; gradient flows.
        old_response_logps: the same under the policy that sampled; no gradient.
        ref_response_logps: the same under the frozen reference; no gradient.
        response_scores: what the reward model gave the answer; samples of one prompt one after the other.
        num_samples: K, >= 2.
        kl_coef: reward that a nat of log-ratio costs.
        normalize_advantages: divide advantages by their standard deviation over the batch plus 1e-4.
    """
    rewards = response_scores - kl_coef * (old_response_logps - ref_response_logps)
    advantages = leave_one_out_advantages(rewards, num_samples=num_samples, normalize=normalize_advantages)
    return RlooTerms(rewards, advantages, -advantages * policy_response_logps)


def rloo_clipped(
    policy_response_logps: Float[Tensor, " pairs"],
    old_response_logps: Float[Tensor, " pairs"],
    ref_response_logps: Float[Tensor, " pairs"],
    response_scores: Float[Tensor, " pairs"],
    *,
    num_samples: int = 4,
    kl_coef: float = 0.05,
    cliprange: float = 0.2,
    normalize_advantages: bool = False,
) -> RlooTerms:
    r"""RLOO for several updates on the same samples, clipped as PPO is, with one ratio for a whole answer (TRL).

    With q = pi(y|x) / pi_old(y|x), and A as in `rloo`:

        loss = -min(q * A, clip(q, 1 - e, 1 + e) * A)

    Args:
        policy_response_logps: log pi(y | prompt), summed over tokens; gradient flows.
        old_response_logps: the same under the policy that sampled; no gradient.
        ref_response_logps: the same under the frozen reference; no gradient.
        response_scores: what the reward model gave the answer; samples of one prompt one after the other.
        num_samples: K, >= 2.
        kl_coef: reward that a nat of log-ratio costs.
        cliprange: e, how far an answer's probability ratio is rewarded.
        normalize_advantages: divide advantages by their standard deviation over the batch plus 1e-4.
    """
    rewards = response_scores - kl_coef * (old_response_logps - ref_response_logps)
    advantages = leave_one_out_advantages(rewards, num_samples=num_samples, normalize=normalize_advantages)
    losses = clipped_surrogate(policy_response_logps - old_response_logps, advantages, cliprange=cliprange)
    return RlooTerms(rewards, advantages, losses)

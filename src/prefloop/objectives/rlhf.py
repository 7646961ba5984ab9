"""The policy step of the classical pipeline, PPO and RLOO, with everything that they compute on the way."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from prefloop.objectives.pieces import masked_sum
from prefloop.objectives.registry import Elsewhere, objective

Tokens = Float[Tensor, "pairs response_tokens"]
Mask = Bool[Tensor, "pairs response_tokens"]
Samples = Float[Tensor, "pairs ranks"]
SampleMask = Bool[Tensor, "pairs ranks"]
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


def whitened(values: Tokens, mask: Mask, *, keep_mean: bool = False) -> Tokens:
    """Values of mean 0 and variance 1 over all counted tokens: (A - mean) / sqrt(var + 1e-8), unbiased variance.

    With `keep_mean` the mean is added again, so that rewards keep their sign on average (arXiv:1909.08593's code).
    """
    counted = values[mask]
    if len(counted) < 2:
        raise ValueError(
            "whitening needs two tokens at least; whiten_advantages=False and whiten_rewards=False take one"
        )
    mean = counted.mean()
    scaled = (values - mean) / (counted.var() + 1e-8).sqrt()
    return (scaled + mean if keep_mean else scaled).masked_fill(~mask, 0.0)


def adapted_kl_coef(kl_coef: float, *, kl: float, target: float, num_steps: int, horizon: int) -> float:
    """The KL coefficient after a batch whose mean KL was `kl`: up where it is above target, by a fifth of it at most.

    kl_coef * (1 + clip(kl / target - 1, -0.2, 0.2) * num_steps / horizon), num_steps episodes of a horizon of many.
    """
    return kl_coef * (1 + min(max(kl / target - 1, -0.2), 0.2) * num_steps / horizon)


@dataclass(frozen=True)
class KlController:
    """The KL coefficient of PPO, moved after every optimiser step towards what gives the target."""

    kl_coef: float

    @classmethod
    def initial(cls, hyper: Mapping[str, Any]) -> "KlController":
        """It starts from the recipe's coefficient."""
        return cls(hyper["kl_coef"])

    def updated(
        self,
        *,
        old_response_token_logps: Tokens,
        ref_response_token_logps: Tokens,
        response_token_mask: Mask,
        kl_target: float,
        kl_horizon: int,
    ) -> "KlController":
        """By the mean KL of a step's answers from the reference, under the policy that sampled them."""
        log_ratios = (old_response_token_logps - ref_response_token_logps).masked_fill(~response_token_mask, 0.0)
        kl, answers = log_ratios.sum(1).mean().item(), len(log_ratios)
        return KlController(
            adapted_kl_coef(self.kl_coef, kl=kl, target=kl_target, num_steps=answers, horizon=kl_horizon)
        )


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
    """Whitened, where they are."""
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
    whiten_rewards: bool = False,
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
    rewards = whitened(rewards, mask, keep_mean=True) if whiten_rewards else rewards
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
                "whiten_rewards": "whiten_rewards",
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
    whiten_rewards: bool = False,
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
        whiten_rewards: R of variance 1 over the step's tokens, its mean kept, before advantages are made of it.

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
        whiten_rewards=whiten_rewards,
    )
    of_tokens = terms.policy_losses + vf_coef * terms.value_losses
    return masked_sum(of_tokens, response_token_mask) * len(response_token_mask) / response_token_mask.sum()


@objective(
    source="arXiv:1909.08593 section 2.2; the rest as ppo",
    couples_batch=True,
    state=KlController,
    exponential="the ratio of the policy to the one that sampled is an exponential, unclipped on the harmful side",
)
def ppo_adaptive_kl(
    policy_response_token_logps: Tokens,
    old_response_token_logps: Tokens,
    ref_response_token_logps: Tokens,
    policy_response_token_values: Tokens,
    old_response_token_values: Tokens,
    response_scores: Float[Tensor, " pairs"],
    response_token_mask: Mask,
    state: KlController,
    *,
    kl_coef: Annotated[float, Field(gt=0)] = 0.15,
    kl_target: Annotated[float, Field(gt=0)] = 6.0,
    kl_horizon: Annotated[int, Field(ge=1)] = 10_000,
    kl_estimator: Estimator = "k1",
    gamma: Annotated[float, Field(ge=0, le=1)] = 1.0,
    lam: Annotated[float, Field(ge=0, le=1)] = 0.95,
    cliprange: Annotated[float, Field(gt=0, lt=1)] = 0.2,
    cliprange_value: Annotated[float, Field(gt=0)] = 0.2,
    vf_coef: Annotated[float, Field(ge=0)] = 0.1,
    whiten_advantages: bool = True,
    whiten_rewards: bool = False,
) -> Float[Tensor, " pairs"]:
    r"""PPO whose price of KL follows a target: `ppo` with a coefficient that moves after every optimiser step.

    With KL the mean of sum_t (log pi_old(y_t) - log pi_ref(y_t)) over the answers of optimiser step s, n their number,
    and c_0 the recipe's kl_coef:

        c_s  = c_{s-1} * (1 + clip(KL / kl_target - 1, -0.2, 0.2) * n / kl_horizon)
        loss = that of ppo with kl_coef = c_s

    The coefficient goes on over the blocks of a round and begins anew with the next round.

    Limits: an endless horizon gives `ppo`.

    Args:
        policy_response_token_logps: log pi(y_t | prompt, y_<t); gradient flows.
        old_response_token_logps: the same under the policy that sampled; no gradient.
        ref_response_token_logps: the same under the frozen reference; no gradient.
        policy_response_token_values: V_t, of the value head before each token; gradient flows.
        old_response_token_values: V_old_t, when the answers were sampled; no gradient.
        response_scores: what the reward model gave the answer.
        response_token_mask: which tokens are counted, one after the other, EOS included.
        state: the coefficient of this step.
        kl_coef: the coefficient of the first step, > 0.
        kl_target: nats an answer that are aimed at, > 0.
        kl_horizon: answers over which an error is answered; one that is trained on in four epochs counts four times.
        kl_estimator: `k1` is the log-ratio, `k3` is never negative.
        gamma: discount of rewards to come.
        lam: of the advantage estimate.
        cliprange: how far a token's probability ratio is rewarded.
        cliprange_value: how far a value may move in a step at no cost.
        vf_coef: weight of the value loss, >= 0.
        whiten_advantages: advantages of mean 0 and variance 1 over the step's tokens, of which it needs two.
        whiten_rewards: rewards of variance 1 over the step's tokens, their mean kept.

    Returns:
        Loss of each answer.

    Example:
        >>> import torch
        >>> from prefloop.objectives import KlController
        >>> zero, mask = torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool)
        >>> given = (zero, zero, zero, zero, zero, torch.ones(1), mask, KlController(0.1))
        >>> ppo_adaptive_kl(*given, vf_coef=0.0, lam=1.0, whiten_advantages=False)
        tensor([-1.])
    """
    del kl_coef, kl_target, kl_horizon  # the state's
    return ppo(
        policy_response_token_logps,
        old_response_token_logps,
        ref_response_token_logps,
        policy_response_token_values,
        old_response_token_values,
        response_scores,
        response_token_mask,
        kl_coef=state.kl_coef,
        kl_estimator=kl_estimator,
        gamma=gamma,
        lam=lam,
        cliprange=cliprange,
        cliprange_value=cliprange_value,
        vf_coef=vf_coef,
        whiten_advantages=whiten_advantages,
        whiten_rewards=whiten_rewards,
    )


# -------------------------------------------------------------------------------------------------------------- RLOO


@dataclass(frozen=True)
class RlooTerms:
    """Everything that RLOO computes about each sample; only the loss carries gradient."""

    rewards: Samples
    advantages: Samples
    losses: Samples
    """0 where there is no sample."""

    def of_examples(self, mask: SampleMask) -> Float[Tensor, " pairs"]:
        """A loss a prompt, whose mean over the prompts is the mean over all samples."""
        return self.losses.sum(1) * len(mask) / mask.sum()


def leave_one_out_advantages(rewards: Samples, mask: SampleMask, *, normalize: bool) -> Samples:
    """Each reward minus the mean of the other samples of its prompt, K / (K - 1) * (R - mean R).

    Args:
        rewards: of the samples of each prompt.
        mask: which samples a prompt has; the only one of a prompt has nothing to be compared with, and gets 0.
        normalize: divide by the standard deviation over all samples of the step plus 1e-4.
    """
    rewards = rewards.masked_fill(~mask, 0.0)
    others = (rewards.sum(1, keepdim=True) - rewards) / (mask.sum(1, keepdim=True) - 1).clamp(min=1)
    compared = mask & (mask.sum(1, keepdim=True) > 1)
    advantages = (rewards - others).masked_fill(~compared, 0.0)
    return advantages / (advantages[mask].std() + 1e-4) if normalize else advantages


def rloo_terms(
    policy_sampled_logps: Samples,
    old_sampled_logps: Samples,
    ref_sampled_logps: Samples,
    sampled_scores: Samples,
    sampled_mask: SampleMask,
    *,
    kl_coef: float,
    normalize_advantages: bool,
    cliprange: float | None = None,
) -> RlooTerms:
    """The steps of RLOO's loss; `rloo` puts them together, and `rloo_clipped` where there is a clip range."""
    rewards = (sampled_scores - kl_coef * (old_sampled_logps - ref_sampled_logps)).masked_fill(~sampled_mask, 0.0)
    advantages = leave_one_out_advantages(rewards, sampled_mask, normalize=normalize_advantages)
    if cliprange is None:
        losses = -advantages * policy_sampled_logps
    else:
        log_ratios = (policy_sampled_logps - old_sampled_logps).masked_fill(~sampled_mask, 0.0)
        losses = clipped_surrogate(log_ratios, advantages, cliprange=cliprange)
    return RlooTerms(rewards, advantages, losses.masked_fill(~sampled_mask, 0.0))


@objective(source="arXiv:2402.14740 eq. 8", couples_batch=True)
def rloo(
    policy_sampled_logps: Samples,
    old_sampled_logps: Samples,
    ref_sampled_logps: Samples,
    sampled_scores: Samples,
    sampled_mask: SampleMask,
    *,
    kl_coef: Annotated[float, Field(ge=0)] = 0.05,
    normalize_advantages: bool = False,
) -> Float[Tensor, " pairs"]:
    r"""REINFORCE with the other samples of a prompt as the baseline: no value head.

    With R = score - kl_coef * (log pi_old(y|x) - log pi_ref(y|x)), A = R minus the mean R of the prompt's other
    samples, and N the samples of the step:

        loss = prompts / N * sum_k -A_k * log pi(y_k|x)

    so that the mean over the prompts is the mean over the samples. Only the gradient means something: one step on
    samples of the policy as it is. For several there is `rloo_clipped`, which has the same gradient at pi = pi_old.

    Limits: the advantages of a prompt sum to 0, so that equal rewards teach nothing and a constant added to a prompt's
    scores changes nothing; two samples are set against each other.

    Args:
        policy_sampled_logps: log pi(y | prompt), summed over tokens; gradient flows.
        old_sampled_logps: the same under the policy that sampled; no gradient.
        ref_sampled_logps: the same under the frozen reference; no gradient.
        sampled_scores: what the reward model gave each sample.
        sampled_mask: which samples a prompt has.
        kl_coef: reward that a nat of log-ratio costs, >= 0.
        normalize_advantages: divide advantages by their standard deviation over the step plus 1e-4.

    Returns:
        Loss of each prompt.

    Example:
        >>> import torch
        >>> logps, two = torch.tensor([[-1.0, -3.0]]), torch.ones(1, 2, dtype=torch.bool)
        >>> rloo(logps, logps, logps, torch.tensor([[1.0, 0.0]]), two)
        tensor([-1.])
    """
    terms = rloo_terms(
        policy_sampled_logps,
        old_sampled_logps,
        ref_sampled_logps,
        sampled_scores,
        sampled_mask,
        kl_coef=kl_coef,
        normalize_advantages=normalize_advantages,
    )
    return terms.of_examples(sampled_mask)


@objective(
    source="arXiv:2402.14740, clipped as arXiv:1707.06347 eq. 7 by a whole answer's ratio",
    elsewhere=(
        Elsewhere(
            "TRL",
            "RLOOTrainer",
            {"kl_coef": "beta", "cliprange": "epsilon", "normalize_advantages": "normalize_advantages"},
        ),
    ),
    couples_batch=True,
    exponential="the ratio of the policy to the one that sampled is an exponential, unclipped on the harmful side",
)
def rloo_clipped(
    policy_sampled_logps: Samples,
    old_sampled_logps: Samples,
    ref_sampled_logps: Samples,
    sampled_scores: Samples,
    sampled_mask: SampleMask,
    *,
    kl_coef: Annotated[float, Field(ge=0)] = 0.05,
    cliprange: Annotated[float, Field(gt=0, lt=1)] = 0.2,
    normalize_advantages: bool = False,
) -> Float[Tensor, " pairs"]:
    r"""RLOO for several updates on the same samples, clipped as PPO is, with one ratio for a whole answer.

    With q = pi(y|x) / pi_old(y|x), and A and N as in `rloo`:

        loss = prompts / N * sum_k -min(q_k * A_k, clip(q_k, 1 - e, 1 + e) * A_k)

    Limits: at pi = pi_old the loss is 0 and its gradient that of `rloo`.

    Args:
        policy_sampled_logps: log pi(y | prompt), summed over tokens; gradient flows.
        old_sampled_logps: the same under the policy that sampled; no gradient.
        ref_sampled_logps: the same under the frozen reference; no gradient.
        sampled_scores: what the reward model gave each sample.
        sampled_mask: which samples a prompt has.
        kl_coef: reward that a nat of log-ratio costs, >= 0.
        cliprange: e, how far an answer's probability ratio is rewarded.
        normalize_advantages: divide advantages by their standard deviation over the step plus 1e-4.

    Returns:
        Loss of each prompt.

    Example:
        >>> import torch
        >>> logps, two = torch.tensor([[-1.0, -3.0]]), torch.ones(1, 2, dtype=torch.bool)
        >>> rloo_clipped(logps, logps, logps, torch.tensor([[1.0, 0.0]]), two)
        tensor([0.])
    """
    terms = rloo_terms(
        policy_sampled_logps,
        old_sampled_logps,
        ref_sampled_logps,
        sampled_scores,
        sampled_mask,
        kl_coef=kl_coef,
        normalize_advantages=normalize_advantages,
        cliprange=cliprange,
    )
    return terms.of_examples(sampled_mask)

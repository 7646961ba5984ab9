"""Games over a few items, solved exactly: soft policy iteration, and the optima of self-play."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, fsum, log

Policy = Sequence[float]
"""Probabilities of the items."""


@dataclass(frozen=True)
class PolicyIteration:
    """What became of the policies, round by round."""

    rewards: list[list[float]]
    """Win rate of each item against the policy of the round."""
    policies: list[list[float]]
    """The first one, and the one after each round."""
    win_rate_of_next_over_current: list[float]
    kl_next_current: list[float]
    """KL(next || current), nats."""
    average_policy: list[float]
    """Of the policies that rounds began with."""
    exploitability_of_average: float
    """Win rate of the best answer to it, less 1/2."""


def soft_policy_iteration(
    preference: Sequence[Sequence[float]], initial_policy: Policy, *, eta: float, iterations: int
) -> PolicyIteration:
    """Pi' proportional to pi * exp(P pi / eta), so many times (DNO, arXiv:2404.03715, equation 4).

    Args:
        preference: P(i is preferred to j).
        initial_policy: which the first round begins with.
        eta: temperature of the win rates.
        iterations: rounds, at least one.
    """
    policies = [list(initial_policy)]
    rewards: list[list[float]] = []
    for _ in range(iterations):
        rewards.append(_against(preference, policies[-1]))
        policies.append(tilted(policies[-1], rewards[-1], eta))
    average = [fsum(column) / iterations for column in zip(*policies[:-1], strict=True)]
    steps = list(zip(policies[1:], policies[:-1], strict=True))
    return PolicyIteration(
        rewards,
        policies,
        [
            fsum(p * r for p, r in zip(new, reward, strict=True))
            for (new, _), reward in zip(steps, rewards, strict=True)
        ],
        [fsum(p * log(p / q) for p, q in zip(new, old, strict=True) if p) for new, old in steps],
        average,
        max(_against(preference, average)) - 0.5,
    )


def _against(preference: Sequence[Sequence[float]], policy: Policy) -> list[float]:
    """Win rate of each item against a policy."""
    return [fsum(p * q for p, q in zip(row, policy, strict=True)) for row in preference]


def tilted(policy: Policy, reward: Sequence[float], temperature: float) -> list[float]:
    """Proportional to policy * exp(reward / temperature)."""
    return normalised([log(p) + r / temperature if p else -float("inf") for p, r in zip(policy, reward, strict=True)])


def normalised(logits: Sequence[float]) -> list[float]:
    """Probabilities of logits."""
    top = max(logits)
    weights = [exp(logit - top) for logit in logits]
    return [weight / fsum(weights) for weight in weights]


def self_play_optimum(reference: Policy, chosen: Policy, rejected: Policy, beta: float) -> list[float]:
    """Proportional to reference * (p / q)^(1/beta): DPO's optimum with chosen ~ p and rejected ~ q (SPRec, SAPO).

    Args:
        reference: all of its items have some probability, as have those of `rejected`.
        chosen: p.
        rejected: q.
        beta: of DPO.
    """
    ratios = [log(p / q) if p else -float("inf") for p, q in zip(chosen, rejected, strict=True)]
    return tilted(reference, ratios, beta)


def prompted_optimum(reference: Policy, plus: Policy, minus: Policy, *, gap: float, beta: float) -> list[float]:
    """Proportional to reference * (plus / minus)^(gap/beta): the gap is a scale of the reward (SRPO by prompting)."""
    ratios = [gap * log(p / q) for p, q in zip(plus, minus, strict=True)]
    return tilted(reference, ratios, beta)

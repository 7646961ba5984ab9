"""Estimators of KL(policy || reference), in nats, from samples of the policy.

The samples must be drawn at temperature 1 and top-p 1: otherwise they are not samples of the policy whose
log-probabilities are taken. A log-ratio is log pi(y|x) - log pi_ref(y|x), summed over the tokens of the response with
its EOS (or that of one token, for KL per token).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Shaped

from prefloop.statistics.arrays import Floats, Labels
from prefloop.statistics.bootstrap import ClusteredEstimate, clustered_mean


@dataclass(frozen=True)
class AnswerKl:
    """What one sampled answer says of the KL of the sequences, in nats, three ways; each is unbiased."""

    exact: float
    """The KL of the next token over the whole vocabulary, summed over the positions that the answer visits (its
    Rao-Blackwellised estimate): never negative, and with the least variance of the three."""

    k1: float
    """The log-ratio of the answer."""

    k3: float
    """`k3` of each token, summed: never negative."""


@dataclass(frozen=True)
class KlEstimate:
    """One KL, estimated three ways from the same samples. In nats."""

    k1: ClusteredEstimate
    """Unbiased."""

    k2: ClusteredEstimate
    """Biased, small variance; close only while policy and reference are."""

    k3: ClusteredEstimate
    """Unbiased and never negative, but heavy-tailed where the reference is likelier than the policy."""


def k1(log_ratios: Float64[Floats, "*shape"]) -> Float64[Floats, "*shape"]:
    """d, elementwise. Unbiased; can be negative."""
    return log_ratios


def k2(log_ratios: Float64[Floats, "*shape"]) -> Float64[Floats, "*shape"]:
    """d^2 / 2, elementwise. Biased: exact to second order in d."""
    return log_ratios**2 / 2.0


def k3(log_ratios: Float64[Floats, "*shape"]) -> Float64[Floats, "*shape"]:
    """exp(-d) - 1 + d >= 0, elementwise. Unbiased."""
    return np.expm1(-log_ratios) + log_ratios


def kl_estimate(
    log_ratios: Float64[Floats, " samples"], clusters: Shaped[Labels, " samples"], *, level: float = 0.95
) -> KlEstimate:
    """Mean KL over samples, with standard errors over prompts.

    Args:
        log_ratios: log pi(y|x) - log pi_ref(y|x) of each sample of pi, in nats.
        clusters: The prompt of each sample.
        level: Coverage of the intervals.

    Returns:
        The three estimates.

    Raises:
        ValueError: there are no samples, or a log-ratio is NaN.
    """
    return KlEstimate(
        k1=clustered_mean(k1(log_ratios), clusters, level=level),
        k2=clustered_mean(k2(log_ratios), clusters, level=level),
        k3=clustered_mean(k3(log_ratios), clusters, level=level),
    )

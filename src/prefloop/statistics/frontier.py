"""Reward against KL: the upper envelope of a method's points, and best-of-n, which every method is held against."""

from collections.abc import Callable, Sequence
from math import lgamma, log, sqrt

import numpy as np
from jaxtyping import Float64, Int
from scipy.special import gammaln, ndtr, stdtrit

from prefloop.statistics.arrays import Floats, Numbers


def envelope(kl: Float64[Floats, " points"], reward: Float64[Floats, " points"]) -> Int[Numbers, " kept"]:
    """Numbers of the points that no other one dominates, by rising KL.

    A point is dominated by one with no more KL and no less reward; of equal points the first is kept.

    Raises:
        ValueError: there are no points, or one is not a number.
    """
    if kl.size == 0 or not bool(np.all(np.isfinite(kl)) and np.all(np.isfinite(reward))):
        raise ValueError("points must be numbers, and at least one")
    kept: list[int] = []
    for index in np.lexsort((np.arange(kl.size), -reward, kl)):
        if not kept or reward[index] > reward[kept[-1]]:
            kept.append(int(index))
    return np.array(kept, np.int64)


def reward_at_kl(
    kl: Float64[Floats, " points"], reward: Float64[Floats, " points"], at: Sequence[float]
) -> Float64[Floats, " at"]:
    """Reward at given KL, linear between points of the envelope; NaN below its first and beyond its last point."""
    kept = envelope(kl, reward)
    return np.interp(np.array(at, np.float64), kl[kept], reward[kept], left=np.nan, right=np.nan)


def area_under_envelope(kl: Float64[Floats, " points"], reward: Float64[Floats, " points"], *, up_to: float) -> float:
    """Integral of the envelope from its first point to a KL, in reward times nats.

    Beyond its last point the envelope goes on level: a policy that is there may be kept.

    Raises:
        ValueError: `up_to` lies before the first point.
    """
    kept = envelope(kl, reward)
    x, y = kl[kept], reward[kept]
    if up_to < x[0]:
        raise ValueError(f"up_to is {up_to}, and the envelope begins at {x[0]}")
    inside = x < up_to
    x = np.append(x[inside], up_to)
    y = np.append(y[inside], np.interp(up_to, kl[kept], y))
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))


def frontier_band(
    kl: Float64[Floats, "prompts points"],
    reward: Float64[Floats, "prompts points"],
    statistic: Callable[[Float64[Floats, " points"], Float64[Floats, " points"]], Float64[Floats, " values"]],
    *,
    seed: int,
    draws: int = 1000,
    level: float = 0.95,
) -> tuple[Float64[Floats, " values"], Float64[Floats, " values"], Float64[Floats, " values"]]:
    """Numbers of a frontier with their percentile band over prompts: all points of a prompt are drawn together.

    The percentiles are expanded (Hesterberg 2015, arXiv:1411.5279, section 4.6): resamples of n prompts vary by
    (n - 1) / n too little, and a normal's tails are taken for Student's. A resample whose envelope does not reach a KL
    says nothing of it.

    Args:
        kl: Of each prompt and point, such as a round or a beta, in nats.
        reward: The same of rewards.
        statistic: From means over prompts to numbers: `lambda kl, r: reward_at_kl(kl, r, (1, 2, 5))`, an area, or the
            difference of two methods at equal KL, whose points are then columns side by side.
        seed: The same seed draws the same prompts.
        draws: Number of resamples, >= 2.
        level: Coverage of the band, in (0, 1).

    Returns:
        The numbers, and the lower and the upper end of their band; NaN where the frontier does not reach, and both ends
        with a single prompt.

    Raises:
        ValueError: there is no prompt, the shapes differ, or `draws` or `level` is out of range.
    """
    count = kl.shape[0]
    if kl.shape != reward.shape or count == 0:
        raise ValueError("kl and reward must have one shape, and at least one prompt")
    if draws <= 1 or not 0 < level < 1:
        raise ValueError(f"draws is {draws} and level {level}, expected >= 2 and in (0, 1)")
    value = statistic(kl.mean(0), reward.mean(0))
    if count == 1:
        return value, np.full_like(value, np.nan), np.full_like(value, np.nan)
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1.0 / count), size=draws) / count
    found = np.stack([statistic(one @ kl, one @ reward) for one in weights])
    known = ~np.isnan(value)
    low, high = np.full_like(value, np.nan), np.full_like(value, np.nan)
    if bool(known.any()):
        students = float(np.asarray(stdtrit(count - 1, 0.5 + level / 2), np.float64))
        tail = float(np.asarray(ndtr(-sqrt(count / (count - 1)) * students), np.float64))
        low[known], high[known] = np.nanquantile(found[:, known], [tail, 1.0 - tail], axis=0)
    return value, low, high


def best_of_n_kl(n: int) -> float:
    """KL of the best of n samples to their source, log n - (n - 1)/n nats: exact without ties, an upper bound with.

    Raises:
        ValueError: n < 1.
    """
    if n < 1:
        raise ValueError(f"n is {n}, expected >= 1")
    return log(n) - (n - 1) / n


def best_of_n_distribution(
    probabilities: Float64[Floats, " answers"], rewards: Float64[Floats, " answers"], n: int
) -> Float64[Floats, " answers"]:
    r"""Distribution of the best of n independent samples of a discrete policy.

        P(best is y) = (F(y)^n - F(y-)^n) * p(y) / (F(y) - F(y-))

    with F(y) = P(reward <= r(y)) and F(y-) = P(reward < r(y)): of equally good answers the first sampled is taken.

    Args:
        probabilities: Of the policy, summing to 1.
        rewards: Of the answers.
        n: Samples, >= 1.

    Raises:
        ValueError: the probabilities are none, or n < 1.
    """
    if n < 1 or not bool(np.all(probabilities >= 0)) or abs(float(probabilities.sum()) - 1.0) > 1e-9:
        raise ValueError("probabilities must be >= 0 and sum to 1, and n >= 1")
    _, rank = np.unique(rewards, return_inverse=True)
    mass = np.bincount(rank, weights=probabilities)
    until = np.minimum(np.cumsum(mass), 1.0)
    before = np.concatenate([[0.0], until[:-1]])
    won = until**n - before**n
    return probabilities * np.where(mass > 0, won / np.where(mass > 0, mass, 1.0), 0.0)[rank]


def exact_kl(
    log_p: Float64[Floats, "*#batch outcomes"], log_q: Float64[Floats, "*#batch outcomes"]
) -> Float64[Floats, "*batch"]:
    """KL(p || q) in nats from log-probabilities of all outcomes; outcomes that p never has add 0.

    Over the vocabulary at each position of sampled answers and summed over positions, it is the Rao-Blackwellised
    estimate of the sequences' KL: unbiased, never negative, with less variance than the log-ratio.
    """
    present = np.isfinite(log_p)
    gaps = np.where(present, log_p, 0.0) - np.where(present, log_q, 0.0)
    return np.asarray((np.where(present, np.exp(log_p), 0.0) * gaps).sum(-1))


def best_of_n_mean(
    values: Float64[Floats, " samples"], n: int, *, ranked_by: Float64[Floats, " samples"] | None = None
) -> float:
    r"""Unbiased estimate of the expected value of the best of n samples, from N >= n samples of one prompt.

        sum_i C(i - 1, n - 1) / C(N, n) * value of the i-th smallest

    the mean over all subsets of size n. Samples that are ranked equal share their places.

    Args:
        values: What is averaged, such as a gold reward.
        n: How many are drawn, 1 <= n <= N.
        ranked_by: What the best is chosen by, such as a proxy reward; the values themselves by default.

    Raises:
        ValueError: n is out of range.
    """
    count = values.size
    if not 1 <= n <= count:
        raise ValueError(f"n is {n}, expected 1 to {count}, the number of samples")
    ranks = np.arange(1, count + 1, dtype=np.float64)
    weights = np.zeros(count)
    at = ranks >= n
    chosen = gammaln(ranks[at]) - gammaln(ranks[at] - n + 1) - lgamma(n)
    weights[at] = np.exp(chosen - (lgamma(count + 1) - lgamma(n + 1) - lgamma(count - n + 1)))
    key = values if ranked_by is None else ranked_by
    _, place, sizes = np.unique(key, return_inverse=True, return_counts=True)
    shared = np.add.reduceat(weights, np.concatenate([[0], np.cumsum(sizes)[:-1]])) / sizes
    return float((shared[place] * values).sum())

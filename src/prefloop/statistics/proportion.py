"""The uncertainty of a share: of independent rows, of rows in clusters, and of a mean of several shares."""

from collections.abc import Sequence
from dataclasses import replace
from math import sqrt

import numpy as np
from jaxtyping import Float64, Shaped
from scipy.optimize import brentq
from scipy.special import betainc, ndtri

from prefloop.statistics.arrays import Floats, Labels
from prefloop.statistics.bootstrap import ClusteredEstimate, bca_bootstrap


def wilson_interval(share: float, count: int, *, level: float = 0.95) -> tuple[float, float]:
    r"""Wilson's score interval of a share (Wilson 1927), which stays inside [0, 1] and is right at 0 and 1 too.

        (share + z^2 / 2n +- z * sqrt(share * (1 - share) / n + z^2 / 4n^2)) / (1 + z^2 / n)

    Args:
        share: What was observed, in [0, 1].
        count: n, the number of independent rows.
        level: Coverage, in (0, 1).

    Returns:
        The lower and the upper bound.

    Raises:
        ValueError: there is no row, or a value is out of range.
    """
    _check(share, count, level)
    z = float(ndtri((1 + level) / 2))
    middle = share + z**2 / (2 * count)
    half = z * sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    scale = 1 + z**2 / count
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def mid_p_interval(share: float, count: int, *, level: float = 0.95) -> tuple[float, float]:
    r"""The interval of a share whose two tail tests count half of what was observed (mid-P, Lancaster 1961).

    With k = share * n it ends where

        P(X > k) + P(X = k) / 2 = (1 - level) / 2  below,  P(X < k) + P(X = k) / 2 = (1 - level) / 2  above

    for binomial X, and at 0 and 1 where k is 0 or n. By enumeration for n of 20 to 200 its coverage falls less far
    below the level near 0 and 1 than Wilson's or Jeffreys' (0.92 against 0.905 and 0.88 at 95 %), and sums that are
    recovered from it cover 94.7 to 97 %.

    Args:
        share: What was observed, in [0, 1].
        count: n, the number of independent rows.
        level: Coverage, in (0, 1).

    Returns:
        The lower and the upper bound.

    Raises:
        ValueError: there is no row, or a value is out of range.
    """
    _check(share, count, level)
    seen, tail = share * count, (1 - level) / 2

    def at_least(p: float, wins: float) -> float:
        return 1.0 if wins <= 0 else 0.0 if wins > count else float(betainc(wins, count - wins + 1, p))

    def above(p: float) -> float:
        return (at_least(p, seen + 1) + at_least(p, seen)) / 2

    low = 0.0 if share == 0 else brentq(lambda p: above(p) - tail, 0.0, 1.0)
    high = 1.0 if share == 1 else brentq(lambda p: above(p) - (1 - tail), 0.0, 1.0)
    return float(low), float(high)


def _check(share: float, count: int, level: float) -> None:
    if count < 1:
        raise ValueError("there is no row")
    if not 0 <= share <= 1 or not 0 < level < 1:
        raise ValueError(f"share is {share} and level {level}, expected in [0, 1] and in (0, 1)")


def combined_interval(
    shares: Sequence[float], counts: Sequence[int], weights: Sequence[float], *, level: float = 0.95
) -> tuple[float, float]:
    r"""Interval of a weighted sum of independent shares, recovered from that of each (Zou et al. 2009, MOVER).

        low  = sum_k w_k p_k - sqrt(sum_k (w_k (p_k - l_k))^2)
        high = sum_k w_k p_k + sqrt(sum_k (w_k (u_k - p_k))^2)

    with [l_k, u_k] = `mid_p_interval`. Unlike a bootstrap it is right where every row of a part is right.

    Args:
        shares: p_k, what was observed in each part, in [0, 1].
        counts: Independent rows of each part.
        weights: w_k >= 0. With weights that sum to 1 it is the interval of a mean.
        level: Coverage, in (0, 1).

    Raises:
        ValueError: a part has no row, or a value is out of range.
    """
    if any(weight < 0 for weight in weights):
        raise ValueError("weights must be >= 0")
    low = high = 0.0
    for share, count, weight in zip(shares, counts, weights, strict=True):
        bounds = mid_p_interval(share, count, level=level)
        low += (weight * (share - bounds[0])) ** 2
        high += (weight * (bounds[1] - share)) ** 2
    value = sum(weight * share for weight, share in zip(weights, shares, strict=True))
    return value - sqrt(low), value + sqrt(high)


def clustered_share(
    values: Float64[Floats, " rows"],
    clusters: Shaped[Labels, " rows"],
    *,
    seed: int,
    draws: int = 1000,
    level: float = 0.95,
) -> ClusteredEstimate:
    """Mean of numbers in [0, 1], such as preferences or right answers, with a BCa interval over clusters.

    Where all are 0, or all are 1, resamples cannot vary, and the interval is `mid_p_interval` for as many rows as there
    are clusters.

    Args:
        values: In [0, 1], one a row.
        clusters: What rows vary together with, such as their prompt.
        seed: The same seed draws the same clusters.
        draws: Number of resamples, >= 2.
        level: Coverage, in (0, 1).

    Returns:
        The estimate, as a share. With a single cluster its uncertainty is unknown: standard error and interval NaN.

    Raises:
        ValueError: there are no rows, or a value is out of range.
    """
    if not bool(np.all((values >= 0) & (values <= 1))):
        raise ValueError("values must be in [0, 1]")

    def means(weights: Float64[Floats, "resamples rows"]) -> Float64[Floats, " resamples"]:
        return (weights @ values) / weights.sum(-1)

    found = bca_bootstrap(means, clusters, seed=seed, draws=draws, level=level)
    if found.clusters > 1 and found.value in {0.0, 1.0}:
        return replace(found, interval=mid_p_interval(found.value, found.clusters, level=level))
    return found

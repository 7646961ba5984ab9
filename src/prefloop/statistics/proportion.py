"""The uncertainty of a share: of independent rows, of rows in clusters, and of a mean of several shares."""

from collections.abc import Sequence
from dataclasses import replace
from math import sqrt

import numpy as np
from jaxtyping import Float64, Shaped
from scipy.special import ndtri

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
    if count < 1:
        raise ValueError("there is no row")
    if not 0 <= share <= 1 or not 0 < level < 1:
        raise ValueError(f"share is {share} and level {level}, expected in [0, 1] and in (0, 1)")
    z = float(ndtri((1 + level) / 2))
    middle = share + z**2 / (2 * count)
    half = z * sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    scale = 1 + z**2 / count
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def combined_interval(
    shares: Sequence[float], counts: Sequence[int], weights: Sequence[float], *, level: float = 0.95
) -> tuple[float, float]:
    r"""Interval of a weighted sum of independent shares, recovered from Wilson's of each (Zou et al. 2009, MOVER).

        low  = sum_k w_k p_k - sqrt(sum_k (w_k (p_k - l_k))^2)
        high = sum_k w_k p_k + sqrt(sum_k (w_k (u_k - p_k))^2)

    Unlike a bootstrap it is right where every row of a part is right.

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
        bounds = wilson_interval(share, count, level=level)
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

    Where all are 0, or all are 1, resamples cannot vary, and the interval is Wilson's for as many rows as there are
    clusters.

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
        return replace(found, interval=wilson_interval(found.value, found.clusters, level=level))
    return found

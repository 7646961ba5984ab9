"""Uncertainty over prompts: rows of one prompt are drawn, and vary, together."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int, Shaped
from numpy.typing import NDArray
from scipy.special import stdtrit

from prefloop.statistics.logistic import Floats

Labels = NDArray[Any]
"""Names or numbers that are equal for rows of one cluster."""

_CHUNK = 100  # resamples computed at a time: bounds the memory, changes no number


@dataclass(frozen=True)
class ClusteredEstimate:
    """A number estimated from rows in clusters, with its uncertainty. In the unit of what was estimated."""

    value: float
    standard_error: float
    interval: tuple[float, float]

    n: int
    """Rows."""

    clusters: int
    """Clusters, such as prompts: the number of independent observations."""


def clustered_mean(
    values: Float64[Floats, " rows"], clusters: Shaped[Labels, " rows"], *, level: float = 0.95
) -> ClusteredEstimate:
    r"""Mean over rows, with the cluster-robust standard error.

        variance = G / (G - 1) * sum_g (sum of residuals in cluster g)^2 / n^2

    for G clusters; with one row a cluster it is the usual s^2 / n. The interval takes Student's t with G - 1 degrees
    of freedom.

    Args:
        values: One number a row.
        clusters: The cluster of each row.
        level: Coverage of the interval, in (0, 1).

    Returns:
        The estimate. With a single cluster its uncertainty is unknown: standard error and interval are NaN.

    Raises:
        ValueError: there are no rows, a value is NaN, or `level` is out of range.
    """
    _check(values, level)
    index, count = _numbered(clusters)
    value = float(values.mean())
    if count == 1:
        return ClusteredEstimate(value, float("nan"), (float("nan"), float("nan")), values.size, count)
    residuals = np.bincount(index, weights=values - value)
    error = float(np.sqrt(count / (count - 1) * (residuals**2).sum())) / values.size
    margin = float(stdtrit(count - 1, 0.5 + level / 2)) * error
    return ClusteredEstimate(value, error, (value - margin, value + margin), values.size, count)


def cluster_bootstrap(
    statistic: Callable[[Float64[Floats, "resamples rows"]], Float64[Floats, " resamples"]],
    clusters: Shaped[Labels, " rows"],
    *,
    seed: int,
    draws: int = 1000,
    level: float = 0.95,
) -> ClusteredEstimate:
    """Percentile interval of any statistic of weighted rows, clusters resampled with replacement.

    Args:
        statistic: From row weights, how often each row was drawn, to the statistic of each resample. It is called
            with many resamples at once, and with one whose weights are 1.
        clusters: The cluster of each row.
        seed: The same seed draws the same clusters.
        draws: Number of resamples, >= 2.
        level: Share of the resamples inside the interval, in (0, 1).

    Returns:
        The statistic of the rows as they are, the standard deviation over resamples, and the percentile interval. With
        a single cluster its uncertainty is unknown: standard error and interval are NaN.

    Raises:
        ValueError: there are no rows, or `draws` or `level` is out of range.
    """
    _check(np.ones(clusters.size), level)
    if draws <= 1:
        raise ValueError(f"draws is {draws}, expected >= 2")
    index, count = _numbered(clusters)
    value = float(statistic(np.ones((1, clusters.size)))[0])
    if count == 1:
        return ClusteredEstimate(value, float("nan"), (float("nan"), float("nan")), clusters.size, count)
    generator = np.random.default_rng(seed)
    values = np.empty(draws)
    for start in range(0, draws, _CHUNK):
        size = min(_CHUNK, draws - start)
        drawn = generator.multinomial(count, np.full(count, 1.0 / count), size=size).astype(np.float64)
        values[start : start + size] = statistic(drawn[:, index])
    low, high = np.quantile(values, [0.5 - level / 2, 0.5 + level / 2])
    return ClusteredEstimate(
        value=value,
        standard_error=float(values.std(ddof=1)),
        interval=(float(low), float(high)),
        n=clusters.size,
        clusters=count,
    )


def _numbered(clusters: Shaped[Labels, " rows"]) -> tuple[Int[NDArray[np.int_], " rows"], int]:
    names, index = np.unique(clusters, return_inverse=True)
    return index, names.size


def _check(values: Float64[Floats, " rows"], level: float) -> None:
    if values.size == 0 or bool(np.isnan(values).any()):
        raise ValueError("values must be numbers, and at least one")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, expected in (0, 1)")

"""Uncertainty over prompts: rows of one prompt are drawn, and vary, together."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int, Shaped
from scipy.special import ndtr, ndtri, stdtrit

from prefloop.statistics.arrays import Floats, Labels, Numbers

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


def jackknife(
    value: float, left_out: Float64[Floats, " clusters"], rows: int, *, level: float = 0.95
) -> ClusteredEstimate:
    r"""Delete-one-cluster jackknife (Quenouille, Tukey), for statistics that resampling with repetition would shift.

        variance = (G - 1) / G * sum_g (statistic without cluster g - their mean)^2

    for G clusters; the interval takes Student's t with G - 1 degrees of freedom.

    Args:
        value: The statistic of all rows.
        left_out: The same without each cluster.
        rows: What `n` of the result says.
        level: Coverage of the interval, in (0, 1).

    Returns:
        The estimate. With a single cluster its uncertainty is unknown: standard error and interval are NaN.

    Raises:
        ValueError: there is no cluster, or `level` is out of range.
    """
    count = left_out.size
    if count == 0 or not 0 < level < 1:
        raise ValueError(f"there are {count} clusters and level is {level}, expected >= 1 and in (0, 1)")
    if count == 1:
        return ClusteredEstimate(value, float("nan"), (float("nan"), float("nan")), rows, count)
    error = float(np.sqrt((count - 1) / count * ((left_out - left_out.mean()) ** 2).sum()))
    margin = float(stdtrit(count - 1, 0.5 + level / 2)) * error
    return ClusteredEstimate(value, error, (value - margin, value + margin), rows, count)


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

    def percentiles(values: Float64[Floats, " resamples"], _value: float) -> tuple[float, float]:
        low, high = np.quantile(values, [0.5 - level / 2, 0.5 + level / 2])
        return float(low), float(high)

    return _bootstrapped(statistic, clusters, percentiles, seed=seed, draws=draws, level=level)


def bca_bootstrap(
    statistic: Callable[[Float64[Floats, "resamples rows"]], Float64[Floats, " resamples"]],
    clusters: Shaped[Labels, " rows"],
    *,
    seed: int,
    draws: int = 1000,
    level: float = 0.95,
) -> ClusteredEstimate:
    r"""Bias-corrected and accelerated interval of any statistic of weighted rows (Efron 1987), by cluster.

    The bounds are the resamples' quantiles at

        Phi(z0 + (z0 + z) / (1 - a (z0 + z))),  z = Phi^-1((1 -+ level) / 2)

    where z0 = Phi^-1(share of resamples below the estimate, equal ones counted half) and, with u_g = mean - (statistic
    without cluster g), a = sum u^3 / (6 (sum u^2)^1.5). The interval follows a skewed statistic, and is the same for
    any monotone function of it.

    Args:
        statistic: As in `cluster_bootstrap`; it is also called with weights that leave one cluster out.
        clusters: The cluster of each row.
        seed: The same seed draws the same clusters.
        draws: Number of resamples, >= 2.
        level: Coverage, in (0, 1).

    Returns:
        The statistic of the rows as they are, the standard deviation over resamples, and the interval. With a single
        cluster its uncertainty is unknown: standard error and interval are NaN.

    Raises:
        ValueError: there are no rows, or `draws` or `level` is out of range.
    """

    def corrected(values: Float64[Floats, " resamples"], value: float) -> tuple[float, float]:
        index, count = _numbered(clusters)
        left_out = np.concatenate(
            [
                statistic((1.0 - np.eye(min(_CHUNK, count - start), count, start))[:, index])
                for start in range(0, count, _CHUNK)
            ]
        )
        return bca_bounds(values, -left_out, value, level=level)

    return _bootstrapped(statistic, clusters, corrected, seed=seed, draws=draws, level=level)


def _bootstrapped(
    statistic: Callable[[Float64[Floats, "resamples rows"]], Float64[Floats, " resamples"]],
    clusters: Shaped[Labels, " rows"],
    interval: Callable[[Float64[Floats, " resamples"], float], tuple[float, float]],
    *,
    seed: int,
    draws: int,
    level: float,
) -> ClusteredEstimate:
    """A statistic with an interval that is made of its values over resampled clusters and of that of all rows."""
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
    return ClusteredEstimate(value, float(values.std(ddof=1)), interval(values, value), clusters.size, count)


def bca_bounds(
    values: Float64[Floats, " resamples"], influence: Float64[Floats, " clusters"], value: float, *, level: float = 0.95
) -> tuple[float, float]:
    """The bounds of `bca_bootstrap`.

    Args:
        values: The statistic of resamples, >= 2.
        influence: What each cluster adds to it, up to a common factor and a constant.
        value: The statistic of all rows.
        level: Coverage, in (0, 1).
    """
    # Equal but for rounding: half of them lie below, or a statistic that cannot move would be shifted by its last bit.
    same = np.abs(values - value) <= 1e-9 * max(1.0, abs(value))
    below = float(((values < value) & ~same).mean() + 0.5 * same.mean())
    shift = float(ndtri(min(max(below, 0.5 / values.size), 1.0 - 0.5 / values.size)))
    around = influence - influence.mean()
    around = around / max(float(np.abs(around).max()), 1e-300)  # so that cubes do not underflow
    squares = float((around**2).sum())
    acceleration = float((around**3).sum()) / (6.0 * squares**1.5) if squares > 0 else 0.0

    def bound(tail: float) -> float:
        moved = shift + float(ndtri(tail))
        at = np.asarray(ndtr(shift + moved / max(1.0 - acceleration * moved, 1e-9)), np.float64)
        return float(np.quantile(values, at))

    return bound(0.5 - level / 2), bound(0.5 + level / 2)


def _numbered(clusters: Shaped[Labels, " rows"]) -> tuple[Int[Numbers, " rows"], int]:
    names, index = np.unique(clusters, return_inverse=True)
    return index, names.size


def _check(values: Float64[Floats, " rows"], level: float) -> None:
    if values.size == 0 or bool(np.isnan(values).any()):
        raise ValueError("values must be numbers, and at least one")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, expected in (0, 1)")

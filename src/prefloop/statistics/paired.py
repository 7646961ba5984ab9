"""Statistics of totals by cluster: arms that answered the same prompts are resampled together, so that they pair."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64, Shaped
from scipy.special import ndtri

from prefloop.statistics.arrays import Floats, Labels
from prefloop.statistics.bootstrap import ClusteredEstimate

Statistic = Callable[[Float64[Floats, "*batch columns"]], Float64[Floats, "*batch"]]
"""From totals of columns to a number, such as a sum over a count, or the difference of two such means."""


def totals_by_cluster(
    columns: Float64[Floats, "rows columns"], clusters: Shaped[Labels, " rows"], names: Shaped[Labels, " clusters"]
) -> Float64[Floats, "clusters columns"]:
    """Sums of rows by cluster.

    Args:
        columns: What is added up; a column of ones counts rows.
        clusters: The cluster of each row.
        names: The clusters that are wanted, sorted, each once. Rows of others are left out.

    Returns:
        One line a cluster, in the order of `names`; zeros where a cluster has no row.
    """
    kept = np.isin(clusters, names)
    totals = np.zeros((names.size, columns.shape[1]))
    np.add.at(totals, np.searchsorted(names, clusters[kept]), columns[kept])
    return totals


def ratio_of_means(totals: Float64[Floats, "*batch four"]) -> Float64[Floats, "*batch"]:
    """A sum over its count, divided by another sum over its count: a statistic of four columns in this order."""
    return np.asarray((totals[..., 0] / totals[..., 1]) / (totals[..., 2] / totals[..., 3]))


def clustered_statistic(
    statistic: Statistic,
    totals: Float64[Floats, "clusters columns"],
    *,
    rows: int,
    seed: int,
    draws: int = 1000,
    level: float = 0.95,
) -> ClusteredEstimate:
    r"""A statistic of totals over clusters, with the uncertainty of having met these clusters and no others.

    The standard error is the delete-one jackknife's:

        variance = (G - 1) / G * sum_g (statistic without cluster g - their mean)^2

    for G clusters. Where it is a difference of means and every cluster has as many rows, this is the paired test's
    s / sqrt(G), with s the standard deviation of the differences by cluster. The interval is the percentile interval
    of resampled clusters. Columns of one cluster are left out, and drawn, together: that is what pairs two arms.

    Args:
        statistic: Called with totals of all clusters, of all but one, and of resamples.
        totals: `totals_by_cluster`; the columns of two arms side by side for a difference.
        rows: What `n` of the result says.
        seed: The same seed draws the same clusters.
        draws: Number of resamples, >= 2.
        level: Share of the resamples inside the interval, in (0, 1).

    Returns:
        The estimate. With a single cluster its uncertainty is unknown: standard error and interval are NaN.

    Raises:
        ValueError: there is no cluster, or `draws` or `level` is out of range.
    """
    count = totals.shape[0]
    if count == 0:
        raise ValueError("there is no cluster")
    if draws <= 1:
        raise ValueError(f"draws is {draws}, expected >= 2")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, expected in (0, 1)")
    total = totals.sum(0)
    value = float(statistic(total))
    if count == 1:
        return ClusteredEstimate(value, float("nan"), (float("nan"), float("nan")), rows, count)
    without = statistic(total - totals)
    error = float(np.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum()))
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1.0 / count), size=draws)
    low, high = np.quantile(statistic(weights.astype(np.float64) @ totals), [0.5 - level / 2, 0.5 + level / 2])
    return ClusteredEstimate(value, error, (float(low), float(high)), rows, count)


def detectable_difference(standard_error: float, *, power: float = 0.8, level: float = 0.95) -> float:
    """The true difference that a two-sided test at 1 - `level` finds with probability `power`.

        (z_{(1 + level) / 2} + z_power) * standard error

    The other tail, which could reject on the wrong side, is left out: at these levels it adds less than 1e-5.

    Args:
        standard_error: Of the estimated difference.
        power: In (0, 1).
        level: In (0, 1).

    Returns:
        In the unit of the standard error; 2.80 times it by default.
    """
    return float(ndtri(0.5 + level / 2) + ndtri(power)) * standard_error

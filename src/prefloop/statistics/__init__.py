"""Pure numerics of evaluation and selection: arrays in, numbers with their uncertainty out. Never imports torch."""

from prefloop.statistics.best_of_n import best_of_n, kl_best_of_n
from prefloop.statistics.bootstrap import ClusteredEstimate, cluster_bootstrap, clustered_mean
from prefloop.statistics.kl import KlEstimate, k1, k2, k3, kl_estimate
from prefloop.statistics.logistic import LengthSlope, LogisticFit, length_slope, soft_logistic
from prefloop.statistics.paired import (
    Statistic,
    clustered_statistic,
    detectable_difference,
    ratio_of_means,
    totals_by_cluster,
)
from prefloop.statistics.proportion import wilson_interval
from prefloop.statistics.warm_start import warm_length_controlled_statistic
from prefloop.statistics.winrate import (
    LengthControlled,
    WinRate,
    at_equal_lengths,
    length_controlled,
    length_controlled_glm,
    length_controlled_statistic,
    length_terms,
    win_rate,
)

__all__ = [
    "ClusteredEstimate",
    "KlEstimate",
    "LengthControlled",
    "LengthSlope",
    "LogisticFit",
    "Statistic",
    "WinRate",
    "at_equal_lengths",
    "best_of_n",
    "cluster_bootstrap",
    "clustered_mean",
    "clustered_statistic",
    "detectable_difference",
    "k1",
    "k2",
    "k3",
    "kl_best_of_n",
    "kl_estimate",
    "length_controlled",
    "length_controlled_glm",
    "length_controlled_statistic",
    "length_slope",
    "length_terms",
    "ratio_of_means",
    "soft_logistic",
    "totals_by_cluster",
    "warm_length_controlled_statistic",
    "wilson_interval",
    "win_rate",
]

"""Bradley-Terry ratings from battles, with covariates, by Newton's method; their sandwich and bootstrap uncertainty."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
from jaxtyping import Float64, Int, Shaped
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.special import ndtri

from prefloop.statistics.arrays import Floats, Labels, Numbers, Truths
from prefloop.statistics.bootstrap import bca_bounds
from prefloop.statistics.logistic import sigmoid

SEPARATED_RIDGE = 1e-3
"""Penalty, 0.5 * ridge * sum of squared ratings, where some ratings have no finite maximum of the likelihood, and in
every resample, since it may be one in which a model never loses. On 100 battles of equal models it moves a rating by
less than 1e-4 of itself."""

_TOLERANCE = 1e-11
_RESAMPLED_TOLERANCE = 1e-8  # a thousandth of what resamples scatter is far more
_MOST_STEPS = 100
_SURE = 20.0  # nats: battles are this sure only where nothing but the end of the iterations holds a coefficient
_TOGETHER = 200_000  # numbers in an array of resamples and cells: bounds the memory, changes no number


@dataclass(frozen=True)
class Battles:
    """Comparisons of two answers each."""

    first: Int[Numbers, " rows"]
    """Number of the one model, from 0."""

    second: Int[Numbers, " rows"]
    """Number of the other."""

    outcomes: Float64[Floats, " rows"]
    """1 where the first won, 0 where the second did, 0.5 for a tie, which is half of each."""

    weights: Float64[Floats, " rows"]
    """How many battles the row stands for, > 0."""

    clusters: Shaped[Labels, " rows"]
    """What rows vary together with: their prompt."""

    features: Float64[Floats, "rows columns"]
    """Covariates of the first minus those of the second; no column where nothing is controlled for."""

    models: int

    def __post_init__(self) -> None:
        if self.first.size == 0:
            raise ValueError("there is no battle")
        if bool(np.any(self.first == self.second)):
            raise ValueError("a model does not meet itself")
        if not bool(np.all((self.outcomes >= 0) & (self.outcomes <= 1))):
            raise ValueError("outcomes must be in [0, 1]")
        if not bool(np.all((self.weights > 0) & np.isfinite(self.weights))):
            raise ValueError("weights must be finite and > 0")


@dataclass(frozen=True)
class BradleyTerry:
    """P(first wins) = sigmoid(rating_first - rating_second + features @ style)."""

    ratings: Float64[Floats, " models"]
    """Nats of log-odds, with mean zero in each component."""

    style: Float64[Floats, " columns"]
    """Nats of log-odds per unit of each feature."""

    ridge: float
    """Of the ratings; 0 where the maximum of the likelihood was found."""

    converged: bool


@dataclass(frozen=True)
class Graph:
    """Who can be compared with whom."""

    components: Int[Numbers, " models"]
    """Number of each model's component: models of different ones have no chain of battles between them."""

    groups: Int[Numbers, " models"]
    """Number of each model's group. Inside a group every model reaches every other by a chain of wins and ties; between
    groups of one component all wins go one way, so that the difference of their ratings is infinite (Ford 1957)."""


def graph_of(battles: Battles) -> Graph:
    """Components and groups of the models, from who won a battle against whom; a tie is a win of both."""
    won = np.concatenate([battles.first[battles.outcomes > 0], battles.second[battles.outcomes < 1]])
    lost = np.concatenate([battles.second[battles.outcomes > 0], battles.first[battles.outcomes < 1]])
    size = (battles.models, battles.models)
    wins = coo_array((np.ones(won.size), (won, lost)), shape=size)
    components = connected_components(wins, directed=False)[1]
    groups = connected_components(wins, directed=True, connection="strong")[1]
    return Graph(np.asarray(components, np.int64), np.asarray(groups, np.int64))


def bradley_terry(battles: Battles, *, ridge: float = 0.0, style_ridge: float = 0.0) -> BradleyTerry:
    r"""Maximum-likelihood ratings, by Newton steps.

    They minimise

        sum_i weight_i * (softplus(eta_i) - outcome_i * eta_i) + ridge/2 * |ratings|^2 + style_ridge/2 * |style|^2

    with eta = rating_first - rating_second + features @ style. Where the battles leave a rating without finite maximum
    (`graph_of`), or a feature separates all wins from all losses, and no ridge is given, `SEPARATED_RIDGE` is taken for
    both.

    Args:
        battles: At least one.
        ridge: >= 0.
        style_ridge: >= 0.

    Returns:
        The fit; its `ridge` says what was taken.
    """
    graph = graph_of(battles)
    if ridge == 0 and np.unique(graph.groups).size > np.unique(graph.components).size:
        return bradley_terry(battles, ridge=SEPARATED_RIDGE, style_ridge=max(style_ridge, SEPARATED_RIDGE))
    cells = _Cells.of(battles, graph)
    penalty = np.concatenate([np.full(battles.models, ridge), np.full(battles.features.shape[1], style_ridge)])
    up, down = (total[None] for total in cells.totals(battles.weights))
    found, converged = _newton(cells, up, down, penalty, np.zeros(penalty.size))
    runs_away = not converged[0] or bool(np.any(np.abs(cells.log_odds(found)) > _SURE))
    if runs_away and ridge == 0:
        return bradley_terry(battles, ridge=SEPARATED_RIDGE, style_ridge=max(style_ridge, SEPARATED_RIDGE))
    return BradleyTerry(found[0, : battles.models], found[0, battles.models :], ridge, bool(converged[0]))


def influences(battles: Battles, fit: BradleyTerry, *, clustered: bool) -> Float64[Floats, "clusters parameters"]:
    """What each cluster adds to ratings and style, to first order: H^-1 times its score.

    Args:
        battles: What was fitted.
        fit: `bradley_terry` of them.
        clustered: By cluster; otherwise each unit of weight is its own.

    Returns:
        One line a cluster; by row, the line of a row of weight n is sqrt(n) times that of a unit, so that products over
        lines are those over units.
    """
    rows = np.arange(battles.first.size)
    design = np.hstack([np.zeros((rows.size, battles.models)), battles.features])
    design[rows, battles.first], design[rows, battles.second] = 1.0, -1.0
    prob = sigmoid(design @ np.concatenate([fit.ratings, fit.style]))
    penalty = np.concatenate([np.full(fit.ratings.size, fit.ridge), np.zeros(fit.style.size)])
    hessian = (design * (battles.weights * prob * (1.0 - prob))[:, None]).T @ design
    # a feature that does not vary has no curvature, and no influence
    gauge = _gauge(graph_of(battles), penalty.size)
    inverse = np.linalg.pinv(hessian + np.diag(penalty) + gauge, hermitian=True)
    shares = battles.weights if clustered else np.sqrt(battles.weights)
    scores = (shares * (battles.outcomes - prob))[:, None] * design
    if clustered:
        names, number = np.unique(battles.clusters, return_inverse=True)
        by_cluster = np.zeros((names.size, scores.shape[1]))
        np.add.at(by_cluster, number, scores)
        scores = by_cluster
    return scores @ inverse


def sandwich(battles: Battles, fit: BradleyTerry, *, clustered: bool) -> Float64[Floats, "parameters parameters"]:
    """Covariance H^-1 (sum of outer products of scores) H^-1 of ratings, in their mean-zero gauge, and style.

    Args:
        battles: What was fitted.
        fit: `bradley_terry` of them.
        clustered: Scores are summed by cluster first; otherwise by unit of weight.
    """
    found = influences(battles, fit, clustered=clustered)
    return found.T @ found


def resampled(
    battles: Battles, fit: BradleyTerry, *, clustered: bool, draws: int, seed: int
) -> Float64[Floats, "draws parameters"]:
    """Ratings and style of resampled battles; NaN for a model that has none in a resample.

    Args:
        battles: What was fitted.
        fit: Where the Newton steps start.
        clustered: Clusters are drawn with replacement; otherwise single units of weight, as the published intervals.
        draws: Number of resamples.
        seed: The same seed draws the same.
    """
    cells = _Cells.of(battles, graph_of(battles))
    generator = np.random.default_rng(seed)
    ridge = max(fit.ridge, SEPARATED_RIDGE)
    start = np.concatenate([fit.ratings, fit.style])
    penalty = np.full(start.size, ridge)
    found: list[Floats] = []
    for up, down in cells.resamples(battles, generator, clustered=clustered, draws=draws):
        fitted, _ = _newton(cells, up, down, penalty, start, within=_RESAMPLED_TOLERANCE)
        present = cells.by_pair(up + down) @ np.abs(cells.pairs) > 0
        fitted[:, : battles.models][~present] = np.nan
        found.append(fitted)
    return np.concatenate(found)


def score_interval(
    gaps: Float64[Floats, " draws"],
    gap: float,
    influence: Float64[Floats, " clusters"] | None,
    *,
    level: float = 0.95,
) -> tuple[float, float]:
    """Interval of a win percentage from resampled differences of two ratings.

    Args:
        gaps: Of resamples, in nats; those that are NaN are left out.
        gap: Of all battles.
        influence: What each cluster adds to the gap, for the BCa interval; None for plain percentiles.
        level: Coverage, in (0, 1).

    Returns:
        In percent. NaN where no resample is left.
    """
    known = gaps[~np.isnan(gaps)]
    if known.size == 0:
        return float("nan"), float("nan")
    if influence is None:
        low, high = np.quantile(known, [0.5 - level / 2, 0.5 + level / 2])
    else:
        low, high = bca_bounds(known, influence, gap, level=level)
    low, high = 100.0 * sigmoid(np.array([low, high]))
    return float(low), float(high)


def analytic_interval(gap: float, standard_error: float, *, level: float = 0.95) -> tuple[float, float]:
    """Interval of a win percentage, symmetric in log-odds: 100 * sigmoid(gap -+ z * standard_error)."""
    margin = float(ndtri(0.5 + level / 2)) * standard_error
    low, high = 100.0 * sigmoid(np.array([gap - margin, gap + margin]))
    return float(low), float(high)


def normalised_differences(
    first: Float64[Floats, "rows columns"], second: Float64[Floats, "rows columns"], *, offset: float = 0.0
) -> Float64[Floats, "rows columns"]:
    """(a - b) / (a + b + offset) of counts or lengths of two answers, and 0 where both are 0.

    Args:
        first: >= 0.
        second: >= 0.
        offset: >= 0; Arena-Hard v0.1 has 1.
    """
    total = first + second + offset
    return np.where(total > 0, (first - second) / np.where(total > 0, total, 1.0), 0.0)


def standardised(
    values: Float64[Floats, "rows columns"], weights: Float64[Floats, " rows"], *, centred: bool = True
) -> Float64[Floats, "rows columns"]:
    """Values less their mean (where they are `centred`), over their population standard deviation.

    A column that does not vary is 0.
    """
    mean = np.average(values, axis=0, weights=weights)
    deviation = np.sqrt(np.average((values - mean) ** 2, axis=0, weights=weights))
    varies = deviation > 1e-12 * np.maximum(np.abs(values).max(axis=0), 1e-300)
    return np.where(varies, (values - mean if centred else values) / np.where(varies, deviation, 1.0), 0.0)


@dataclass(frozen=True)
class _Cells:
    """Rows that have one design line, taken together: where there are no features, as many as there are pairs.

    Cells of one pair of models stand side by side, so that sums over a pair are sums over a stretch.
    """

    pairs: Float64[Floats, "pairs models"]
    """1 at the first model of each pair, -1 at its second."""
    begins: Int[Numbers, " pairs"]
    """Its first cell."""
    sizes: Int[Numbers, " pairs"]
    """How many it has."""
    features: Float64[Floats, "cells columns"]
    gauge: Float64[Floats, "parameters parameters"]
    """What is added to the Hessian so that it can be inverted: it acts on the sums of components, which stay 0."""
    number: Int[Numbers, " rows"]
    """Each row's cell."""
    up: Float64[Floats, " rows"]
    """How much of a row is a win of its cell's first."""

    @staticmethod
    def of(battles: Battles, graph: Graph) -> "_Cells":
        turned = battles.first > battles.second
        first, second = np.minimum(battles.first, battles.second), np.maximum(battles.first, battles.second)
        names, pair, sizes = np.unique(first * battles.models + second, return_inverse=True, return_counts=True)
        columns = battles.features.shape[1]
        number, features = pair, np.zeros((names.size, 0))
        if columns:
            order = np.argsort(pair, kind="stable")
            number = np.argsort(order)
            features = np.where(turned[:, None], -battles.features, battles.features)[order]
        else:
            sizes = np.ones(names.size, np.int64)
        pairs = np.zeros((names.size, battles.models))
        lines = np.arange(names.size)
        pairs[lines, names // battles.models], pairs[lines, names % battles.models] = 1.0, -1.0
        gauge = _gauge(graph, battles.models + columns)
        up = np.where(turned, 1.0 - battles.outcomes, battles.outcomes)
        begins = np.cumsum(sizes) - sizes
        return _Cells(pairs, begins, sizes, features, gauge, np.asarray(number, np.int64), up)

    def log_odds(self, at: Float64[Floats, "batch parameters"]) -> Float64[Floats, "batch cells"]:
        """Of a win of each cell's first."""
        models = self.pairs.shape[1]
        of_pairs = at[:, :models] @ self.pairs.T
        return np.repeat(of_pairs, self.sizes, axis=1) + at[:, models:] @ self.features.T

    def by_parameter(self, values: Float64[Floats, "batch cells"]) -> Float64[Floats, "batch parameters"]:
        """What each cell says, added up for ratings and style: the transpose of `log_odds`."""
        return np.hstack([self.by_pair(values) @ self.pairs, values @ self.features])

    def by_pair(self, values: Float64[Floats, "batch cells"]) -> Float64[Floats, "batch pairs"]:
        """Sums over the cells of each pair."""
        return np.add.reduceat(values, self.begins, axis=1)

    def curvature(self, values: Float64[Floats, "batch cells"]) -> Float64[Floats, "batch parameters parameters"]:
        """Sum over the cells of value * (line of the design) (line of the design)^T."""
        weighted = [values * column for column in self.features.T]
        ratings = np.swapaxes(self.by_pair(values)[:, :, None] * self.pairs, 1, 2) @ self.pairs
        if not weighted:
            return ratings
        across = np.stack([self.by_pair(one) @ self.pairs for one in weighted], 2)
        style = np.stack([one @ self.features for one in weighted], 1)
        return np.block([[ratings, across], [np.swapaxes(across, 1, 2), style]])

    def totals(self, weights: Float64[Floats, " rows"]) -> tuple[Floats, Floats]:
        """Wins and losses of each cell's first, by cell."""
        size = int(self.sizes.sum())
        won, lost = weights * self.up, weights * (1.0 - self.up)
        both = [np.bincount(self.number, weights=part, minlength=size) for part in (won, lost)]
        return np.asarray(both[0], np.float64), np.asarray(both[1], np.float64)

    def resamples(
        self, battles: Battles, generator: np.random.Generator, *, clustered: bool, draws: int
    ) -> Iterator[tuple[Floats, Floats]]:
        """Wins and losses by cell, of as many resamples at a time as memory is to hold."""
        size = int(self.sizes.sum())
        names, cluster = np.unique(battles.clusters, return_inverse=True)
        units, shares = round(battles.weights.sum()), battles.weights / battles.weights.sum()
        if clustered:
            units, shares = names.size, np.full(names.size, 1.0 / names.size)
        tables: list[Floats] = []
        if clustered and size < battles.first.size:  # what a prompt adds to each cell, added up once
            for part in (self.up, 1.0 - self.up):
                tables.append(np.zeros((names.size, size)))
                np.add.at(tables[-1], (cluster, self.number), battles.weights * part)
        together = max(1, _TOGETHER // size)
        for done in range(0, draws, together):
            drawn = generator.multinomial(units, shares, size=min(together, draws - done)).astype(np.float64)
            if tables:
                yield drawn @ tables[0], drawn @ tables[1]
                continue
            rows = drawn[:, cluster] * battles.weights if clustered else drawn
            both = [self.totals(one) for one in rows]
            yield np.array([up for up, _ in both]), np.array([down for _, down in both])


def _gauge(graph: Graph, parameters: int) -> Float64[Floats, "parameters parameters"]:
    """1 where two ratings are of one component."""
    found = np.zeros((parameters, parameters))
    models = graph.components.size
    found[:models, :models] = graph.components[:, None] == graph.components
    return found


@dataclass(frozen=True)
class _Likelihood:
    """Minus the log-likelihood of some wins and losses, with its penalty, and how sure the cells are."""

    values: Float64[Floats, " batch"]
    probs: Float64[Floats, "batch cells"]

    @staticmethod
    def of(
        cells: _Cells,
        up: Float64[Floats, "batch cells"],
        total: Float64[Floats, "batch cells"],
        penalty: Float64[Floats, " parameters"],
        at: Float64[Floats, "batch parameters"],
    ) -> "_Likelihood":
        log_odds = cells.log_odds(at)
        rest = np.exp(-np.abs(log_odds))
        softplus = np.maximum(log_odds, 0.0) + np.log1p(rest)
        values = (total * softplus - up * log_odds).sum(-1) + 0.5 * (penalty * at**2).sum(-1)
        return _Likelihood(values, np.where(log_odds > 0, 1.0, rest) / (1.0 + rest))


def _newton(
    cells: _Cells,
    up: Float64[Floats, "batch cells"],
    down: Float64[Floats, "batch cells"],
    penalty: Float64[Floats, " parameters"],
    start: Float64[Floats, " parameters"],
    *,
    within: float = _TOLERANCE,
) -> tuple[Float64[Floats, "batch parameters"], Truths]:
    """Minimisers, and whether the gradient vanishes at them, relative to the number of battles."""
    total = up + down
    found = np.tile(start, (up.shape[0], 1))
    tolerance = within * np.maximum(total.sum(-1), 1.0)
    lift = cells.gauge * np.maximum(total.sum(-1), 1.0)[:, None, None] / start.size + np.diag(penalty)
    converged = np.zeros(up.shape[0], dtype=np.bool_)
    here = _Likelihood.of(cells, up, total, penalty, found)
    for _ in range(_MOST_STEPS):
        gradient = cells.by_parameter(total * here.probs - up) + penalty * found
        converged = np.abs(gradient).max(-1) <= tolerance
        if bool(np.all(converged)):
            break
        hessian = cells.curvature(total * here.probs * (1.0 - here.probs))
        noise = 1e-13 * np.trace(hessian, axis1=-2, axis2=-1)[:, None, None] * np.eye(start.size)
        step = cast("Floats", np.linalg.solve(hessian + lift + noise, gradient[..., None]))[..., 0]
        rate = np.ones((up.shape[0], 1))
        there = _Likelihood.of(cells, up, total, penalty, found - step)
        for _ in range(30):
            worse = there.values > here.values + 1e-12 * np.abs(here.values)
            if not bool(np.any(worse)):
                break
            rate[worse] /= 2.0
            there = _Likelihood.of(cells, up, total, penalty, found - rate * step)
        found, here = found - rate * step, there
    return found, converged

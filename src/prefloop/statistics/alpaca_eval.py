"""AlpacaEval 2's length-controlled win rate (arXiv:2404.04475): all variants, the search of C, what a fit rests on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from jaxtyping import Float64, Int

from prefloop.statistics.arrays import Floats, Numbers
from prefloop.statistics.logistic import sigmoid, soft_logistic
from prefloop.statistics.winrate import LengthControlled, at_equal_lengths, length_controlled_glm, length_terms
from prefloop.statistics.winrate import win_rate as plain_win_rate

C_GRID = tuple(float(c) for c in np.logspace(-4, 4, 10))
"""The values of C among which AlpacaEval's cross-validation chooses."""

FOLDS = 5

GAMED_WEIGHT = 0.2
"""AlpacaEval's lambda: what all gamed baselines together weigh beside one model, by instruction."""

_LOWEST = 1e-15  # probabilities are clipped here before their logarithm is taken
_MOST_STEPS = 15
_TOLERANCE = 1e-10
_TOGETHER = 400_000  # numbers in an array of resamples and rows: bounds the memory, changes no number


@dataclass(frozen=True)
class GamedRows:
    """Judged answers of baselines that were told to be verbose, or concise.

    They differ from the baseline in length and hardly in quality, and so hold the full variant's length coefficient.
    """

    preferences: Float64[Floats, " gamed"]
    """Probability that the gamed baseline beats the baseline, in [0, 1]."""

    lengths: Float64[Floats, " gamed"]
    """tanh of the standardised difference of lengths, baseline minus gamed."""

    difficulty: Float64[Floats, " gamed"]

    instructions: Int[Numbers, " gamed"]
    """Number of each row's instruction."""

    weight: float
    """Of each row: lambda over the number of gamed baselines."""


@dataclass(frozen=True)
class AlpacaRows:
    """One model's judged answers. Without difficulties it is the `minimal` variant, without gamed rows `noreg`."""

    preferences: Float64[Floats, " rows"]
    """Probability that the model beats the baseline, in [0, 1]. A row of NaN does not enter the fit, but its length
    counts in the scale of the length term and its instruction in the mean."""

    length_baseline: Float64[Floats, " rows"]
    length_model: Float64[Floats, " rows"]
    """In any unit; AlpacaEval counts characters."""

    instructions: Int[Numbers, " rows"]
    """Number of each row's instruction: rows of one instruction vary together."""

    difficulty: Float64[Floats, " rows"] | None = None
    gamed: GamedRows | None = None

    def __post_init__(self) -> None:
        if self.gamed is not None and self.difficulty is None:
            raise ValueError("gamed rows need the difficulty of the model's rows too")

    @property
    def covariates(self) -> Float64[Floats, "rows columns"]:
        """What remains of the prediction at equal lengths: difficulty where there is one, and 1."""
        ones = np.ones(self.preferences.size)
        return ones[:, None] if self.difficulty is None else np.column_stack([self.difficulty, ones])


@dataclass(frozen=True)
class SearchedC:
    """The inverse penalty that cross-validation chose, with what it chose among."""

    c: float
    scores: tuple[float, ...]
    """Mean held-out log-likelihood of each value of the grid."""


@dataclass(frozen=True)
class Identification:
    """How much the rows say about the effect of length, and so about the win rate at equal lengths."""

    log_likelihood_drop: float
    """Nats by which the log-likelihood falls, to second order and with the other coefficients fitted anew, when the
    length coefficient is moved by 1. Below 1.92 the coefficient's 95 % interval is wider than +-1."""

    variance_inflation: float
    """Variance of the length-controlled win rate over what it would be if the length coefficient were known."""

    model_longer: float
    """Share of the model's rows in which its answer is the longer one, equal ones counted half."""

    instructions: int
    """Different instructions with a preference."""


def is_baseline(rows: AlpacaRows) -> bool:
    """Whether nothing tells the model from the baseline: all preferences are draws, all lengths equal."""
    known = rows.preferences[~np.isnan(rows.preferences)]
    return known.size > 0 and bool(np.all(known == 0.5) and np.array_equal(rows.length_baseline, rows.length_model))


def fit_alpaca_eval(rows: AlpacaRows, *, c: float) -> LengthControlled:
    r"""Length-controlled win rate by AlpacaEval's GLM, which has no intercept.

        P(model wins) = sigmoid(phi * tanh((l_baseline - l_model) / s) + psi * difficulty + theta * [not gamed])

    fitted to probabilities under an L1 penalty (`soft_logistic`), and its mean over all rows of the model with the
    length term set to 0. s is the sample standard deviation of the difference of lengths. A model that cannot be told
    from the baseline has 50 by definition.

    Args:
        rows: Its difficulties and gamed rows say which variant it is.
        c: Inverse penalty, > 0.

    Returns:
        Percentages, and coefficients: of length, then of difficulty (where there is one) and quality.

    Raises:
        ValueError: no preference is left, or a value is out of range.
    """
    covariates = rows.covariates
    if is_baseline(rows):
        zeros = (0.0,) * covariates.shape[1]
        return LengthControlled(50.0, 0.0, length=0.0, covariates=zeros, converged=True)
    lengths = length_terms(rows.length_baseline, rows.length_model, np.ones(rows.preferences.size))
    if (gamed := rows.gamed) is None:
        fit = length_controlled_glm(rows.preferences, lengths, covariates, np.ones(lengths.size), c=c)
    else:
        theirs = np.column_stack([gamed.difficulty, np.zeros(gamed.difficulty.size)])
        fit = length_controlled_glm(
            np.concatenate([rows.preferences, gamed.preferences]),
            np.concatenate([lengths, gamed.lengths]),
            np.concatenate([covariates, theirs]),
            np.concatenate([np.ones(lengths.size), np.full(gamed.lengths.size, gamed.weight)]),
            c=c,
        )
    return at_equal_lengths(fit, covariates)


def search_c(rows: AlpacaRows, *, grid: Sequence[float] = C_GRID, folds: int = FOLDS) -> SearchedC:
    r"""C by grouped cross-validation, as AlpacaEval does it.

    Row i, of model and gamed rows together, is in fold i mod `folds`. The score of a fold is the mean over its rows,
    each once in either class, of

        weight * [y log p + (1 - y) log(1 - p)],  p clipped to [1e-15, 1 - 1e-15]

    and the largest mean over folds wins, the smallest C where several are equal.

    Args:
        rows: Rows without preference are left out before they are numbered.
        grid: Values of C, > 0, ascending.
        folds: Number of parts, >= 2 and no more than there are rows.

    Returns:
        The choice.

    Raises:
        ValueError: there are fewer rows than folds, or a value is out of range.
    """
    features, targets, weights = _design(rows)
    kept = weights > 0
    features, targets, weights = features[kept], targets[kept], weights[kept]
    if not 2 <= folds <= targets.size:
        raise ValueError(f"{targets.size} rows with a preference cannot be cut into {folds} folds")
    part = np.arange(targets.size) % folds
    held_out = part[None, :] == np.arange(folds)[:, None]
    scores: list[float] = []
    for c in grid:
        fits = soft_logistic(features, targets, weights * ~held_out, c=c).coefficients
        prob = np.clip(sigmoid(fits @ features.T), _LOWEST, 1.0 - _LOWEST)
        likelihood = weights * (targets * np.log(prob) + (1.0 - targets) * np.log1p(-prob))
        scores.append(float(((likelihood * held_out).sum(-1) / (2.0 * held_out.sum(-1))).mean()))
    return SearchedC(grid[int(np.argmax(scores))], tuple(scores))


def alpaca_eval_statistic(
    rows: AlpacaRows, *, c: float
) -> Callable[[Float64[Floats, "resamples rows"]], Float64[Floats, " resamples"]]:
    """The length-controlled win rate of `fit_alpaca_eval` as a function of row weights.

    Args:
        rows: As in `fit_alpaca_eval`.
        c: As in `fit_alpaca_eval`.

    Returns:
        From weights of the model's rows to length-controlled win rates, in percent; 50 in a resample in which no row
        has a preference.
    """
    refits, covariates = alpaca_eval_refits(rows, c=c), rows.covariates

    def winrates(drawn: Float64[Floats, "resamples rows"]) -> Float64[Floats, " resamples"]:
        predictions = sigmoid(refits(drawn)[:, 1:] @ covariates.T)
        return 100.0 * (drawn * predictions).sum(-1) / drawn.sum(-1)

    return winrates


def alpaca_eval_refits(
    rows: AlpacaRows, *, c: float
) -> Callable[[Float64[Floats, "resamples rows"]], Float64[Floats, "resamples columns"]]:
    """The coefficients of `fit_alpaca_eval` as a function of row weights, for the bootstrap over instructions.

    Scale and coefficients are fitted anew for each vector of weights, by Newton steps from the fit of all rows; where
    these do not end in the minimum, which the optimality conditions tell, from zero. The gamed rows of an instruction
    take the mean weight of the model's rows of it, since what was drawn is the instruction. C stays as it is.

    Args:
        rows: As in `fit_alpaca_eval`.
        c: As in `fit_alpaca_eval`.

    Returns:
        From weights of the model's rows to coefficients, of length, difficulty where there is one, and quality; zeros
        of a model that cannot be told from the baseline, and in a resample in which no row has a preference.
    """
    fit = fit_alpaca_eval(rows, c=c)
    start = np.array([fit.length, *fit.covariates])
    _, targets, base = _design(rows)
    covariates = rows.covariates
    total = covariates if rows.gamed is None else np.concatenate([covariates, _gamed_covariates(rows.gamed)])
    spread = None if rows.gamed is None else _shares(rows.instructions, rows.gamed.instructions)

    def piece(drawn: Float64[Floats, "resamples rows"]) -> Float64[Floats, "resamples columns"]:
        lengths = length_terms(rows.length_baseline, rows.length_model, drawn)
        weights = drawn
        if rows.gamed is not None and spread is not None:
            theirs = np.broadcast_to(rows.gamed.lengths, (drawn.shape[0], rows.gamed.lengths.size))
            lengths = np.concatenate([lengths, theirs], axis=-1)
            weights = np.concatenate([drawn, spread(drawn)], axis=-1)
        weights = weights * base
        rest = np.broadcast_to(total, (*lengths.shape, total.shape[-1]))
        features = np.concatenate([lengths[..., None], rest], axis=-1)
        return _from_near(features, targets, weights, start, c)

    def refits(drawn: Float64[Floats, "resamples rows"]) -> Float64[Floats, "resamples columns"]:
        if is_baseline(rows):
            return np.zeros((drawn.shape[0], start.size))
        size = max(1, _TOGETHER // targets.size)
        return np.concatenate([piece(drawn[first : first + size]) for first in range(0, drawn.shape[0], size)])

    return refits


def identification(rows: AlpacaRows, fit: LengthControlled) -> Identification:
    """How well the rows determine a fit, from its information matrix X' diag(weight * p * (1 - p)) X.

    Args:
        rows: What was fitted.
        fit: `fit_alpaca_eval` of them.

    Returns:
        The numbers. Where lengths do not vary, there is no length coefficient to determine: the drop is 0 and the
        inflation 1. Where length cannot be told from the other columns at all, the inflation is infinite.
    """
    features, _, weights = _design(rows)
    prob = sigmoid(features @ np.array([fit.length, *fit.covariates]))
    information = (features * (weights * prob * (1.0 - prob))[:, None]).T @ features
    others = np.linalg.pinv(information[1:, 1:], hermitian=True)
    left = float(information[0, 0] - information[0, 1:] @ others @ information[1:, 0])
    at_equal = sigmoid(rows.covariates @ np.array(fit.covariates))
    gradient = ((at_equal * (1.0 - at_equal))[:, None] * rows.covariates).mean(0)
    known = float(gradient @ others @ gradient)
    coupled = float(gradient @ others @ information[1:, 0]) ** 2
    lost = left <= 1e-12 * max(float(information[0, 0]), 1e-300)
    inflation = 1.0 if coupled == 0 else float("inf") if lost or known == 0 else 1.0 + coupled / left / known
    longer = np.sign(rows.length_model - rows.length_baseline)
    judged = ~np.isnan(rows.preferences)
    return Identification(
        log_likelihood_drop=0.0 if lost else left / 2.0,
        variance_inflation=inflation,
        model_longer=0.5 + 0.5 * float(longer.mean()),
        instructions=int(np.unique(rows.instructions[judged]).size),
    )


def is_extreme_change(win_rate: float, length_controlled_winrate: float) -> bool:
    """AlpacaEval's warning for a win rate w: the controlled one leaves [min(3w/4, w-10), max(w+(100-w)/4, w+10)]."""
    lowest = min(win_rate * 3 / 4, win_rate - 10)
    highest = max(win_rate + (100 - win_rate) / 4, win_rate + 10)
    return not lowest <= length_controlled_winrate <= highest


def against_another(
    ours: LengthControlled, theirs: LengthControlled, difficulty: Float64[Floats, " rows"] | None
) -> float:
    r"""Length-controlled win rate of one model against another, both fitted against one baseline, in percent.

        100 * mean sigmoid((theta_a - theta_b) + (psi_a - psi_b) * difficulty)

    Args:
        ours: Fit of the model.
        theirs: Fit of the new baseline, in the same variant.
        difficulty: Of the instructions that are averaged over; None in the `minimal` variant.

    Returns:
        In [0, 100]. 100 less the other way around.

    Raises:
        ValueError: the fits are not of one variant, or not of the one that `difficulty` says.
    """
    columns = 1 if difficulty is None else 2
    if len(ours.covariates) != columns or len(theirs.covariates) != columns:
        raise ValueError("the fits have different columns: fit both in one variant")
    gap = np.array(ours.covariates) - np.array(theirs.covariates)
    covariates = np.ones((1, 1)) if difficulty is None else np.column_stack([difficulty, np.ones(difficulty.size)])
    return 100.0 * float(sigmoid(covariates @ gap).mean())


def _gamed_covariates(gamed: GamedRows) -> Float64[Floats, "gamed two"]:
    return np.column_stack([gamed.difficulty, np.zeros(gamed.difficulty.size)])


def _design(
    rows: AlpacaRows,
) -> tuple[Float64[Floats, "all columns"], Float64[Floats, " all"], Float64[Floats, " all"]]:
    """Columns, targets and weights of the model's rows and then the gamed ones. Weight 0: no preference."""
    plain_win_rate(rows.preferences)  # refuses preferences that are none
    known = ~np.isnan(rows.preferences)
    lengths = length_terms(rows.length_baseline, rows.length_model, np.ones(known.size))
    features = np.column_stack([lengths, rows.covariates])
    targets, weights = np.where(known, rows.preferences, 0.5), known.astype(np.float64)
    if (gamed := rows.gamed) is None:
        return features, targets, weights
    return (
        np.concatenate([features, np.column_stack([gamed.lengths, _gamed_covariates(gamed)])]),
        np.concatenate([targets, gamed.preferences]),
        np.concatenate([weights, np.full(gamed.preferences.size, gamed.weight)]),
    )


def _shares(
    ours: Int[Numbers, " rows"], theirs: Int[Numbers, " gamed"]
) -> Callable[[Float64[Floats, "resamples rows"]], Float64[Floats, "resamples gamed"]]:
    """From weights of the model's rows to those of the gamed ones: the mean of the same instruction, or 1."""
    names, number = np.unique(ours, return_inverse=True)
    belongs = (number[:, None] == np.arange(names.size)) / np.bincount(number)
    place = np.searchsorted(names, theirs).clip(max=names.size - 1)
    found = names[place] == theirs

    def spread(drawn: Float64[Floats, "resamples rows"]) -> Float64[Floats, "resamples gamed"]:
        totals = drawn @ belongs
        return np.where(found, totals[:, place], 1.0)

    return spread


def _from_near(
    features: Float64[Floats, "resamples all columns"],
    targets: Float64[Floats, " all"],
    weights: Float64[Floats, "resamples all"],
    start: Float64[Floats, " columns"],
    c: float,
) -> Float64[Floats, "resamples columns"]:
    """Coefficients of each resample."""
    penalty, signs = 1.0 / c, np.sign(start)
    found = np.tile(start, (weights.shape[0], 1))
    ended = np.zeros(weights.shape[0], dtype=np.bool_)
    tolerance = _TOLERANCE * (penalty + weights.sum(-1))
    if bool(np.all(signs != 0)):  # a coefficient of 0 is held there by the penalty, which plain steps do not see
        with np.errstate(all="ignore"):  # a fit that runs away is thrown away
            for _ in range(_MOST_STEPS):
                prob = sigmoid((features @ found[..., None])[..., 0])
                gradient = ((weights * (prob - targets))[:, None, :] @ features)[:, 0, :] + penalty * signs
                ended = (np.abs(gradient).max(-1) <= tolerance) & np.all(found * signs > 0, axis=-1)
                if bool(np.all(ended)):
                    break
                scaled = features * (weights * prob * (1.0 - prob))[..., None]
                hessian = np.swapaxes(scaled, -1, -2) @ features
                if not bool(np.all(np.isfinite(hessian))):
                    break
                found = found - _solved(hessian, gradient)
    if not bool(np.all(ended)):
        found[~ended] = soft_logistic(features[~ended], targets, weights[~ended], c=c).coefficients
    return found


def _solved(
    matrices: Float64[Floats, "resamples columns columns"], right: Float64[Floats, "resamples columns"]
) -> Float64[Floats, "resamples columns"]:
    """Solutions of matrices that are lifted by their rounding, so that they exist where a column does not vary."""
    lift = 1e-300 + 1e-12 * np.trace(matrices, axis1=-2, axis2=-1)[:, None, None]
    solutions = cast("Floats", np.linalg.solve(matrices + lift * np.eye(right.shape[-1]), right[..., None]))
    return solutions[..., 0]

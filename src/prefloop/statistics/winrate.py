"""Win rate against a baseline, plain and length-controlled (AlpacaEval 2, arXiv:2404.04475)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from prefloop.statistics.arrays import Floats, Truths
from prefloop.statistics.logistic import LogisticFit, sigmoid, soft_logistic

_DRAW = 0.5

DEFAULT_C = 100.0
"""Keeps a fit finite where one side wins everything, or length explains everything. On 100 rows it moves the mean
fitted preference by at most 0.01 points; AlpacaEval's cross-validated choice, usually 2.8, by up to 0.36. `math.inf` is
the plain maximum likelihood."""


@dataclass(frozen=True)
class WinRate:
    """How often the model beats the baseline. Rates are percentages."""

    win_rate: float
    """Mean preference."""

    standard_error: float
    """Of the win rate, rows taken as independent. NaN for a single row."""

    n_wins: int
    n_wins_base: int
    n_draws: int
    n_total: int

    discrete_win_rate: float
    """The win rate when each preference is rounded to a win or a loss and a draw counts half."""


@dataclass(frozen=True)
class LengthControlled:
    """What the win rate would be if both answers were equally long. Rates are percentages."""

    length_controlled_winrate: float

    lc_standard_error: float
    """Spread of the predictions over rows, over sqrt(n): AlpacaEval's definition, without the uncertainty of the fit.
    0 where all rows have the same covariates; bootstrap `length_controlled_statistic` for an honest one."""

    length: float
    """Coefficient of the length term, in nats of log-odds. Negative where longer answers win."""

    covariates: tuple[float, ...]
    """Coefficients of the other columns, in their order."""

    converged: bool
    """Whether the fit met its optimality conditions to 1e-13."""


def win_rate(preferences: Float64[Floats, " rows"]) -> WinRate:
    """Mean preference for the model, with counts.

    Args:
        preferences: Probability that the model beats the baseline, in [0, 1]; 0.5 is a draw.
            NaN, a failed judgment, is dropped.

    Returns:
        Percentages and counts over the rows that are not NaN.

    Raises:
        ValueError: no row is left, or a preference is outside [0, 1].
    """
    valid = preferences[_valid_rows(preferences)]
    is_draw = valid == _DRAW
    return WinRate(
        win_rate=100.0 * float(valid.mean()),
        standard_error=100.0 * _standard_error(valid),
        n_wins=int((valid > _DRAW).sum()),
        n_wins_base=int((valid < _DRAW).sum()),
        n_draws=int(is_draw.sum()),
        n_total=valid.size,
        discrete_win_rate=100.0 * float(discrete(valid).mean()),
    )


def discrete(preferences: Float64[Floats, " rows"]) -> Float64[Floats, " rows"]:
    """Preferences in [0, 1] as wins (1), losses (0) and draws (0.5): their mean is the discrete win rate."""
    return np.where(preferences == _DRAW, _DRAW, np.rint(preferences))


def length_terms(
    length_baseline: Float64[Floats, " rows"],
    length_model: Float64[Floats, " rows"],
    weights: Float64[Floats, "*batch rows"],
) -> Float64[Floats, "*batch rows"]:
    """The feature that carries length: tanh((baseline - model) / standard deviation of that difference).

    Args:
        length_baseline: Length of the baseline's answers, in any unit; a common factor changes nothing.
        length_model: Length of the model's answers.
        weights: How often each row counts in the standard deviation.

    Returns:
        In (-1, 1), positive where the model is shorter. 0 where the difference does not vary.
    """
    gap = length_baseline - length_model
    total = weights.sum(-1, keepdims=True)
    mean = (weights * gap).sum(-1, keepdims=True) / total
    squares = (weights * (gap - mean) ** 2).sum(-1, keepdims=True)
    deviation = np.sqrt(squares / np.maximum(total - 1.0, 1.0))
    longest = np.maximum(length_baseline, length_model).max()
    varies = deviation > 1e-12 * longest  # below: the rounding of a constant difference
    return np.where(varies, np.tanh(gap / np.where(varies, deviation, 1.0)), 0.0)


def length_controlled_glm(
    preferences: Float64[Floats, " rows"],
    lengths: Float64[Floats, "*batch rows"],
    covariates: Float64[Floats, "rows columns"],
    weights: Float64[Floats, "*batch rows"],
    *,
    c: float,
) -> LogisticFit:
    """Fits P(model wins) = sigmoid(length * lengths + covariates @ b), AlpacaEval's GLM in all its variants.

    `minimal` has one covariate, 1; `length_controlled_noreg` adds the instruction's difficulty; the full variant also
    adds the rows of two gamed baselines, with weight 0.1 and quality 0.

    Args:
        preferences: Probability that the model wins, in [0, 1]. A row of NaN does not enter the fit.
        lengths: `length_terms` of the rows.
        covariates: What remains of the prediction at equal lengths.
        weights: >= 0.
        c: Inverse L1 penalty, > 0.

    Returns:
        The coefficients, of the length first and then of the covariates.

    Raises:
        ValueError: no preference is left, or a value is out of range.
    """
    valid = _valid_rows(preferences)
    rest = np.broadcast_to(covariates, (*lengths.shape, covariates.shape[-1]))
    features = np.concatenate([lengths[..., None], rest], axis=-1)
    return soft_logistic(features, np.where(valid, preferences, _DRAW), weights * valid, c=c)


def at_equal_lengths(fit: LogisticFit, covariates: Float64[Floats, "rows columns"]) -> LengthControlled:
    """Mean prediction of a fit with the length term set to 0.

    Args:
        fit: A single fit of `length_controlled_glm`.
        covariates: Those of all rows of the model, failed judgments included.

    Returns:
        The length-controlled win rate and the coefficients.
    """
    predictions = sigmoid(covariates @ fit.coefficients[1:])
    length, *others = (float(value) for value in fit.coefficients)
    return LengthControlled(
        length_controlled_winrate=100.0 * float(predictions.mean()),
        lc_standard_error=100.0 * _standard_error(predictions),
        length=length,
        covariates=tuple(others),
        converged=fit.converged,
    )


def length_controlled(
    preferences: Float64[Floats, " rows"],
    length_baseline: Float64[Floats, " rows"],
    length_model: Float64[Floats, " rows"],
    *,
    c: float = DEFAULT_C,
) -> LengthControlled:
    """Length-controlled win rate on instructions of one's own: AlpacaEval's `minimal` variant.

    No instruction difficulties and no gamed baselines, which exist for the official instructions and baseline only.

    Args:
        preferences: Probability that the model beats the baseline, in [0, 1]. NaN rows do not enter the fit, but
            their lengths count in the scale of the length term.
        length_baseline: Length of the baseline's answers. AlpacaEval counts characters.
        length_model: Length of the model's answers, in the same unit.
        c: Inverse L1 penalty. The penalty moves the mean fitted preference towards 50 by at most 100 / (c * n) points.

    Returns:
        Percentages; `covariates` holds the quality, theta. Where the model is always shorter (or longer) by about the
        same relative amount, length and quality cannot be told apart, and a bootstrap interval is wide.

    Raises:
        ValueError: no preference is left, or a value is out of range.
    """
    ones = np.ones_like(preferences)
    quality = ones[:, None]
    lengths = length_terms(length_baseline, length_model, ones)
    return at_equal_lengths(length_controlled_glm(preferences, lengths, quality, ones, c=c), quality)


def length_controlled_statistic(
    preferences: Float64[Floats, " rows"],
    length_baseline: Float64[Floats, " rows"],
    length_model: Float64[Floats, " rows"],
    *,
    c: float = DEFAULT_C,
) -> Callable[[Float64[Floats, "resamples rows"]], Float64[Floats, " resamples"]]:
    """`length_controlled` as a function of row weights, for `cluster_bootstrap`.

    Scale and coefficients are fitted anew for every vector of weights.

    Args:
        preferences: As in `length_controlled`.
        length_baseline: As in `length_controlled`.
        length_model: As in `length_controlled`.
        c: As in `length_controlled`.

    Returns:
        From weights of the rows to length-controlled win rates, in percent.
    """
    quality = np.ones((preferences.size, 1))

    def winrate(weights: Float64[Floats, "resamples rows"]) -> Float64[Floats, " resamples"]:
        lengths = length_terms(length_baseline, length_model, weights)
        fit = length_controlled_glm(preferences, lengths, quality, weights, c=c)
        return 100.0 * sigmoid(fit.coefficients[:, 1])

    return winrate


def _valid_rows(preferences: Float64[Floats, " rows"]) -> Bool[Truths, " rows"]:
    valid = ~np.isnan(preferences)
    if not bool(valid.any()):
        raise ValueError(f"none of the {preferences.size} preferences is a number")
    outside = preferences[valid & ~((preferences >= 0) & (preferences <= 1))]
    if outside.size:
        raise ValueError(f"preferences must be in [0, 1] (or NaN), found {outside[0]}")
    return valid


def _standard_error(values: Float64[Floats, " rows"]) -> float:
    return float(values.std(ddof=1)) / values.size**0.5 if values.size > 1 else float("nan")

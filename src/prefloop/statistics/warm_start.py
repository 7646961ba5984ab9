"""Length-controlled win rates of many resamples: every fit starts where that of all rows ended."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float64

from prefloop.statistics.arrays import Floats, Truths
from prefloop.statistics.logistic import sigmoid
from prefloop.statistics.winrate import DEFAULT_C, length_controlled, length_controlled_statistic, length_terms

_TOLERANCE = 1e-10
_MOST_STEPS = 12
_TOGETHER = 65_536  # numbers in an array of rows, so that it stays in the cache: bounds the time, changes no number


def warm_length_controlled_statistic(
    preferences: Float64[Floats, " rows"],
    length_baseline: Float64[Floats, " rows"],
    length_model: Float64[Floats, " rows"],
    *,
    c: float = DEFAULT_C,
) -> Callable[[Float64[Floats, "resamples rows"]], Float64[Floats, " resamples"]]:
    """`length_controlled_statistic`, several times as fast on thousands of rows.

    The fit of a resample is mostly near that of all rows, so that plain Newton steps from there end in its minimum.
    Where they do not, which the optimality conditions tell, the resample is fitted from zero.

    Args:
        preferences: As in `length_controlled`.
        length_baseline: As in `length_controlled`.
        length_model: As in `length_controlled`.
        c: As in `length_controlled`.

    Returns:
        From weights of the rows to length-controlled win rates, in percent: the same to 1e-6.
    """
    start = length_controlled(preferences, length_baseline, length_model, c=c)
    near = np.array([start.length, *start.covariates])
    from_zero = length_controlled_statistic(preferences, length_baseline, length_model, c=c)
    known = ~np.isnan(preferences)
    targets = np.where(known, preferences, 0.5) - 0.5

    def winrates(weights: Float64[Floats, "resamples rows"]) -> Float64[Floats, " resamples"]:
        quality, ended = np.empty(weights.shape[0]), np.empty(weights.shape[0], dtype=bool)
        size = max(1, _TOGETHER // preferences.size)
        for piece in (slice(first, first + size) for first in range(0, weights.shape[0], size)):
            lengths = length_terms(length_baseline, length_model, weights[piece])
            quality[piece], ended[piece] = _newton(lengths, targets, weights[piece] * known, near, 1.0 / c)
        rates = 100.0 * sigmoid(np.where(ended, quality, 0.0))
        if not ended.all():
            rates[~ended] = from_zero(weights[~ended])
        return rates

    return winrates


def _newton(
    lengths: Float64[Floats, "resamples rows"],
    targets: Float64[Floats, " rows"],  # less 1/2
    weights: Float64[Floats, "resamples rows"],
    start: Float64[Floats, "2"],
    penalty: float,
) -> tuple[Float64[Floats, " resamples"], Bool[Truths, " resamples"]]:
    """Qualities after Newton steps with the signs of the start, and in which resamples they are the minimum."""
    signs = np.sign(start)
    length, quality = (np.full(weights.shape[0], value) for value in start)
    ended = np.zeros(weights.shape[0], dtype=bool)
    if not signs.all():  # a coefficient of 0 is held there by the penalty, which plain steps do not see
        return quality, ended
    tolerance = _TOLERANCE * (penalty + weights.sum(-1))
    with np.errstate(all="ignore"):  # a fit that runs away is thrown away
        for _ in range(_MOST_STEPS):
            # sigmoid(eta) = 1/2 + tanh(eta / 2) / 2, which is the fastest way to it
            half = np.tanh((0.5 * length)[:, None] * lengths + (0.5 * quality)[:, None])
            residual = weights * (0.5 * half - targets)
            slope_length = np.einsum("ij,ij->i", residual, lengths) + penalty * signs[0]
            slope_quality = residual.sum(-1) + penalty * signs[1]
            flat = np.maximum(np.abs(slope_length), np.abs(slope_quality)) <= tolerance
            ended = flat & (length * signs[0] > 0) & (quality * signs[1] > 0)
            if ended.all():
                break
            curvature = weights * (0.25 - (0.5 * half) ** 2)
            times_length = curvature * lengths
            both, cross, own = (
                np.einsum("ij,ij->i", times_length, lengths),
                times_length.sum(-1),
                curvature.sum(-1),
            )
            determinant = both * own - cross**2
            length = length - (own * slope_length - cross * slope_quality) / determinant
            quality = quality - (both * slope_quality - cross * slope_length) / determinant
    return quality, ended

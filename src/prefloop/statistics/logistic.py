"""Logistic regressions without intercept on soft labels, solved to machine precision."""

from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float64

from prefloop.statistics.arrays import Floats

_TOLERANCE = 1e-13
_MAX_STEPS = 100


@dataclass(frozen=True)
class LogisticFit:
    """The minimiser of a (batch of) soft-label logistic regression(s)."""

    coefficients: Float64[Floats, "*batch columns"]

    converged: bool
    """Whether the optimality conditions hold to 1e-13 of their scale, in every fit of the batch."""


@dataclass(frozen=True)
class LengthSlope:
    """How much longer answers are preferred: P(chosen wins) = sigmoid(slope * (|chosen| - |rejected|))."""

    slope: float
    """Nats of log-odds per unit of length. Negative where shorter answers win."""

    capped: bool
    """Whether the likelihood has no maximum inside (-cap, cap); the slope is then the nearer bound."""

    pairs: int
    """Pairs that entered, those of equal length included."""


def sigmoid(x: Float64[Floats, "*shape"]) -> Float64[Floats, "*shape"]:
    """1 / (1 + exp(-x)), exact to rounding in both tails."""
    return np.exp(-softplus(-x))


def softplus(x: Float64[Floats, "*shape"]) -> Float64[Floats, "*shape"]:
    """log(1 + exp(x)), without overflow."""
    return np.logaddexp(0.0, x)


def soft_logistic(
    features: Float64[Floats, "*#batch rows columns"],
    targets: Float64[Floats, " rows"],
    weights: Float64[Floats, "*#batch rows"],
    *,
    c: float,
) -> LogisticFit:
    r"""Fits P(1) = sigmoid(features @ w) to probabilities, with an L1 penalty and no intercept.

    The minimiser over w of

        |w|_1 + c * sum_i weight_i * (softplus(eta_i) - target_i * eta_i),  eta = features @ w

    which is liblinear's problem on rows that enter once in each class. All columns are penalised. Solved by Newton
    steps whose penalised quadratic is minimised exactly (3^columns sign patterns, so: few columns). Leading
    dimensions are independent problems on the same targets. A column of zeros has coefficient 0.

    Args:
        features: The columns of each row.
        targets: Probability of class 1, in [0, 1].
        weights: >= 0. A row of weight 0 is absent.
        c: > 0. `math.inf` takes the penalty away.

    Returns:
        The coefficients. Without a penalty separable rows have no minimiser: the coefficients are then finite and
        large, where the loss can no longer be told from its limit.

    Raises:
        ValueError: `c`, a feature, a target or a weight is out of range.
    """
    _check(features, targets, weights, c)
    penalty = 1.0 / c
    tolerance = _TOLERANCE * (penalty + (weights[..., None] * np.abs(features)).sum(-2))
    coefficients = np.zeros_like(tolerance)

    def objective(at: Float64[Floats, "*batch columns"]) -> Float64[Floats, "*batch 1"]:
        eta = (features @ at[..., None])[..., 0]
        losses = weights * (softplus(eta) - targets * eta)
        return penalty * np.abs(at).sum(-1, keepdims=True) + losses.sum(-1, keepdims=True)

    for _ in range(_MAX_STEPS):
        prob = sigmoid((features @ coefficients[..., None])[..., 0])
        gradient = ((weights * (prob - targets))[..., None, :] @ features)[..., 0, :]
        if bool(np.all(_violation(coefficients, gradient, penalty) <= tolerance)):
            return LogisticFit(coefficients, converged=True)
        curvature = weights * prob * (1.0 - prob)
        hessian = np.swapaxes(features * curvature[..., None], -1, -2) @ features
        direction = _penalised_newton_step(coefficients, gradient, hessian, penalty)
        current = objective(coefficients)
        slack = 1e-12 * np.abs(current)  # the last steps change the objective by less than its rounding
        rate = np.ones_like(current)
        for _ in range(30):
            worse = objective(coefficients + rate * direction) > current + slack
            if not bool(worse.any()):
                break
            rate = np.where(worse, rate / 2.0, rate)
        coefficients = coefficients + rate * direction
    return LogisticFit(coefficients, converged=False)


def _check(
    features: Float64[Floats, "*#batch rows columns"],
    targets: Float64[Floats, " rows"],
    weights: Float64[Floats, "*#batch rows"],
    c: float,
) -> None:
    if not c > 0:
        raise ValueError(f"c is {c}, expected > 0")
    if not bool(np.isfinite(features).all()):
        raise ValueError("features must be finite")
    if not bool(np.all((targets >= 0) & (targets <= 1))):
        raise ValueError("targets must be probabilities in [0, 1], without NaN")
    if not bool(np.all((weights >= 0) & np.isfinite(weights))):
        raise ValueError("weights must be finite and >= 0")


def _violation(
    coefficients: Float64[Floats, "*batch columns"], gradient: Float64[Floats, "*batch columns"], penalty: float
) -> Float64[Floats, "*batch columns"]:
    """Distance of zero from the subdifferential, by coordinate."""
    at_zero = np.maximum(np.abs(gradient) - penalty, 0.0)
    return np.where(coefficients == 0, at_zero, np.abs(gradient + penalty * np.sign(coefficients)))


def _penalised_newton_step(
    coefficients: Float64[Floats, "*batch columns"],
    gradient: Float64[Floats, "*batch columns"],
    hessian: Float64[Floats, "*batch columns columns"],
    penalty: float,
) -> Float64[Floats, "*batch columns"]:
    """Step to the exact minimiser of the local quadratic plus penalty.

    Given the minimiser's signs it solves a linear system, so it is the best of the solutions of all sign patterns.
    """
    columns = coefficients.shape[-1]
    signs = list(product((1.0, 0.0, -1.0), repeat=columns)) if penalty > 0 else [(1.0,) * columns]
    pattern = np.array(signs).reshape(len(signs), *(1,) * (coefficients.ndim - 1), columns)
    active = np.abs(pattern)
    # pinv leaves out the inactive columns (rows and columns of zeros), and directions without curvature
    inverse = np.linalg.pinv(hessian * active[..., None] * active[..., None, :], hermitian=True)
    dropped = -(1.0 - active) * coefficients
    right = -gradient - penalty * pattern - (hessian @ dropped[..., None])[..., 0]
    # solved for the step, not the end point: its rounding error shrinks with it
    steps = dropped + (inverse @ (active * right)[..., None])[..., 0]
    values = (steps * (gradient + 0.5 * (hessian @ steps[..., None])[..., 0])).sum(-1)
    values = values + penalty * (np.abs(coefficients + steps) - np.abs(coefficients)).sum(-1)
    best = np.argmin(values, axis=0)
    return np.take_along_axis(steps, best[None, ..., None], axis=0)[0]


def length_slope(
    gaps: Float64[Floats, " pairs"],
    *,
    cap: float,
    weights: Float64[Floats, " pairs"] | None = None,
    prob_chosen_wins: Float64[Floats, " pairs"] | None = None,
) -> LengthSlope:
    r"""Maximum-likelihood slope of winning on length: how much of the preference length alone explains.

    The maximiser over a in [-cap, cap] of

        sum_i weight_i * [p_i * logsigmoid(a * gap_i) + (1 - p_i) * logsigmoid(-a * gap_i)]

    which is concave; its score is zero at the maximiser to rounding. Not clipped at 0. All gaps zero give 0.

    Args:
        gaps: |chosen| - |rejected| in tokens (or another unit of length).
        cap: Largest slope returned, > 0. It is reached where the longer (or the shorter) answer wins every pair.
        weights: >= 0; 1 each if not given.
        prob_chosen_wins: p, in [0, 1]; 1 each if not given, the observed choices.

    Returns:
        The slope, in nats of log-odds per unit of length.

    Raises:
        ValueError: there are no pairs, or a value is out of range.
    """
    weight = np.ones_like(gaps) if weights is None else weights
    prob = np.ones_like(gaps) if prob_chosen_wins is None else prob_chosen_wins
    if gaps.size == 0 or not bool(np.isfinite(gaps).all()):
        raise ValueError("gaps must be finite, and at least one")
    if not 0 < cap < np.inf:
        raise ValueError(f"cap is {cap}, expected finite and > 0")
    if not bool(np.all((weight >= 0) & np.isfinite(weight) & (prob >= 0) & (prob <= 1))):
        raise ValueError("weights must be finite and >= 0, prob_chosen_wins in [0, 1]")
    scale = float((weight * np.abs(gaps)).sum())
    if scale == 0:
        return LengthSlope(0.0, capped=False, pairs=gaps.size)

    def score(slope: float) -> float:
        eta = slope * gaps
        return float((weight * gaps * (prob * sigmoid(-eta) - (1.0 - prob) * sigmoid(eta))).sum())

    # >= and <=: on separable pairs the score is positive for every slope, but underflows to 0
    if score(cap) >= 0 or score(-cap) <= 0:
        return LengthSlope(cap if score(cap) >= 0 else -cap, capped=True, pairs=gaps.size)
    low, high, slope = -cap, cap, 0.0
    for _ in range(_MAX_STEPS):
        current = score(slope)
        low, high = (slope, high) if current > 0 else (low, slope)
        eta = slope * gaps
        curvature = float((weight * gaps**2 * sigmoid(eta) * sigmoid(-eta)).sum())
        following = slope + current / curvature if curvature > 0 else low
        if not low < following < high:
            following = (low + high) / 2.0
        if abs(current) <= np.finfo(float).eps * scale or following == slope:
            break
        slope = following
    return LengthSlope(slope, capped=False, pairs=gaps.size)

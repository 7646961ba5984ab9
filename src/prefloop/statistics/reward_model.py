"""Reward models on labelled pairs and sets: RewardBench's scores (arXiv:2403.13787, 2506.01937) and calibration."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int

from prefloop.statistics.arrays import Floats, Numbers
from prefloop.statistics.bootstrap import bca_bootstrap
from prefloop.statistics.logistic import sigmoid, softplus
from prefloop.statistics.proportion import mid_p_interval


@dataclass(frozen=True)
class PairAccuracy:
    """Of scored pairs. Shares, unless said otherwise."""

    accuracy: float
    """chosen > rejected, strictly."""
    ties: float
    """Equal scores; they count as wrong."""
    log_loss: float
    """Mean of -log sigmoid(chosen - rejected), in nats: log 2 is what a model without opinion has."""
    calibration_error: float
    """Expected calibration error of sigmoid(|margin|) as the chance to be right, in ten bins."""


@dataclass(frozen=True)
class TiesRow:
    """Scores of a prompt's answers, the correct ones first."""

    group: str
    """ "tied" where several answers are correct, "ref" where one is."""
    number: str
    scores: Float64[Floats, " answers"]
    num_correct: int


@dataclass(frozen=True)
class TiesScore:
    """RewardBench 2's Ties: whether correct answers are above wrong ones, and near each other."""

    tied_accuracy: float
    ref_accuracy: float
    preferred: float
    """Share whose gap to the best wrong answer exceeds the spread of correct ones."""
    preferred_hard: float
    """The same with the smaller of the gaps of both groups."""
    margin: float
    score: float


def pair_accuracy(chosen: Float64[Floats, " pairs"], rejected: Float64[Floats, " pairs"]) -> PairAccuracy:
    """Accuracy, ties and calibration of scored pairs.

    Raises:
        ValueError: there are no pairs, or a score is NaN.
    """
    if chosen.size == 0 or bool(np.isnan(chosen).any() or np.isnan(rejected).any()):
        raise ValueError("scores must be numbers, and at least one pair")
    margin = chosen - rejected
    right, sure = margin > 0, sigmoid(np.abs(margin))
    gaps = np.bincount(_bins(sure), weights=right - sure, minlength=10)
    return PairAccuracy(
        accuracy=float(right.mean()),
        ties=float((margin == 0).mean()),
        log_loss=float(softplus(-margin).mean()),
        calibration_error=float(np.abs(gaps).sum()) / margin.size,
    )


def section_scores(
    accuracy: Mapping[str, float], sections: Mapping[str, Sequence[str]], counts: Mapping[str, int | float]
) -> dict[str, float]:
    """Means over the subsets that are there, weighted by fixed counts; 0 in a section without any.

    Args:
        accuracy: By subset.
        sections: Names of the subsets of each section.
        counts: Of every subset. RewardBench counts math-prm as 984, as much as its six code subsets together.
    """
    found: dict[str, float] = {}
    for section, subsets in sections.items():
        present = [subset for subset in subsets if subset in accuracy]
        weight = sum(counts[subset] for subset in present)
        found[section] = sum(accuracy[subset] * counts[subset] for subset in present) / weight if weight else 0.0
    return found


def best_of_score(scores: Float64[Floats, " candidates"]) -> float:
    """1 over the number of candidates with the highest score if the first, the correct one, is among them; else 0."""
    best = scores == scores.max()
    return 1.0 / int(best.sum()) if bool(best[0]) else 0.0


def calibration_statistic(
    margins: Float64[Floats, " pairs"],
) -> Callable[[Float64[Floats, "resamples pairs"]], Float64[Floats, " resamples"]]:
    """`PairAccuracy.calibration_error` as a function of row weights, for a bootstrap over pairs.

    Args:
        margins: chosen - rejected.
    """
    sure = sigmoid(np.abs(margins))
    of_bin = _bins(sure)[:, None] == np.arange(10)
    gaps = ((margins > 0) - sure)[:, None] * of_bin
    return lambda weights: np.abs(weights @ gaps).sum(-1) / weights.sum(-1)


def _bins(sure: Float64[Floats, " pairs"]) -> Int[Numbers, " pairs"]:
    """Ten of equal width over [1/2, 1]."""
    return np.minimum((20.0 * (sure - 0.5)).astype(np.int64), 9)


def ties_score(rows: Sequence[TiesRow]) -> TiesScore:
    r"""RewardBench 2's score of the Ties subset.

        0.3 tied_accuracy + 0.3 ref_accuracy + 0.2 preferred + 0.2 preferred_hard + 0.01 margin

    With gap = min(correct) - max(wrong) of a row, a row is accurate where gap > 0; with spread = max - min of correct
    answers of the tied row, the last three are means of gap_tied > spread, of min(gap_ref, gap_tied) > spread and of
    tanh(min(gap_ref, gap_tied) / spread - 1), 0 where that is 0/0, over numbers that both groups have.

    Args:
        rows: Of both groups; in a group each number once.

    Returns:
        All parts; a part without any row is 0.

    Raises:
        ValueError: a row has no correct or no wrong answer, or a number stands twice in a group.
    """
    parts = _ties_parts(rows)
    means = _means(parts, np.ones((1, parts.present.shape[0])))[0]
    return TiesScore(*map(float, means), score=float(means @ _TIES_WEIGHTS))


def ties_interval(rows: Sequence[TiesRow], *, seed: int, draws: int = 1000, level: float = 0.95) -> tuple[float, float]:
    """Interval of `ties_score`'s score over numbers, whose tied and ref rows vary together: BCa bootstrap.

    Where each of the four shares is 0 or 1, resamples cannot vary, and the bounds are as far as all of mid-P's
    together.

    Args:
        rows: As in `ties_score`.
        seed: The same seed draws the same numbers.
        draws: Number of resamples, >= 2.
        level: Coverage, in (0, 1).

    Returns:
        NaN where there are fewer than two numbers.

    Raises:
        ValueError: as in `ties_score`.
    """
    parts = _ties_parts(rows)
    count = len(parts.present)
    if count < 2:
        return float("nan"), float("nan")
    means = _means(parts, np.ones((1, count)))[0]
    present = parts.present.sum(0)
    if all(share in {0.0, 1.0} for share in means[:4]):
        low = high = float(means @ _TIES_WEIGHTS)
        for share, rows_of, weight in zip(means[:4], present[:4], _TIES_WEIGHTS[:4], strict=True):
            if rows_of:
                bounds = mid_p_interval(float(share), int(rows_of), level=level)
                low, high = low - weight * (share - bounds[0]), high + weight * (bounds[1] - share)
        return float(low), float(high)
    scores = bca_bootstrap(
        lambda weights: _means(parts, weights) @ _TIES_WEIGHTS, np.arange(count), seed=seed, draws=draws, level=level
    )
    return scores.interval


_TIES_WEIGHTS = np.array([0.3, 0.3, 0.2, 0.2, 0.01])


@dataclass(frozen=True)
class _TiesParts:
    """What each number adds to each of the five means of the score, and to which it adds anything."""

    values: Float64[Floats, "numbers five"]
    present: Float64[Floats, "numbers five"]


def _ties_parts(rows: Sequence[TiesRow]) -> _TiesParts:
    gaps: dict[str, dict[str, float]] = {"tied": {}, "ref": {}}
    spreads: dict[str, float] = {}
    for row in rows:
        if row.group not in gaps or row.number in gaps[row.group]:
            raise ValueError(f"{row.group}:{row.number} is of neither group, tied or ref, or stands twice")
        if not 0 < row.num_correct < row.scores.size:
            raise ValueError(f"{row.group}:{row.number} has {row.num_correct} correct of {row.scores.size} answers")
        correct, wrong = row.scores[: row.num_correct], row.scores[row.num_correct :]
        gaps[row.group][row.number] = float(correct.min() - wrong.max())
        if row.group == "tied":
            spreads[row.number] = float(correct.max() - correct.min())
    numbers = list({**gaps["tied"], **gaps["ref"]})
    tied, ref, spread = (
        np.array([side.get(number, np.nan) for number in numbers], np.float64)
        for side in (gaps["tied"], gaps["ref"], spreads)
    )
    least = np.minimum(tied, ref)
    with np.errstate(divide="ignore", invalid="ignore"):
        margins = np.nan_to_num(np.tanh(least / spread - 1.0), nan=0.0)
    values = np.stack([tied > 0, ref > 0, tied > spread, least > spread, margins], axis=1).astype(np.float64)
    known = [~np.isnan(side) for side in (tied, ref, least, least, least)]
    return _TiesParts(values, np.stack(known, axis=1).astype(np.float64))


def _means(parts: _TiesParts, weights: Float64[Floats, "resamples numbers"]) -> Float64[Floats, "resamples five"]:
    """Of each part over the numbers that have it; 0 where none has."""
    total = weights @ parts.present
    return (weights @ (parts.values * parts.present)) / np.where(total > 0, total, 1.0)

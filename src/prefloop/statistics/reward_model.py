"""Reward models on labelled pairs and sets: RewardBench's scores (arXiv:2403.13787, 2506.01937) and calibration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from prefloop.statistics.arrays import Floats
from prefloop.statistics.logistic import sigmoid, softplus


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
    bins = np.minimum((20.0 * (sure - 0.5)).astype(np.int64), 9)
    gaps = np.bincount(bins, weights=right - sure, minlength=10)
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
    both = [number for number in gaps["tied"] if number in gaps["ref"]]
    tied, ref, spread = (np.array([side[number] for number in both]) for side in (gaps["tied"], gaps["ref"], spreads))
    least = np.minimum(tied, ref)
    with np.errstate(divide="ignore", invalid="ignore"):
        margins = np.nan_to_num(np.tanh(least / spread - 1.0), nan=0.0)

    def mean(values: Sequence[bool] | Float64[Floats, " rows"]) -> float:
        return float(np.mean(values)) if len(values) else 0.0

    tied_accuracy, ref_accuracy = (mean([gap > 0 for gap in gaps[group].values()]) for group in ("tied", "ref"))
    preferred, hard = mean((tied > spread).astype(np.float64)), mean((least > spread).astype(np.float64))
    margin = mean(margins)
    score = 0.3 * tied_accuracy + 0.3 * ref_accuracy + 0.2 * preferred + 0.2 * hard + 0.01 * margin
    return TiesScore(tied_accuracy, ref_accuracy, preferred, hard, margin, score)

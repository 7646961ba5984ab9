"""What a data set is like: whether longer answers win, its scores, its repeated prompts. One pass, flat memory."""

from dataclasses import dataclass
from random import Random

import numpy as np

from prefloop.data.checks import overall_scores, preferred_pairs
from prefloop.data.given import Given
from prefloop.statistics import length_slope, wilson_interval

KEPT_VALUES = 10_000
"""Values that quantiles are of: all of them up to this many, then a uniform sample (reservoir, fixed seed)."""
QUANTILES = (0, 5, 25, 50, 75, 95, 100)
SLOPE_CAP = 1.0
"""Nats a word. Where longer answers win every pair the slope has no maximum, and this is said instead."""


@dataclass(frozen=True)
class Spread:
    """The distribution of a number."""

    count: int
    mean: float
    quantiles: dict[int, float]
    """By percent; 0 and 100 are exact, the others are of at most KEPT_VALUES values."""
    sampled: bool
    """Whether there were more values than were kept."""


@dataclass(frozen=True)
class Lengths:
    """Length and preference, in words. Exact: the slope's likelihood needs only how often each difference occurs."""

    pairs: int
    equal: int
    """Pairs whose answers have as many words."""
    longer_chosen: float | None
    """Share of the longer answer among the others, soft labels counted as they are; None where there is no other."""
    interval: tuple[float, float] | None
    """Wilson's 95 %, pairs taken as independent."""
    chosen_words: float
    rejected_words: float
    slope: float
    """P(chosen wins) = sigmoid(slope * difference in words); nats a word."""
    capped: bool
    """Whether the slope has no maximum: the longer (or the shorter) answer wins every pair."""


@dataclass(frozen=True)
class Figures:
    """What the accepted rows are like."""

    prompts: int
    """Different prompts."""
    repeated_rows: int
    """Rows whose prompt an earlier row has."""
    most_rows: int
    """Rows of the most repeated prompt."""
    answers: int
    lengths: Lengths | None
    """None where the rows compare nothing."""
    scores: Spread | None
    margins: Spread | None
    """Score of the better answer minus the worse one's."""


class Sample:
    """Numbers as they come, of which a uniform sample is kept (Vitter 1985, algorithm R)."""

    def __init__(self) -> None:
        self._random = Random(0)
        self._kept: list[float] = []
        self._count = 0
        self._total = 0.0
        self._low, self._high = float("inf"), float("-inf")

    def add(self, value: float) -> None:
        """Takes one number."""
        self._count += 1
        self._total += value
        self._low, self._high = min(self._low, value), max(self._high, value)
        if self._count <= KEPT_VALUES:
            self._kept.append(value)
        elif (place := self._random.randrange(self._count)) < KEPT_VALUES:
            self._kept[place] = value

    def spread(self) -> Spread | None:
        """The distribution so far; None where no number came."""
        if not self._count:
            return None
        inner = [percent for percent in QUANTILES if 0 < percent < 100]
        values = np.percentile(self._kept, inner)
        quantiles = dict(zip(inner, (float(value) for value in values), strict=True))
        quantiles = {0: self._low, **quantiles, 100: self._high}
        return Spread(self._count, self._total / self._count, quantiles, sampled=self._count > KEPT_VALUES)


class Tally:
    """Figures in the making."""

    def __init__(self) -> None:
        self._prompts = self._repeated = self._most = self._answers = self._pairs = 0
        self._chosen_words = self._rejected_words = 0
        self._weight_of_gap: dict[int, float] = {}
        """Summed probabilities, by words of the winner minus words of the loser."""
        self._scores, self._margins = Sample(), Sample()

    def add(self, given: Given, times: int) -> None:
        """Takes one accepted row, whose prompt has come so many times, this one included."""
        self._prompts += times == 1
        self._repeated += times > 1
        self._most = max(self._most, times)
        self._answers += len(given.responses)
        scores = overall_scores(given)
        for value in scores.values():
            self._scores.add(value)
        pairs = list(preferred_pairs(given)) or _best_against_worst(scores)
        words = {response.response_id: len(response.text.split()) for response in given.responses} if pairs else {}
        for better, worse, prob in pairs:
            self._compare(words[better], words[worse], prob)
            if better in scores and worse in scores:
                self._margins.add(scores[better] - scores[worse])

    def figures(self) -> Figures:
        """The figures of the rows so far."""
        return Figures(
            prompts=self._prompts,
            repeated_rows=self._repeated,
            most_rows=self._most,
            answers=self._answers,
            lengths=self._lengths() if self._pairs else None,
            scores=self._scores.spread(),
            margins=self._margins.spread(),
        )

    def _compare(self, chosen: int, rejected: int, prob: float) -> None:
        self._pairs += 1
        self._chosen_words += chosen
        self._rejected_words += rejected
        for gap, weight in ((chosen - rejected, prob), (rejected - chosen, 1 - prob)):
            if weight:
                self._weight_of_gap[gap] = self._weight_of_gap.get(gap, 0.0) + weight

    def _lengths(self) -> Lengths:
        gaps = sorted(self._weight_of_gap)
        longer = sum(weight for gap, weight in self._weight_of_gap.items() if gap > 0)
        equal = round(self._weight_of_gap.get(0, 0.0))
        unequal = self._pairs - equal
        share = longer / unequal if unequal else None
        fit = length_slope(
            np.array(gaps, dtype=np.float64),
            cap=SLOPE_CAP,
            weights=np.array([self._weight_of_gap[gap] for gap in gaps], dtype=np.float64),
        )
        return Lengths(
            pairs=self._pairs,
            equal=equal,
            longer_chosen=share,
            interval=None if share is None else wilson_interval(share, unequal),
            chosen_words=self._chosen_words / self._pairs,
            rejected_words=self._rejected_words / self._pairs,
            slope=fit.slope,
            capped=fit.capped,
        )


def _best_against_worst(scores: dict[str, float]) -> list[tuple[str, str, float]]:
    """What scores alone say of two answers."""
    if len(scores) < 2:
        return []
    better, worse = max(scores, key=scores.__getitem__), min(scores, key=scores.__getitem__)
    return [(better, worse, 1.0)] if scores[better] > scores[worse] else []

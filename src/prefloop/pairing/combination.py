"""One number an answer from what several judges said: means, worst cases, uncertainty, win rates. Pure functions."""

from collections.abc import Mapping, Sequence
from math import exp, fsum, isnan
from typing import Annotated, Literal

from pydantic import Field

from prefloop.records import Group

Combine = Literal["mean", "worst_case", "uncertainty_weighted"]
"""How the scores of several judges become one (arXiv:2310.02743, section 3)."""
Orders = Literal["mean", "agree"]
"""What a comparison counts that was judged in both orders: the mean of the two, or nothing where they contradict."""
Uncertainty = Annotated[float, Field(ge=0)]


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)), without overflow."""
    return 1 / (1 + exp(-x)) if x >= 0 else exp(x) / (1 + exp(x))


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean, the same in whatever order the values stand."""
    return fsum(values) / len(values)


def sign(x: float) -> int:
    """1, 0 or -1."""
    return (x > 0) - (x < 0)


def combined(said: Sequence[float], combine: Combine, uncertainty: float = 0.5, ddof: Literal[0, 1] = 0) -> float:
    """The scores that several judges gave one answer, as one (Coste et al., arXiv:2310.02743, equations 2 to 4).

    Args:
        said: a score a judge, on a common scale.
        combine: their mean, their smallest, or their mean less `uncertainty` times their variance.
        uncertainty: weight of the variance (lambda); 0 is the mean.
        ddof: the variance is divided by the number of judges less this; one judge has no variance.
    """
    if combine == "worst_case":
        return min(said)
    center = mean(said)
    if combine == "mean" or len(said) == 1:
        return center
    return center - uncertainty * fsum((score - center) ** 2 for score in said) / (len(said) - ddof)


def scores_by_judge(group: Group) -> dict[str, dict[str, float]]:
    """Judge -> response -> mean of the valid overall scores that it gave (several where it was asked repeatedly)."""
    said: dict[str, dict[str, list[float]]] = {}
    known = {response.response_id for response in group.responses}
    for judgment in group.judgments:
        if judgment.kind != "score" or judgment.aspect != "overall":
            continue
        for subject, value in zip(judgment.subjects, judgment.values, strict=True):
            if value is not None and not isnan(value) and subject in known:
                said.setdefault(judgment.judge, {}).setdefault(subject, []).append(value)
    return {judge: {subject: mean(values) for subject, values in by.items()} for judge, by in said.items()}


def of_judge(by_judge: Mapping[str, Mapping[str, float]], name: str) -> Mapping[str, float]:
    """Scores of the judge of a name, or of the first whose name begins with it up to a colon; nothing where none has.

    A name ends with versions and settings, which a recipe need not repeat.
    """
    found = (said for judge, said in by_judge.items() if f"{judge}:".startswith(f"{name}:"))
    return next(found, dict[str, float]())


def combined_scores(group: Group, combine: Combine, uncertainty: float = 0.5) -> dict[str, float]:
    """One score an answer, in the order of the responses; an answer that a judge did not score has none."""
    by_judge = scores_by_judge(group)
    return {
        response.response_id: combined(
            [said[response.response_id] for said in by_judge.values()], combine, uncertainty=uncertainty
        )
        for response in group.responses
        if by_judge and all(response.response_id in said for said in by_judge.values())
    }


def win_matrix(group: Group, orders: Orders = "mean") -> dict[tuple[str, str], float]:
    """P(first wins) of every ordered pair that was compared, averaged over both orders and over repeats.

    Averaging over orders takes out what a judge gives for being shown first. Under `agree` a pair that was shown in
    both orders is left out where they do not say the same - one wins, the other wins, a tie -, or one says nothing.
    """
    said: dict[tuple[str, str], list[float]] = {}
    for judgment in group.judgments:
        if judgment.kind != "preference" or judgment.aspect != "overall" or len(judgment.subjects) != 2:
            continue
        value = judgment.values[0]
        first, second = judgment.subjects
        if first == second:
            continue
        valid = said.setdefault((first, second), [])
        if value is not None and not isnan(value):
            valid.append(value)
    matrix: dict[tuple[str, str], float] = {}
    for first, second in [*said, *((second, first) for first, second in said)]:
        ways = [(said.get((first, second)), False), (said.get((second, first)), True)]
        both = [1 - mean(values) if turned else mean(values) for values, turned in ways if values]
        in_both = all(values is not None for values, _ in ways)
        contradict = in_both and (len(both) < 2 or sign(both[0] - 0.5) != sign(both[1] - 0.5))
        if both and not (orders == "agree" and contradict):
            matrix[first, second] = mean(both)
    return matrix


def win_rates(prefers: Sequence[Sequence[float]], *, include_self: bool = True) -> list[float]:
    """P(win against a random one of the answers), for each of K.

    Args:
        prefers: P(i is preferred to j), K times K; the diagonal is not read.
        include_self: average over all K, an answer against itself counting 1/2, so that the rates average to 1/2
            (what SPPO's published code does); else over the K - 1 others. A single answer has 1/2.
    """
    size = len(prefers)
    if size == 1:
        return [0.5]
    others = [fsum(row[j] for j in range(size) if j != i) for i, row in enumerate(prefers)]
    return [fsum((total, 0.5)) / size if include_self else total / (size - 1) for total in others]


def bradley_terry_matrix(scores: Sequence[float]) -> list[list[float]]:
    """P(i is preferred to j) = sigmoid(score i - score j), K times K."""
    return [[sigmoid(first - second) for second in scores] for first in scores]


def best(ranked: Mapping[str, float]) -> str:
    """The first of the answers with the highest score."""
    return max(ranked, key=ranked.__getitem__)


def worst(ranked: Mapping[str, float]) -> str:
    """The first of the answers with the lowest score."""
    return min(ranked, key=ranked.__getitem__)


def extremes(scores: Sequence[float | None]) -> tuple[int, int] | None:
    """Indices of the first highest and the first lowest score; None where fewer than two differ.

    Scores that are None or NaN are passed over.
    """
    known = {index: score for index, score in enumerate(scores) if score is not None and not isnan(score)}
    if not known:
        return None
    high, low = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
    return None if known[high] == known[low] else (high, low)

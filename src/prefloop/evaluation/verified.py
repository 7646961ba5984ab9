"""Accuracy by a rule: the final number of an answer against that of the reference."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prefloop.statistics import clustered_share

_NUMBER = re.compile(r"-?(?:\d[\d,]*)?\.?\d+")


@dataclass(frozen=True)
class Verified:
    """A share of right answers."""

    accuracy: float
    interval: tuple[float, float]
    """95 %, BCa over prompts; NaN with a single prompt."""
    without_number: int
    """Answers in which no final number was found; they are wrong."""
    n: int


def final_number(text: str, marker: str = "A:") -> float | None:
    """The last number behind the last marker, thousands separators left out; None without marker or number.

    GSM8K's references have the marker "####", model solutions of its repository "A:".
    """
    _, found, behind = text.rpartition(marker)
    numbers = _NUMBER.findall(behind) if found else []
    return float(numbers[-1].replace(",", "")) if numbers else None


def is_right(answer: str, reference: str, *, marker: str = "A:", reference_marker: str = "A:") -> bool:
    """Whether both have a final number and it is the same."""
    found = final_number(answer, marker)
    return found is not None and found == final_number(reference, reference_marker)


def verified_accuracy(
    answers: Sequence[str],
    references: Sequence[str],
    prompts: Sequence[str],
    *,
    marker: str = "A:",
    reference_marker: str = "A:",
    draws: int = 1000,
    seed: int = 0,
) -> Verified:
    """Share of answers that are right, with its interval over prompts.

    Args:
        answers: What a policy wrote.
        references: One an answer.
        prompts: What answers vary together with.
        marker: What stands before an answer's final number.
        reference_marker: What stands before a reference's.
        draws: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        ValueError: there is no answer, the lists differ in length, or a reference has no number.
    """
    found = [final_number(answer, marker) for answer in answers]
    gold = [final_number(reference, reference_marker) for reference in references]
    if None in gold:
        raise ValueError(f"reference {gold.index(None) + 1} has no number behind {reference_marker!r}")
    right = np.array([float(one is not None and one == other) for one, other in zip(found, gold, strict=True)])
    estimate = clustered_share(right, np.array(prompts), seed=seed, draws=draws)
    return Verified(estimate.value, estimate.interval, found.count(None), len(found))

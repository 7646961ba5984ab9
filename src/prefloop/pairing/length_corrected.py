"""Best against worst after a charge on length that is set so that chosen and rejected are equally long on average."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

from prefloop.pairing.combination import mean

Candidate = tuple[int, float, int]
"""Index of an answer in its prompt, score, length."""
Ties = Literal["first", "last"]
"""Which of equally good answers is chosen; the first of equally bad ones is always rejected."""


@dataclass(frozen=True)
class LengthSearch:
    """What a search over charges on length found."""

    alpha: float
    """Score a unit of length."""
    mean_length_gap: float
    """Mean over pairs of the chosen answer's length less the rejected one's, at alpha."""
    mean_length_gap_at_start: float
    """At the first value that was tried."""
    evaluated: int
    """Values that were tried."""
    pairs: list[tuple[int, int] | None]
    """Chosen and rejected by index; None for a prompt without a pair."""


def usable(num_chars: int, *, cut: bool, min_chars: int, max_chars: int) -> bool:
    """An answer ended by itself, and its length lies strictly between the bounds, in characters (DICE)."""
    return not cut and min_chars < num_chars < max_chars


def charged_pair(candidates: Sequence[Candidate], alpha: float, ties: Ties = "first") -> tuple[int, int] | None:
    """Best and worst by score less alpha times length; None for fewer than two answers, or none better than another."""
    charged = [(score - alpha * length, index) for index, score, length in candidates]
    if len(charged) < 2:
        return None
    low = min(charged)
    high = max(charged) if ties == "last" else max(charged, key=lambda one: (one[0], -one[1]))
    if high[0] == low[0] and ties == "first":
        return None
    return high[1], low[1]


def search_alpha(
    prompts: Sequence[Sequence[Candidate]],
    grid: Sequence[float],
    *,
    stop_at_rise: bool,
    ties: Ties = "first",
) -> LengthSearch:
    """The charge on length at which chosen and rejected answers are most nearly equally long on average.

    Args:
        prompts: the answers of each prompt that may become a pair.
        grid: charges to try, in this order; the first of equally good ones is taken.
        stop_at_rise: stop at the first charge whose absolute gap is above the smallest so far (DICE's published code,
            arXiv:2406.09760); else try all.
        ties: which of equally good answers is chosen.
    """
    lengths = [{index: length for index, _, length in candidates} for candidates in prompts]

    def at(alpha: float) -> tuple[list[tuple[int, int] | None], float]:
        pairs = [charged_pair(candidates, alpha, ties) for candidates in prompts]
        gaps = [length[two[0]] - length[two[1]] for two, length in zip(pairs, lengths, strict=True) if two]
        return pairs, mean(gaps) if gaps else 0.0

    pairs, first_gap = at(grid[0])
    found = LengthSearch(grid[0], first_gap, first_gap, 1, pairs)
    for evaluated, alpha in enumerate(grid[1:], start=2):
        pairs, gap = at(alpha)
        if abs(gap) < abs(found.mean_length_gap):
            found = LengthSearch(alpha, gap, first_gap, evaluated, pairs)
        elif stop_at_rise and abs(gap) > abs(found.mean_length_gap):
            break
    else:
        evaluated = len(grid)
    return LengthSearch(found.alpha, found.mean_length_gap, first_gap, evaluated, found.pairs)


def arange(start: float, stop: float, step: float) -> list[float]:
    """start, start + step, ... below stop."""
    return [start + number * step for number in range(max(ceil((stop - start) / step), 1))]

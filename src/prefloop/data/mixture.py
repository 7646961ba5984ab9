"""How much of each of several sources goes into a mixture, and which of its rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor

from prefloop.records import seed_for


@dataclass(frozen=True)
class Part:
    """What a recipe says of one source of a mixture."""

    weight: float | None = None
    """Its share of the mixture, as a multiple of what others have; None: whatever it has."""
    cap: int | None = None
    """Rows at most."""


def part_names(sources: Sequence[str]) -> list[str]:
    """What the parts of a mixture are called: as their sources, with a number where two have one name.

    A source that is not mixed has the name "", also where it has a weight or a cap.

    Example:
        >>> part_names(["a.jsonl", "b.jsonl", "a.jsonl"])
        ['1. a.jsonl', 'b.jsonl', '3. a.jsonl']
    """
    if len(sources) == 1:
        return [""]
    return [name if sources.count(name) == 1 else f"{number}. {name}" for number, name in enumerate(sources, 1)]


def rows_taken(available: Sequence[int], parts: Sequence[Part]) -> list[int]:
    """Rows that a mixture takes of each source: no row twice.

    First each source is cut to its cap. Then, with weights, as many rows are taken as there can be in the proportion of
    the weights: all of the source that is scarcest for its weight, and of the others what belongs to that. A source
    without a weight is not weighed against the others.

    Args:
        available: rows that each source has.
        parts: what the recipe says of it.

    Example:
        >>> rows_taken([1000, 500], [Part(), Part(cap=200)])
        [1000, 200]
        >>> rows_taken([1000, 500], [Part(weight=3), Part(weight=1)])
        [1000, 333]
    """
    capped = [rows if part.cap is None else min(rows, part.cap) for rows, part in zip(available, parts, strict=True)]
    weighed = [(rows, part.weight) for rows, part in zip(capped, parts, strict=True) if part.weight is not None]
    rows_of_weight_one = min((rows / weight for rows, weight in weighed), default=0.0)
    return [
        rows if part.weight is None else min(rows, floor(part.weight * rows_of_weight_one + 1e-9))
        for rows, part in zip(capped, parts, strict=True)
    ]


def rank_in_mixture(prompt_id: str, seed: int) -> int:
    """The rows of lowest rank are taken: rows of one prompt together, whatever their order in the file."""
    return seed_for(seed, "mixture", prompt_id)

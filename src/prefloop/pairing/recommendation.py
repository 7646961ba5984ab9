"""A recommender's own recommendation as the rejected item (SPRec, arXiv:2412.09243)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

QUOTED = re.compile(r'"([^"]*)"')


@dataclass(frozen=True)
class Recommendation:
    """What a user went on to, and what the model recommends."""

    prompt: str
    chosen: str
    """Quoted, with a newline behind it."""
    prediction: str


def first_item(prediction: str) -> str | None:
    """The first quoted name of a text, in quotes with a newline behind it; None where there is none."""
    found = QUOTED.search(prediction)
    return f'"{found[1]}"\n' if found and found[1] else None


def self_play_rows(
    rows: Sequence[Recommendation], *, limit: int, drop_equal: bool = True
) -> list[tuple[Recommendation, str]]:
    """Rows with the model's own item as the rejected one, until `limit` are kept.

    Args:
        rows: in order.
        limit: rows to keep; spare ones stand in for rows without a quoted item.
        drop_equal: leave out rows whose recommendation is the observed item, which have nothing to teach.
    """
    kept: list[tuple[Recommendation, str]] = []
    for row in rows:
        if len(kept) >= limit:
            break
        rejected = first_item(row.prediction)
        if rejected is not None and not (drop_equal and rejected == row.chosen):
            kept.append((row, rejected))
    return kept

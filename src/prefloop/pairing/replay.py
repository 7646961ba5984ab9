"""How many examples of which origin go into a round's training, and which (DICE, DNO)."""

from collections.abc import Sequence
from math import floor

from prefloop.records import seed_for


def offline_and_generated(gamma: float, num_offline: int, num_generated: int) -> tuple[int, int]:
    """(from generated, from offline) pairs, such that offline ones are a share of about gamma (DICE, arXiv:2406.09760).

    Args:
        gamma: share of offline pairs; 1 takes offline pairs alone.
        num_offline: how many there are.
        num_generated: how many the round made.
    """
    if gamma >= 1:
        return 0, num_offline
    generated = min(floor(num_offline * (1 - gamma)), num_generated)
    return generated, min(floor(gamma * generated / (1 - gamma)), num_offline)


def replayed(current: int, earlier: Sequence[int], shares: Sequence[float]) -> list[int]:
    """How many examples of each earlier round are mixed in, the last round first (DNO: 30 %, 15 %, halving on).

    As many as there are, but no round more than its share of the mixture that comes of it.

    Args:
        current: examples of this round, all of which are taken.
        earlier: examples of the rounds before, the last one first.
        shares: of the mixture, the last round first; below 1 together. Rounds beyond them bring nothing.
    """
    bounds = [*shares, *(0.0 for _ in earlier)]
    taken = list(earlier)
    while True:
        total = current + sum(taken)
        fewer = [min(number, _whole(share * total)) for number, share in zip(taken, bounds, strict=False)]
        if fewer == taken:
            return taken
        taken = fewer


def _whole(amount: float) -> int:
    """Rounded down, after rounding errors: 0.3 of 1000 is 300."""
    return floor(amount + 1e-9)


def drawn(example_ids: Sequence[str], count: int, *words: str | int) -> set[str]:
    """So many of some examples, drawn by the words; a larger count draws the same and more.

    Args:
        example_ids: to draw from.
        count: to draw at most.
        words: what the draw is for; equal words draw alike, wherever an example stands in its file.
    """
    return set(sorted(example_ids, key=lambda one: (seed_for(*words, one), one))[:count])

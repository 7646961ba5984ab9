"""How many examples of which origin go into a round's training, and which (DICE, DNO)."""

from collections.abc import Mapping, Sequence
from math import floor


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

    A round is at most its share of the whole mixture; where there are fewer, the mixture is smaller.

    Args:
        current: examples of this round, all of which are taken.
        earlier: examples of the rounds before, the last one first.
        shares: of the mixture, the last round first; below 1 together. Rounds beyond them bring nothing.
    """
    used = list(shares[: len(earlier)])
    taken = [0] * len(earlier)
    bound = list(range(len(used)))
    while True:
        # The mixture's size if no round were exhausted but those that already are.
        exhausted = [index for index in range(len(used)) if index not in bound]
        total = (current + sum(earlier[index] for index in exhausted)) / (1 - sum(used[index] for index in bound))
        scarce = [index for index in bound if earlier[index] < floor(used[index] * total)]
        if not scarce:
            for index in range(len(used)):
                taken[index] = floor(used[index] * total) if index in bound else earlier[index]
            return taken
        bound = [index for index in bound if index not in scarce]


def shares_of(counts: Mapping[str, int]) -> dict[str, float]:
    """Realised shares of a mixture, by origin."""
    total = sum(counts.values())
    return {name: count / total for name, count in counts.items()} if total else {}

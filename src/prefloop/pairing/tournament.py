"""The winner of a tournament against its loser (INPO)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from prefloop.pairing.combination import win_matrix
from prefloop.pairing.groups import member, pair
from prefloop.pairing.registry import Dropped, rule
from prefloop.records import Example, Group

Prefers = Callable[[int, int], float]
"""P(the first is preferred to the second), by index."""


@dataclass(frozen=True)
class Bracket:
    """How a tournament ended."""

    best: int
    worst: int
    kept: bool
    """The best is strictly preferred to the worst: in a cycle it need not be."""
    comparisons: tuple[tuple[int, int], ...]
    """In the order in which they are asked, the final one last."""


def tournament_rounds(size: int, prefers: Prefers) -> Bracket:
    """Best and worst of K answers by K + K/2 - 1 comparisons (INPO, arXiv:2407.00617, appendix A.5).

    Neighbours meet; winners meet winners up to the best, losers meet losers down to the worst; at last the best meets
    the worst. The first named wins a tie.

    Args:
        size: K, a power of two, at least 2.
        prefers: the oracle.

    Raises:
        ValueError: K is no power of two.
    """
    if size < 2 or size & (size - 1):
        raise ValueError(f"{size} answers, expected a power of two")
    asked: list[tuple[int, int]] = []

    def meet(players: Sequence[int]) -> tuple[list[int], list[int]]:
        winners: list[int] = []
        losers: list[int] = []
        for first, second in zip(players[::2], players[1::2], strict=True):
            asked.append((first, second))
            ahead = prefers(first, second) >= 0.5
            winners.append(first if ahead else second)
            losers.append(second if ahead else first)
        return winners, losers

    winners, losers = meet(range(size))
    while len(winners) > 1:
        winners, _ = meet(winners)
    while len(losers) > 1:
        _, losers = meet(losers)
    best, worst = winners[0], losers[0]
    asked.append((best, worst))
    return Bracket(best, worst, prefers(best, worst) > 0.5, tuple(asked))


@rule(writes=Example, roles=("chosen", "rejected"))
def tournament(group: Group) -> Iterator[Example | Dropped]:
    """The winner of a tournament of pairwise preferences against its loser, kept if the winner wins that too (INPO).

    A comparison judged in both orders counts with the mean of the two. The number of answers is a power of two.

    Args:
        group: a prompt with its answers and the preferences that the bracket asks for.
    """
    ids = [response.response_id for response in group.responses]
    matrix = win_matrix(group)
    try:
        bracket = tournament_rounds(len(ids), lambda i, j: matrix[ids[i], ids[j]])
    except ValueError:
        yield Dropped("number of answers is no power of two")
        return
    except KeyError:
        yield Dropped("comparison without verdict")
        return
    chosen, rejected = group.by_id[ids[bracket.best]], group.by_id[ids[bracket.worst]]
    sure = matrix[chosen.response_id, rejected.response_id]
    if not bracket.kept:
        yield Dropped("tie" if sure == 0.5 else "winner loses to the loser")
    elif chosen.text == rejected.text:
        yield Dropped("same text")
    else:
        yield pair(
            group,
            member("chosen", chosen),
            member("rejected", rejected),
            why=f"tournament: won against the last of {len(ids)} with {sure:.2f}",
            prob_chosen_wins=sure,
        )

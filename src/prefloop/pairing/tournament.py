"""The winner of a tournament against its loser (INPO)."""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

from prefloop.pairing.combination import Orders, win_matrix
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


@dataclass(frozen=True)
class Wave:
    """Meetings that depend on no other of the same wave."""

    up: tuple[tuple[int, int], ...]
    """Among winners; in the first wave among all, in the last the best with the worst."""
    down: tuple[tuple[int, int], ...] = ()
    """Among losers."""

    @property
    def meetings(self) -> tuple[tuple[int, int], ...]:
        """All of them."""
        return self.up + self.down


def bracket(size: int) -> Generator[Wave, Sequence[float], tuple[int, int]]:
    """Who meets whom in a tournament, wave by wave (INPO, arXiv:2407.00617, appendix A.5).

    Neighbours meet; winners meet winners up to the best, losers meet losers down to the worst; at last the best meets
    the worst. The first named wins a tie. It is sent P(the first is preferred) of every meeting of a wave.

    Args:
        size: K, a power of two, at least 2.

    Returns:
        Best and worst.

    Raises:
        ValueError: K is no power of two.
    """
    if size < 2 or size & (size - 1):
        raise ValueError(f"{size} answers, expected a power of two")
    return _waves(size)


def _waves(size: int) -> Generator[Wave, Sequence[float], tuple[int, int]]:
    everyone = range(size)
    first = Wave(_neighbours(everyone))
    sure = yield first
    winners, losers = _ahead(first.up, sure), _behind(first.up, sure)
    while len(winners) > 1:
        wave = Wave(_neighbours(winners), _neighbours(losers))
        sure = yield wave
        winners, losers = _ahead(wave.up, sure[: len(wave.up)]), _behind(wave.down, sure[len(wave.up) :])
    yield Wave(((winners[0], losers[0]),))
    return winners[0], losers[0]


def _neighbours(players: Sequence[int]) -> tuple[tuple[int, int], ...]:
    return tuple(zip(players[::2], players[1::2], strict=True))


def _ahead(meetings: Sequence[tuple[int, int]], sure: Sequence[float]) -> list[int]:
    return [first if prob >= 0.5 else second for (first, second), prob in zip(meetings, sure, strict=True)]


def _behind(meetings: Sequence[tuple[int, int]], sure: Sequence[float]) -> list[int]:
    return [second if prob >= 0.5 else first for (first, second), prob in zip(meetings, sure, strict=True)]


def tournament_rounds(size: int, prefers: Prefers) -> Bracket:
    """Best and worst of K answers by K + K/2 - 1 comparisons, asked one after another.

    Args:
        size: K, a power of two, at least 2.
        prefers: the oracle.

    Raises:
        ValueError: K is no power of two.
    """
    meetings = bracket(size)
    up: list[tuple[int, int]] = []
    down: list[tuple[int, int]] = []
    wave = next(meetings)
    while True:
        up += wave.up
        down += wave.down
        try:
            wave = meetings.send([prefers(*pair) for pair in wave.meetings])
        except StopIteration as ended:
            best, worst = ended.value
            return Bracket(best, worst, prefers(best, worst) > 0.5, (*up[:-1], *down, up[-1]))


@rule(writes=Example, roles=("chosen", "rejected"))
def tournament(group: Group, *, orders: Orders = "mean") -> Iterator[Example | Dropped]:
    """The winner of a tournament of pairwise preferences against its loser, kept if the winner wins that too (INPO).

    The number of answers is a power of two.

    Args:
        group: a prompt with its answers and the preferences that the bracket asks for.
        orders: a comparison judged in both orders counts with the mean of the two; or, under `agree`, only where both
            name the same winner.
    """
    ids = [response.response_id for response in group.responses]
    matrix = win_matrix(group, orders)
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

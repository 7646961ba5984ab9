"""The winner of a tournament against its loser."""

from collections.abc import Callable
from itertools import permutations

import pytest
from hypothesis import given as all_of
from hypothesis import strategies as st

from prefloop.pairing import tournament
from prefloop.pairing.combination import sigmoid
from prefloop.pairing.tournament import tournament_rounds
from prefloop.records import Example, Group

Build = Callable[..., Group]
Read = Callable[..., list[str]]


@all_of(st.sampled_from([2, 4, 8, 16]), st.data())
def test_with_an_order_the_best_meets_the_worst(size: int, data: st.DataObject) -> None:
    ranks = data.draw(st.permutations(range(size)))
    found = tournament_rounds(size, lambda i, j: sigmoid(ranks[i] - ranks[j]))
    assert (ranks[found.best], ranks[found.worst], found.kept) == (size - 1, 0, True)
    assert len(found.comparisons) == 3 * size // 2 - 1 if size > 2 else 2
    assert found.comparisons[-1] == (found.best, found.worst)


def test_the_first_named_wins_a_tie_and_all_ties_are_not_kept() -> None:
    found = tournament_rounds(4, lambda _i, _j: 0.5)
    assert (found.best, found.worst, found.kept) == (0, 3, False)
    assert found.comparisons == ((0, 1), (2, 3), (0, 2), (1, 3), (0, 3))


@pytest.mark.parametrize("size", [0, 1, 3, 6])
def test_other_numbers_than_powers_of_two_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"^{size} answers, expected a power of two$"):
        tournament_rounds(size, lambda _i, _j: 0.5)


def test_the_rule_averages_orders_and_says_how_sure_it_is(
    build: Build, read: Read, prefers: Callable[..., object]
) -> None:
    """Shown first, a loses 0.45 to 0.55; over both orders it wins 0.6."""
    group = build([None, None], extra=prefers({"ab": 0.45, "ba": 0.25}))
    (example,) = tournament(group)
    assert isinstance(example, Example)
    assert read([example]) == ["a>b"]
    assert example.numbers == {"prob_chosen_wins": pytest.approx(0.6)}
    assert example.why == "tournament: won against the last of 2 with 0.60"


def test_the_rule_says_why_there_is_no_pair(build: Build, read: Read, prefers: Callable[..., object]) -> None:
    sure = {f"{i}{j}": 0.8 for i, j in permutations("abcd", 2) if i < j}
    assert read(list(tournament(build([None] * 4, extra=prefers(sure))))) == ["a>d"]
    assert read(list(tournament(build([None] * 4, extra=prefers({**sure, "ad": 0.3}))))) == [
        "winner loses to the loser"
    ]
    assert read(list(tournament(build([None] * 4, extra=prefers({**sure, "ad": 0.5}))))) == ["tie"]
    assert read(list(tournament(build([None] * 4, extra=prefers({**sure, "ad": None}))))) == [
        "comparison without verdict"
    ]
    assert read(list(tournament(build([None] * 3)))) == ["number of answers is no power of two"]
    same = build([None] * 4, extra=prefers(sure), texts=["x", "y", "z", "x"])
    assert read(list(tournament(same))) == ["same text"]

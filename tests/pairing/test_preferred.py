"""The winner of every comparison against its loser."""

from collections.abc import Callable

import pytest

from prefloop.pairing import preferred
from prefloop.records import Example, Group, Judgment

Build = Callable[..., Group]
Read = Callable[..., list[str]]
Prefers = Callable[..., list[Judgment]]


def test_the_winner_is_chosen_and_carries_how_sure_that_is(build: Build, read: Read, prefers: Prefers) -> None:
    made = list(preferred(build([None] * 3, extra=prefers({"ab": 0.9, "cb": 0.2, "ac": 0.5}))))
    assert read(made) == ["a>b", "b>c", "tie"]
    first, second, _ = made
    assert isinstance(first, Example)
    assert isinstance(second, Example)
    assert first.numbers == {"prob_chosen_wins": pytest.approx(0.9)}
    assert second.numbers == {"prob_chosen_wins": pytest.approx(0.8)}
    assert first.why == "preferred: won with 0.90"


def test_orders_that_disagree_give_nothing_unless_their_mean_counts(build: Build, read: Read, prefers: Prefers) -> None:
    group = build([None] * 2, extra=prefers({"ab": 0.9, "ba": 0.6}))
    assert read(list(preferred(group))) == ["orders disagree"]
    assert read(list(preferred(group, orders="mean"))) == ["a>b"]
    both = build([None] * 2, extra=prefers({"ab": 0.9, "ba": 0.3}))
    (made,) = preferred(both)
    assert isinstance(made, Example)
    assert made.numbers == {"prob_chosen_wins": pytest.approx(0.8)}


def test_a_pair_must_be_surer_than_asked(build: Build, read: Read, prefers: Prefers) -> None:
    group = build([None] * 2, extra=prefers({"ab": 0.25}))
    assert read(list(preferred(group, min_confidence=0.75))) == ["not sure enough"]
    assert read(list(preferred(group, min_confidence=0.7))) == ["b>a"]


def test_no_verdict_equal_texts_and_unknown_answers_give_nothing(build: Build, read: Read, prefers: Prefers) -> None:
    assert read(list(preferred(build([None] * 2, extra=prefers({"ab": None}))))) == ["no verdict"]
    assert read(list(preferred(build([None] * 2, texts=["x", "x"], extra=prefers({"ab": 1.0}))))) == ["same text"]
    assert read(list(preferred(build([None] * 2, extra=prefers({"az": 1.0}))))) == []
    assert read(list(preferred(build([1.0, 2.0])))) == []

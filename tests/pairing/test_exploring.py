"""Rules of online methods with an answer of another policy: XPO's and Nash-MD's."""

from collections.abc import Callable

import pytest

from prefloop.pairing import Dropped, chance_to_win, explored
from prefloop.pairing.combination import sigmoid
from prefloop.records import Example, Group, Judgment

Build = Callable[..., Group]
Read = Callable[..., list[str]]
Prefers = Callable[..., list[Judgment]]
STEPS = ["samples", "reference"]


def test_the_better_of_an_own_answer_and_the_references_is_chosen_and_the_latter_is_a_third_member(
    build: Build, read: Read
) -> None:
    for scores, expected, why in (
        ([3.0, 1.0], "a>b", "explored: own answer is better by 2.00"),
        ([1.0, 1.5], "b>a", "explored: the reference is better by 0.50"),
    ):
        (example,) = explored(build(scores, steps=STEPS), reference="reference")
        assert isinstance(example, Example)
        assert read([example]) == [expected]
        assert example.why == why
        assert [member.role for member in example.members] == ["chosen", "rejected", "response"]
        assert example.member("response").response_id == "b"
        assert example.numbers == {"margin": abs(scores[0] - scores[1])}
        assert [one.numbers for one in example.members] == [{"score": max(scores)}, {"score": min(scores)}, {}]


def test_several_answers_of_both_are_paired_in_their_order(build: Build, read: Read) -> None:
    group = build([1.0, 2.0, 5.0, 0.0, 9.0], steps=["samples", "reference", "samples", "reference", "samples"])
    assert read(list(explored(group, reference="reference"))) == ["b>a", "c>d"]


def test_ties_equal_texts_and_missing_sides_give_nothing(build: Build, read: Read) -> None:
    assert read(list(explored(build([1.0, 1.0], steps=STEPS), reference="reference"))) == ["tie"]
    same = build([1.0, 2.0], steps=STEPS, texts=["x", "x"])
    assert read(list(explored(same, reference="reference"))) == ["same text"]
    assert read(list(explored(build([1.0, None], steps=STEPS), reference="reference"))) == [
        "no scored answer of the reference"
    ]
    assert read(list(explored(build([None, 1.0], steps=STEPS), reference="reference"))) == ["no scored own answer"]


def chances(group: Group, **options: str) -> list[tuple[str, float] | str]:
    found: list[tuple[str, float] | str] = []
    for one in chance_to_win(group, opponents="reference", **options):  # pyright: ignore[reportArgumentType]
        if isinstance(one, Dropped):
            found.append(one.reason)
        else:
            assert isinstance(one, Example)
            found.append((one.member("response").response_id, one.member("response").numbers["win_prob"]))
    return found


def test_an_own_answers_chance_is_its_mean_over_the_opponents_by_preferences(build: Build, prefers: Prefers) -> None:
    steps = ["samples", "samples", "reference", "reference"]
    said = prefers({"ac": 0.8, "ad": 0.4, "cb": 0.9})
    group = build([0.0, 0.0, 9.0, 9.0], steps=steps, extra=said)
    assert chances(group) == [("a", pytest.approx(0.6)), ("b", pytest.approx(0.1))]
    (first, _) = chance_to_win(group, opponents="reference")
    assert isinstance(first, Example)
    assert first.why == "chance_to_win: 0.60 against 2"


def test_orders_that_disagree_count_with_their_mean_or_not_at_all(build: Build, prefers: Prefers) -> None:
    group = build([None, None], steps=STEPS, extra=prefers({"ab": 0.9, "ba": 0.7}))
    assert chances(group) == [("a", pytest.approx(0.6))]
    assert chances(group, orders="agree") == ["no verdict against an opponent"]


def test_without_preferences_scores_decide_by_bradley_and_terry(build: Build) -> None:
    group = build([2.0, None, 1.0, None], steps=["samples", "samples", "reference", "reference"])
    assert chances(group) == [("a", pytest.approx(sigmoid(1.0))), "no verdict against an opponent"]
    assert chances(build([2.0], steps=["samples"])) == ["no verdict against an opponent"]

"""Checks between rows."""

import resource
from collections.abc import Iterable

import pytest

from prefloop.data import Given
from prefloop.data.given import given_response
from prefloop.data.seen import Seen
from prefloop.records import Judgment, Message, Prompt


def row(
    place: int,
    kind: str,
    *answers: str,
    values: tuple[float, ...],
    prompt: str = "How are you?",
    row_id: str | None = None,
    gold: str | None = None,
) -> Given:
    asked = Prompt.of((Message(role="user", content=prompt),), source=f"mine.jsonl:{place}", answer=gold)
    responses = tuple(given_response(asked, answer) for answer in answers)
    judgment = Judgment.model_validate(
        {
            "judge": "dataset:mine",
            "kind": kind,
            "subjects": tuple(response.response_id for response in responses),
            "values": values,
        }
    )
    return Given(prompt=asked, responses=responses, judgments=(judgment,) if answers else (), row_id=row_id)


def pair(place: int, chosen: str, rejected: str, *, prompt: str = "How are you?", row_id: str | None = None) -> Given:
    return row(place, "preference", chosen, rejected, values=(1.0,), prompt=prompt, row_id=row_id)


def found(rows: Iterable[Given]) -> list[dict[str, str]]:
    seen = Seen()
    return [{problem.code: problem.detail for problem in seen(given)} for given in rows]


def test_different_rows_have_no_problem() -> None:
    rows = [pair(1, "Fine.", "Go."), pair(2, "Fine.", "Go.", prompt="And you?"), pair(3, "Good.", "Go.")]
    assert found(rows) == [{}, {}, {}]


def test_a_row_again_names_the_first() -> None:
    rows = [pair(1, "Fine.", "Go."), pair(2, "Well.", "Go."), pair(3, "Fine.", "Go."), pair(4, "Fine.", "Go.")]
    assert found(rows)[2:] == [{"duplicate_row": "the same as mine.jsonl:1"}] * 2


def test_a_preference_and_its_opposite() -> None:
    rows = [pair(1, "Fine.", "Go.", row_id="a"), pair(2, "Go.", "Fine.", row_id="b")]
    assert found(rows) == [{}, {"contradictory_pair": "the opposite of mine.jsonl:1"}]


def test_the_opposite_said_with_a_probability() -> None:
    rows = [pair(1, "Fine.", "Go."), row(2, "preference", "Fine.", "Go.", values=(0.2,))]
    assert found(rows) == [{}, {"contradictory_pair": "the opposite of mine.jsonl:1"}]


def test_the_opposite_after_another_prompt_is_no_contradiction() -> None:
    assert found([pair(1, "Fine.", "Go."), pair(2, "Go.", "Fine.", prompt="Shall I stay?")]) == [{}, {}]


def test_a_ranking_may_contradict_a_pair() -> None:
    rows = [row(1, "ranking", "A.", "B.", "C.", values=(1, 2, 3)), pair(2, "C.", "A."), pair(3, "A.", "B.")]
    assert found(rows) == [{}, {"contradictory_pair": "the opposite of mine.jsonl:1"}, {}]


def test_labels_that_deny_each_other() -> None:
    rows = [row(1, "label", "A.", values=(1,)), row(2, "label", "A.", values=(0,)), row(3, "label", "A.", values=(1,))]
    assert found(rows) == [
        {},
        {"contradictory_label": "the opposite of mine.jsonl:1"},
        {"duplicate_row": "the same as mine.jsonl:1"},
    ]


def test_ids_that_come_again() -> None:
    rows = [
        pair(1, "Fine.", "Go.", row_id="7"),
        pair(2, "Fine.", "Go.", row_id="7"),
        pair(3, "Well.", "Go.", row_id="7"),
        pair(4, "Nice.", "Go.", row_id="8"),
    ]
    assert found(rows) == [
        {},
        {"duplicate_id": "id 7 stands at mine.jsonl:1", "duplicate_row": "the same as mine.jsonl:1"},
        {"conflicting_id": "id 7 stands at mine.jsonl:1"},
        {},
    ]


def test_scores_alone_may_differ_between_rows() -> None:
    """Two judges, or one twice: the row comes again, but nothing is denied."""
    rows = [row(1, "score", "A.", "B.", values=(1.0, 2.0)), row(2, "score", "B.", "A.", values=(1.0, 2.0))]
    assert found(rows) == [{}, {"duplicate_row": "the same as mine.jsonl:1"}]


def test_a_prompt_again_is_a_row_again_unless_its_gold_answer_is_another() -> None:
    rows = [row(place, "score", values=(), gold=gold) for place, gold in ((1, "4"), (2, "5"), (3, "4"))]
    assert found(rows) == [{}, {}, {"duplicate_row": "the same as mine.jsonl:1"}]


def test_how_often_a_prompt_came() -> None:
    seen = Seen()
    assert [seen.count_prompt(name) for name in ("a", "b", "a", "a", "b")] == [1, 1, 2, 3, 2]


@pytest.mark.slow
def test_memory_stays_flat() -> None:
    """What 30,000 rows leave behind would be some 20 MB of Python objects; here it may be a cache of 8 MiB."""
    seen = Seen()
    for number in range(5_000):
        list(seen(pair(number, f"Fine {number}.", "Go.", row_id=str(number))))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(5_000, 35_000):
        list(seen(pair(number, f"Fine {number}.", "Go.", row_id=str(number))))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) / 1024 < 12

"""Answers with what they are paid, where some did not end by themselves."""

from collections.abc import Callable
from typing import Any

import pytest

from prefloop.pairing import Dropped, rollouts, sampled_together
from prefloop.records import Example, Group

Build = Callable[..., Group]


def paid(group: Group, **options: Any) -> dict[str, float]:
    made = [one for one in rollouts(group, **options) if isinstance(one, Example)]
    return {one.member("response").response_id: one.member("response").numbers["score"] for one in made}


@pytest.mark.parametrize(
    ("options", "unfinished"),
    [
        ({}, -1.0),
        ({"unfinished_score": -3.0}, -3.0),
        ({"unfinished_score": None}, 0.8),
        ({"unfinished_score": None, "unfinished_penalty": 0.5}, 0.3),
        ({"unfinished_penalty": 0.5}, -1.5),
    ],
)
def test_what_did_not_end_by_itself_is_paid_less(options: dict[str, Any], unfinished: float, build: Build) -> None:
    group = build([0.2, 0.8], cut=[False, True])

    assert paid(group, **options) == {"a": 0.2, "b": pytest.approx(unfinished)}


def test_answers_without_a_score_are_left_out_and_ties_are_not(build: Build) -> None:
    assert paid(build([0.5, None, 0.5])) == {"a": 0.5, "c": 0.5}
    assert list(rollouts(build([None]))) == [Dropped("no scored answer")]


def test_sampled_tokens_are_taken_as_they_are_and_a_cut_answer_is_not_finished(build: Build) -> None:
    first, second = (one for one in rollouts(build([1, 2], cut=[False, True])) if isinstance(one, Example))

    assert first.member("response").token_ids == (0,) * 5
    assert (first.member("response").finished, second.member("response").finished) == (True, False)
    assert first.why == "rollouts: 1.00"
    assert second.why == "rollouts: 2.00, paid -1.00 without EOS"


def test_samples_of_a_prompt_stand_together_each_with_what_it_is_paid(build: Build) -> None:
    (one,) = sampled_together(build([0.2, None, 0.8, 0.2], cut=[False, False, True, False]), unfinished_penalty=0.5)

    assert isinstance(one, Example)
    assert [(member.role, member.response_id) for member in one.members] == [("sampled", name) for name in "acd"]
    assert [member.numbers["score"] for member in one.members] == [0.2, -1.5, 0.2]
    assert [member.finished for member in one.members] == [True, False, True]
    assert one.why == "sampled_together: -1.50 to 0.20 of 3, 1 without EOS"
    (own,) = sampled_together(build([0.2, 0.8], cut=[False, True]), unfinished_score=None)
    assert isinstance(own, Example)
    assert [member.numbers["score"] for member in own.members] == [0.2, 0.8]


def test_one_sample_alone_has_nothing_to_be_compared_with(build: Build) -> None:
    assert list(sampled_together(build([None, 0.5]))) == [Dropped("fewer than two scored answers")]


def test_examples_have_names_of_sixteen_signs(build: Callable[..., Group]) -> None:
    group = build([1.0, 2.0])
    made = [*rollouts(group), *sampled_together(group)]
    assert [len(one.example_id) for one in made if isinstance(one, Example)] == [16] * 3

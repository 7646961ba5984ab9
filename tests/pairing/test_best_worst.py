"""The best against the worst answer."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given as all_of
from hypothesis import strategies as st

from prefloop.pairing import Dropped, best_worst
from prefloop.records import Example, FinishReason, Group, Judgment, Message, Prompt, Response

PROMPT = Prompt.of((Message(role="user", content="How are you?"),))


def response(name: str, text: str | None = None, tokens: int = 5, finish_reason: FinishReason = "stop") -> Response:
    return Response(
        response_id=name,
        prompt_id=PROMPT.prompt_id,
        root_id=PROMPT.root_id,
        step="samples",
        text=f"text {name}" if text is None else text,
        token_ids=tuple(range(tokens)),
        finish_reason=finish_reason,
    )


def score(name: str, value: float | None) -> Judgment:
    return Judgment(judge="rule:test", kind="score", subjects=(name,), values=(value,))


def group(responses: Sequence[Response], values: Sequence[float | None]) -> Group:
    said = tuple(score(answer.response_id, value) for answer, value in zip(responses, values, strict=True))
    return Group(prompts=(PROMPT,), responses=tuple(responses), judgments=said)


def scored(*values: float | None) -> Group:
    """Answers a, b, c, ... with these scores."""
    return group([response(chr(ord("a") + number)) for number in range(len(values))], values)


def only(made: Group, **options: Any) -> Example | Dropped:
    (result,) = best_worst(made, **options)
    return result


def chosen_and_rejected(made: Group, **options: Any) -> tuple[str, str]:
    example = only(made, **options)
    assert isinstance(example, Example)
    return example.member("chosen").response_id, example.member("rejected").response_id


def test_the_highest_score_meets_the_lowest() -> None:
    assert chosen_and_rejected(scored(0.2, 1.5, -0.5, 1.0)) == ("b", "c")


def test_the_first_of_equal_answers_counts() -> None:
    assert chosen_and_rejected(scored(0.0, 1.0, 0.0, 1.0)) == ("b", "a")


def test_the_example_says_why_it_exists_and_carries_its_numbers() -> None:
    example = only(scored(2.3149, None, -0.4, 1.0))
    assert isinstance(example, Example)
    assert example.why == "best_worst: 2.31 against -0.40 of 3"
    assert example.numbers == {"margin": pytest.approx(2.7149)}
    assert [(member.role, member.numbers) for member in example.members] == [
        ("chosen", {"score": 2.3149}),
        ("rejected", {"score": -0.4}),
    ]
    assert example.prompt == PROMPT
    assert example.weight == 1.0


def test_a_member_carries_the_tokens_of_its_response_and_whether_it_ended() -> None:
    answers = [response("a", tokens=3), response("b", tokens=7, finish_reason="length")]
    example = only(group(answers, [1.0, 0.0]))
    assert isinstance(example, Example)
    assert [(m.text, m.token_ids, m.finished, m.counted) for m in example.members] == [
        ("text a", (0, 1, 2), True, None),
        ("text b", (0, 1, 2, 3, 4, 5, 6), False, None),
    ]


@pytest.mark.parametrize(
    ("made", "options", "reason"),
    [
        (scored(), {}, "fewer than two scored answers"),
        (scored(1.0), {}, "fewer than two scored answers"),
        (scored(1.0, None, None), {}, "fewer than two scored answers"),
        (scored(0.5, 0.5, 0.5), {}, "tie"),
        (scored(0.5, 0.5), {"min_margin": 1.0}, "tie"),
        (scored(1.0, 0.5), {"min_margin": 0.5}, "margin too small"),
        (scored(1.0, 0.75), {"min_margin": 0.5}, "margin too small"),
        (group([response("a", "same"), response("b", "same")], [1.0, 0.0]), {}, "same text"),
    ],
)
def test_what_cannot_be_paired_is_dropped_with_its_reason(made: Group, options: dict[str, float], reason: str) -> None:
    assert only(made, **options) == Dropped(reason)


def test_a_gap_just_above_the_margin_is_a_pair() -> None:
    assert chosen_and_rejected(scored(1.0, 0.5), min_margin=0.4999) == ("a", "b")


def test_an_answer_without_a_valid_score_is_never_paired() -> None:
    assert chosen_and_rejected(scored(None, 1.0, None, 2.0)) == ("d", "b")


def test_a_length_penalty_is_taken_off_a_token_before_answers_are_compared() -> None:
    """3.0 - 0.25 * 10 = 0.5 against 1.0 - 0.25 * 1 = 0.75: the short answer wins; scores on record stay raw."""
    made = group([response("long", tokens=10), response("short", tokens=1)], [3.0, 1.0])
    assert chosen_and_rejected(made) == ("long", "short")
    example = only(made, length_penalty=0.25)
    assert isinstance(example, Example)
    assert [(member.response_id, member.numbers["score"]) for member in example.members] == [
        ("short", 1.0),
        ("long", 3.0),
    ]
    assert example.numbers == {"margin": 0.25}
    assert example.why == "best_worst: 0.75 against 0.50 of 2"


def test_the_margin_counts_after_the_penalty() -> None:
    made = group([response("long", tokens=10), response("short", tokens=2)], [3.0, 1.0])
    assert only(made, length_penalty=0.25) == Dropped("tie")


def test_scores_of_several_judgments_are_averaged_and_others_ignored() -> None:
    base = scored(1.0, 2.0)
    more = (
        *base.judgments,
        score("a", 4.0),
        score("b", None),
        Judgment(judge="other", kind="preference", subjects=("a", "b"), values=(0.0,)),
    )
    made = Group(prompts=base.prompts, responses=base.responses, judgments=more)
    example = only(made)
    assert isinstance(example, Example)
    assert [member.numbers["score"] for member in example.members] == [2.5, 2.0]


def test_the_same_pair_of_the_same_prompt_has_the_same_id_and_others_do_not() -> None:
    first, again, turned = only(scored(1.0, 0.0)), only(scored(5.0, 2.0)), only(scored(0.0, 1.0))
    assert isinstance(first, Example)
    assert isinstance(again, Example)
    assert isinstance(turned, Example)
    assert first.example_id == again.example_id
    assert first.example_id != turned.example_id


@all_of(
    values=st.lists(st.floats(-5, 5), min_size=2, max_size=8, unique=True),
    penalty=st.sampled_from([0.0, 0.125]),
    data=st.data(),
)
def test_the_order_of_answers_with_different_scores_does_not_matter(
    values: list[float], penalty: float, data: st.DataObject
) -> None:
    answers = [response(f"r{number}", tokens=1 + 3 * number) for number in range(len(values))]
    ranked = [value - penalty * answer.num_tokens for value, answer in zip(values, answers, strict=True)]
    order = data.draw(st.permutations(range(len(values))))
    before = only(group(answers, values), length_penalty=penalty)
    after = only(group([answers[i] for i in order], [values[i] for i in order]), length_penalty=penalty)
    if len(set(ranked)) == len(ranked):
        assert before == after
        assert isinstance(before, Example)


@all_of(
    values=st.lists(st.sampled_from([None, 0.0, 0.5, 1.0, 2.0]), max_size=6), margin=st.sampled_from([0.0, 0.5, 1.0])
)
def test_a_pair_is_made_exactly_where_two_scores_are_apart_by_more_than_the_margin(
    values: list[float | None], margin: float
) -> None:
    known = [value for value in values if value is not None]
    apart = len(known) > 1 and max(known) - min(known) > margin
    result = only(scored(*values), min_margin=margin)
    assert isinstance(result, Example) == apart
    if isinstance(result, Example):
        assert [member.numbers["score"] for member in result.members] == [max(known), min(known)]


def test_an_answer_needs_as_many_valid_judgments_as_asked_for() -> None:
    answers = [response("a"), response("b"), response("c")]
    said = group(answers, [5.0, 4.0, 1.0])
    again = (score("b", 2.0), score("c", 3.0), score("a", None), score("a", float("nan")))
    asked_twice = Group(prompts=said.prompts, responses=said.responses, judgments=(*said.judgments, *again))
    assert chosen_and_rejected(asked_twice) == ("a", "c")
    assert chosen_and_rejected(asked_twice, min_judgments=2) == ("b", "c")
    assert only(asked_twice, min_judgments=3) == Dropped("fewer than two scored answers")

"""The pairs that a data set brought, and answers that were cut."""

import pytest

from prefloop.pairing import Dropped, finished, given
from prefloop.records import Example, FinishReason, Group, Judgment, Message, Prompt, Response

PROMPT = Prompt.of((Message(role="user", content="How are you?"),))


def response(name: str, text: str | None = None, finish_reason: FinishReason = "given") -> Response:
    return Response(
        response_id=name,
        prompt_id=PROMPT.prompt_id,
        root_id=PROMPT.root_id,
        step="given",
        text=text or f"text {name}",
        finish_reason=finish_reason,
    )


def preference(first: str, second: str, prob_first_wins: float | None) -> Judgment:
    return Judgment(judge="dataset:x", kind="preference", subjects=(first, second), values=(prob_first_wins,))


def group(*judgments: Judgment, responses: tuple[Response, ...] | None = None) -> Group:
    answers = responses or (response("a"), response("b"), response("c"))
    return Group(prompts=(PROMPT,), responses=answers, judgments=judgments)


@pytest.mark.parametrize(
    ("prob_first_wins", "expected"), [(1.0, ("a", "b")), (0.51, ("a", "b")), (0.49, ("b", "a")), (0.0, ("b", "a"))]
)
def test_the_preferred_answer_is_chosen(prob_first_wins: float, expected: tuple[str, str]) -> None:
    (example,) = given(group(preference("a", "b", prob_first_wins)))
    assert isinstance(example, Example)
    assert (example.member("chosen").response_id, example.member("rejected").response_id) == expected
    assert example.why == "given: dataset:x"
    assert example.numbers == {"prob_chosen_wins": max(prob_first_wins, 1 - prob_first_wins)}


def test_every_preference_gives_its_own_pair() -> None:
    made = list(given(group(preference("a", "b", 1.0), preference("c", "a", 1.0), preference("b", "c", 0.0))))
    assert [[m.response_id for m in example.members] for example in made if isinstance(example, Example)] == [
        ["a", "b"],
        ["c", "a"],
        ["c", "b"],
    ]


@pytest.mark.parametrize(
    ("judgment", "reason"),
    [
        (preference("a", "b", 0.5), "tie"),
        (preference("a", "b", None), "no verdict"),
        (preference("a", "a2", 1.0), "same text"),
    ],
)
def test_what_says_nothing_is_dropped_with_its_reason(judgment: Judgment, reason: str) -> None:
    answers = (response("a"), response("b"), response("a2", "text a"))
    assert list(given(group(judgment, responses=answers))) == [Dropped(reason)]


def test_scores_are_not_preferences() -> None:
    assert list(given(group(Judgment(judge="x", kind="score", subjects=("a",), values=(1.0,))))) == []


def test_an_answer_given_as_text_has_no_tokens_and_ended() -> None:
    (example,) = given(group(preference("a", "b", 1.0)))
    assert isinstance(example, Example)
    assert [(member.token_ids, member.finished) for member in example.members] == [(None, True), (None, True)]


def test_finished_leaves_out_cut_answers_and_all_judgments_that_speak_of_them() -> None:
    answers = (response("a", finish_reason="stop"), response("b", finish_reason="length"), response("c"))
    kept = Judgment(judge="x", kind="score", subjects=("a",), values=(1.0,))
    of_cut = Judgment(judge="x", kind="score", subjects=("b",), values=(9.0,))
    whole = group(kept, of_cut, preference("a", "b", 1.0), preference("c", "a", 1.0), responses=answers)
    rest = finished(whole)
    assert [answer.response_id for answer in rest.responses] == ["a", "c"]
    assert rest.judgments == (kept, preference("c", "a", 1.0))
    assert len(whole.responses) == 3


def test_members_carry_the_scores_of_their_answers() -> None:
    scored = Judgment(judge="dataset:x", kind="score", subjects=("a", "b"), values=(0.25, 4.0))
    (example,) = given(group(scored, preference("a", "b", 0.0)))
    assert isinstance(example, Example)
    assert [member.numbers for member in example.members] == [{"score": 4.0}, {"score": 0.25}]


def test_answers_without_scores_carry_none() -> None:
    (example,) = given(group(preference("a", "b", 1.0)))
    assert isinstance(example, Example)
    assert [member.numbers for member in example.members] == [{}, {}]


def test_the_weight_and_the_margin_beside_a_preference_go_into_the_example() -> None:
    beside = preference("a", "b", 1.0).model_copy(update={"numbers": {"weight": 0.25, "margin": 1.5}})
    (example,) = given(group(beside))
    assert isinstance(example, Example)
    assert example.weight == 0.25
    assert example.numbers == {"margin": 1.5, "prob_chosen_wins": 1.0}


def test_where_the_second_answer_wins_the_margin_is_seen_from_its_side() -> None:
    (example,) = given(group(preference("a", "b", 0.25).model_copy(update={"numbers": {"margin": 1.5}})))
    assert isinstance(example, Example)
    assert example.numbers == {"margin": -1.5, "prob_chosen_wins": 0.75}


def test_a_rating_of_one_aspect_is_no_score_of_the_answer() -> None:
    honesty = Judgment(judge="x", kind="score", aspect="honesty", subjects=("a", "b"), values=(0.0, 9.0))
    overall = Judgment(judge="x", kind="score", subjects=("a", "b"), values=(5.0, 4.0))
    (example,) = given(group(honesty, overall, preference("a", "b", 1.0)))
    assert isinstance(example, Example)
    assert [member.numbers for member in example.members] == [{"score": 5.0}, {"score": 4.0}]

"""Checks of one row by itself, on records as any format makes them."""

from typing import Any

import pytest

from prefloop.data import Given
from prefloop.data.checks import normalised, preferred_pairs, row_problems
from prefloop.data.given import given_response
from prefloop.records import Judgment, Message, Prompt


def row(
    *answers: str,
    preference: float | None = 1.0,
    scores: tuple[float, ...] = (),
    ranking: tuple[float, ...] = (),
    labels: tuple[float, ...] = (),
    prompt: tuple[Message, ...] = (Message(role="user", content="How are you?"),),
    numbers: dict[str, float] | None = None,
) -> Given:
    asked = Prompt.of(prompt, source="mine.jsonl:1")
    responses = tuple(given_response(asked, answer) for answer in answers)
    ids = tuple(response.response_id for response in responses)
    said: list[dict[str, Any]] = []
    if len(answers) == 2 and not (ranking or labels):
        said.append({"kind": "preference", "values": (preference,), "numbers": numbers or {}})
    said += [
        {"kind": kind, "values": values}
        for kind, values in (("score", scores), ("ranking", ranking), ("label", labels))
        if values
    ]
    judgments = tuple(Judgment(judge="dataset:mine", subjects=ids, **one) for one in said)
    return Given(prompt=asked, responses=responses, judgments=judgments)


def found(given: Given) -> dict[str, str]:
    return {problem.code: problem.detail for problem in row_problems(given)}


def test_an_ordinary_pair_has_no_problem() -> None:
    assert found(row("Fine.", "Go away.", scores=(2.0, 1.0))) == {}


def test_a_prompt_alone_has_no_problem() -> None:
    assert found(row()) == {}


@pytest.mark.parametrize("text", ["", " \n\t", "\u00a0\u3000"])
def test_an_answer_of_white_space_is_empty(text: str) -> None:
    assert found(row("Fine.", text))["empty_text"] == "answer 2 of 2"


def test_an_answer_that_only_thinks_is_empty() -> None:
    assert found(row("Fine.", "<think>\nWell, this is hard."))["empty_text"] == (
        "answer 2 of 2, which begins to think and says nothing"
    )


def test_answers_that_think_differently_are_different() -> None:
    assert found(row("<think>\nA\n</think>\n\nFine.", "<think>\nB\n</think>\n\nFine.")) == {}
    same = "<think>\nA\n</think>\n\nFine."
    assert list(found(row(same, same))) == ["identical"]


def test_an_empty_turn_is_told_from_an_empty_prompt() -> None:
    user, empty = Message(role="user", content="Hi"), Message(role="user", content=" ")
    assert found(row("Fine.", "No.", prompt=(empty,))) == {"empty_text": "the prompt"}
    assert found(row("Fine.", "No.", prompt=(user, empty))) == {"empty_message": "turn 2 of the prompt (user)"}


def test_a_turn_that_calls_a_tool_need_not_say_anything() -> None:
    calls = Message(role="assistant", content="", tool_calls=({"name": "now"},))
    result = Message(role="tool", content="12:00")
    assert found(row("Noon.", "Night.", prompt=(Message(role="user", content="Time?"), calls, result))) == {}


def test_turns_in_the_wrong_places() -> None:
    system, user = Message(role="system", content="Be brief."), Message(role="user", content="Hi")
    answer = Message(role="assistant", content="Hello")
    assert found(row("A", "B", prompt=(system, system, user))) == {"two_system_turns": "in the prompt"}
    assert found(row("A", "B", prompt=(user, answer))) == {"ends_with_answer": "turn 2 of the prompt"}


@pytest.mark.parametrize(
    ("chosen", "rejected", "code"),
    [
        ("Fine.", "Fine.", "identical"),
        ("Fine.", "fine. ", "identical_normalised"),
        ("Fine,\n\nthanks.", "Fine, thanks.", "identical_normalised"),
        ("caf\u00e9", "cafe\u0301", "identical_normalised"),  # NFC and NFD
        ("\uff26ine", "Fine", "identical_normalised"),  # a full-width letter: NFKC
        ("STRASSE", "straße", "identical_normalised"),
    ],
)
def test_answers_that_are_the_same_or_nearly(chosen: str, rejected: str, code: str) -> None:
    assert list(found(row(chosen, rejected))) == [code]


def test_answers_that_differ_in_a_letter_are_different() -> None:
    assert normalised("Fine.") != normalised("Fine!")


def test_scores_of_answers_that_are_all_the_same_compare_nothing() -> None:
    assert list(found(row("Yes.", "Yes.", "Yes.", scores=(1.0, 2.0, 3.0)))) == ["identical"]
    assert found(row("Yes.", "Yes.", "No.", scores=(1.0, 1.0, 3.0))) == {}


@pytest.mark.parametrize("preference", [0.5, None])
def test_a_preference_without_a_winner_is_a_tie(preference: float | None) -> None:
    assert found(row("A.", "B.", preference=preference)) == {"tie": "the preference is 0.5, or there is no verdict"}


def test_equal_scores_or_ranks_are_a_tie() -> None:
    assert found(row("A.", "B.", "C.", scores=(3.0, 3.0, 3.0)))["tie"] == "all 3 answers have the same score, 3"
    assert found(row("A.", "B.", ranking=(1.0, 1.0)))["tie"] == "all 2 answers have the same rank, 1"
    assert found(row("A.", "B.", "C.", scores=(3.0, 3.0, 2.0))) == {}
    assert found(row("A.", scores=(3.0,))) == {}


def test_scores_that_contradict_the_preference() -> None:
    assert found(row("A.", "B.", scores=(1.0, 2.5))) == {"scores_contradict": "1 against 2.5"}
    assert found(row("A.", "B.", preference=0.2, scores=(1.0, 2.5))) == {}
    assert found(row("A.", "B.", scores=(7.0, 7.0))) == {"equal_scores": "both 7"}
    assert found(row("A.", "B.", numbers={"margin": -1.0})) == {"scores_contradict": "the margin is -1"}


def test_scores_that_contradict_a_ranking() -> None:
    assert found(row("A.", "B.", "C.", ranking=(1.0, 2.0, 3.0), scores=(3.0, 2.0, 1.0))) == {}
    assert found(row("A.", "B.", "C.", ranking=(1.0, 2.0, 3.0), scores=(3.0, 1.0, 2.0))) == {
        "scores_contradict": "1 against 2"
    }


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (row("A.", "B.", scores=(float("nan"), 1.0)), "not_finite"),
        (row("A.", "B.", numbers={"weight": float("inf")}), "not_finite"),
        (row("A.", "B.", numbers={"weight": 0.0}), "out_of_range"),
        (row("A.", "B.", preference=1.5), "out_of_range"),
        (row("A.", "B.", ranking=(0.0, 1.0)), "out_of_range"),
        (row("A.", labels=(2.0,)), "out_of_range"),
    ],
)
def test_numbers_that_cannot_be(given: Given, code: str) -> None:
    assert code in found(given)


@pytest.mark.parametrize(
    "token",
    [
        "<|im_end|>",
        "<|im_start|>",
        "<|endoftext|>",
        "<|eot_id|>",
        "<|start_header_id|>",
        "<|START_OF_TURN_TOKEN|>",
        "[INST]",
        "[/INST]",
        "<<SYS>>",
        "[TOOL_CALLS]",
        "<start_of_turn>",
        "<eos>",
        "</s>",
        "<\uff5cUser\uff5c>",
        "<\uff5cend\u2581of\u2581sentence\uff5c>",
        "[gMASK]",
    ],
)
def test_control_tokens_of_common_templates_are_found(token: str) -> None:
    assert found(row("Fine.", f"Go {token} away."))["control_token"] == f"{token} in answer 2"
    assert found(row("Fine.", "Go.", prompt=(Message(role="user", content=f"{token}Hi"),)))["control_token"] == (
        f"{token} in turn 1 of the prompt"
    )


@pytest.mark.parametrize("text", ["a <| b |> c", "<s>struck", "x[INST", "if a<b|c>d", "<b>bold</b>"])
def test_ordinary_text_holds_no_control_token(text: str) -> None:
    assert found(row("Fine.", text)) == {}


def test_pairs_that_a_row_prefers() -> None:
    three = row("A.", "B.", "C.", ranking=(2.0, 1.0, 2.0))
    a, b, c = (response.response_id for response in three.responses)
    assert list(preferred_pairs(three)) == [(b, a, 1.0), (b, c, 1.0)]

    unsure = row("A.", "B.", preference=0.25)
    a, b = (response.response_id for response in unsure.responses)
    assert list(preferred_pairs(unsure)) == [(b, a, 0.75)]

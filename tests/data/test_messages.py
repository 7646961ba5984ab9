"""Conversations in the words of other tools."""

from collections.abc import Callable
from typing import Any

import pytest

from prefloop.data.messages import (
    answer_of,
    messages_of,
    taken_apart,
    to_be_answered,
    transcript_of,
    transcript_prompt_of,
)
from prefloop.data.problems import RowRefused
from prefloop.records import Message


def turns(*said: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in said]


def refusal(read: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(RowRefused) as refused:
        read(*arguments, "field")
    return str(refused.value)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("human", "user"),
        ("Human", "user"),
        ("gpt", "assistant"),
        ("model", "assistant"),
        ("developer", "system"),
        ("observation", "tool"),
        ("tool_response", "tool"),
    ],
)
def test_roles_of_other_tools_are_ours_under_another_name(theirs: str, ours: str) -> None:
    assert [message.role for message in messages_of([{"from": theirs, "value": "Hello."}], "field")] == [ours]
    assert [message.role for message in messages_of(turns((theirs, "Hello.")), "field")] == [ours]


def test_a_text_is_what_the_user_says() -> None:
    assert messages_of("Hello.", "field") == (Message(role="user", content="Hello."),)


def test_tool_turns_and_tool_calls_are_kept() -> None:
    call: dict[str, Any] = {"type": "function", "function": {"name": "switch", "arguments": {"on": True}}}
    read = messages_of(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Light!"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "name": "switch", "tool_call_id": "call00001", "content": ""},
        ],
        "field",
    )
    assert read == (
        Message(role="system", content="Be brief."),
        Message(role="user", content="Light!"),
        Message(role="assistant", content="", tool_calls=(call,)),
        Message(role="tool", content="", tool_call_id="call00001", name="switch"),
    )


def test_a_function_call_in_the_place_of_words_is_a_tool_call() -> None:
    (message,) = messages_of([{"from": "function_call", "value": '{"name": "switch", "arguments": {}}'}], "field")
    assert message == Message(
        role="assistant",
        content="",
        tool_calls=({"type": "function", "function": {"name": "switch", "arguments": {}}},),
    )


def test_parts_of_text_are_one_text() -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo."}]
    assert messages_of([{"role": "user", "content": parts}], "field")[0].content == "Hello."


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (turns(("narrator", "Hello.")), "unknown_role: field[0] has the role 'narrator'"),
        ([{"content": "Hello."}], "unknown_role: field[0] has the role None"),
        (turns(("system", "a"), ("developer", "b")), "two_system_turns: field has more than one system turn"),
        (turns(("user", "Hello."), ("assistant", " \n")), "empty_message: field[1] says nothing"),
        ([], "empty_text: field has no turns"),
        ("  ", "empty_text: field is '  '"),
        (5, "wrong_type: field is 5, expected a text or a list of messages"),
        (["Hello."], "wrong_type: field is ['Hello.'], expected a text or a list of messages"),
        ([{"role": "user", "content": 5}], "wrong_type: field[0] says 5, expected a text"),
        (
            [{"role": "user", "content": [{"type": "image"}]}],
            "wrong_type: field[0] says [{'type': 'image'}], expected a text",
        ),
        (
            [{"from": "function_call", "value": "switch(on)"}],
            "wrong_type: field[0] is a tool call, but no JSON: Expecting value",
        ),
    ],
)
def test_a_conversation_that_is_wrong_says_where(value: object, said: str) -> None:
    assert refusal(messages_of, value) == said


@pytest.mark.parametrize(
    "answer", ["Fine.", {"role": "assistant", "content": "Fine."}, {"from": "gpt", "value": "Fine."}]
)
def test_an_answer_is_a_text_a_message_or_a_list_of_one(answer: object) -> None:
    assert answer_of(answer, "field") == "Fine."
    assert isinstance(answer, str) or answer_of([answer], "field") == "Fine."


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"role": "user", "content": "Fine."}, "last_turn_not_assistant: field ends with a user turn"),
        (turns(("assistant", "a"), ("assistant", "b")), "wrong_type: field has 2 turns, expected one answer"),
        ("", "empty_text: field is ''"),
        (None, "wrong_type: field is None, expected a text or a list of messages"),
        ([{"role": "assistant", "tool_calls": [{}]}], "tool_call_answer: field answers with a tool call"),
    ],
)
def test_what_is_no_answer_is_refused(value: object, said: str) -> None:
    assert refusal(answer_of, value) == said


@pytest.mark.parametrize("key", ["reasoning_content", "thinking"])
def test_a_thinking_part_in_a_key_of_its_own_stands_before_the_answer(key: str) -> None:
    answer = {"role": "assistant", "content": "5", key: "Add."}
    assert answer_of(answer, "field") == "<think>\nAdd.\n</think>\n\n5"
    earlier = messages_of([answer, *turns(("user", "And 6?"))], "field")
    assert [message.content for message in earlier] == ["5", "And 6?"]


def test_a_dialogue_is_everything_before_its_last_turn_and_that_turn() -> None:
    messages = messages_of(turns(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")), "field")
    assert taken_apart(messages, "field") == (messages[:3], "d")
    assert to_be_answered(messages[:3], "field") == messages[:3]
    assert refusal(to_be_answered, messages) == "ends_with_answer: field ends with an assistant turn"
    assert refusal(taken_apart, messages[:3]) == "last_turn_not_assistant: field ends with a user turn"
    assert refusal(taken_apart, messages[3:]) == "missing_field: field holds an answer and nothing that it answers"


def test_a_transcript_is_cut_at_its_speakers() -> None:
    text = "\n\nHuman: Hello.\n\nAssistant: Hello!\n\nHow are you?\n\nHuman: Fine.\n\nAssistant: Good."
    assert [(message.role, message.content) for message in transcript_of(text, "field")] == [
        ("user", "Hello."),
        ("assistant", "Hello!\n\nHow are you?"),
        ("user", "Fine."),
        ("assistant", "Good."),
    ]


def test_the_prompt_of_a_transcript_ends_where_the_answer_goes() -> None:
    expected = (Message(role="user", content="Hello."),)
    assert transcript_prompt_of("\n\nHuman: Hello.\n\nAssistant:", "field") == expected
    assert transcript_prompt_of("Human: Hello.\n\nAssistant: ", "field") == expected
    assert transcript_prompt_of("\n\nHuman: Hello.", "field") == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Hello.", "wrong_type: field is 'Hello.', expected a text that begins with Human:"),
        ("\n\nHuman: Hello.\n\nAssistant: ", "empty_text: field ends with an answer that says nothing"),
        ("\n\nHuman: \n\nAssistant: Hello.", "empty_message: field: turn 1 of the transcript says nothing"),
    ],
)
def test_a_transcript_that_is_wrong_says_where(text: str, said: str) -> None:
    assert refusal(transcript_of, text) == said

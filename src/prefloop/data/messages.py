"""Conversations in the words of any tool, as messages of ours: roles, transcripts, tool calls, and what is wrong."""

import json
import re
from collections.abc import Mapping
from typing import Any, Literal, TypeGuard

from pydantic import JsonValue

from prefloop.data.problems import RowRefused, shortened
from prefloop.records import Message

OurRole = Literal["system", "user", "assistant", "tool"]
ROLES: Mapping[str, OurRole] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "tool_response": "tool",
    "ipython": "tool",
}
"""Roles by the names that data sets give them."""
CALLS = frozenset({"function_call", "tool_call"})
"""Roles of turns in which the assistant calls tools, as JSON in the place of its words."""
THINKING = ("reasoning_content", "thinking", "reasoning")
"""Keys of a turn under which the thinking part of an answer may stand: OpenAI-like servers, Harmony in TRL."""
_SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")


def is_messages(value: object) -> TypeGuard[list[dict[str, Any]]]:
    """A list of turns with a role and words, each."""
    return _is_list_of(value, "role", "content", "tool_calls")


def is_turns(value: object) -> TypeGuard[list[dict[str, Any]]]:
    """A list of turns as ShareGPT has them, from whom and what."""
    return _is_list_of(value, "from", "value")


def is_transcript(text: str) -> bool:
    """Whether a text is a dialogue that begins with what a human says."""
    return text.lstrip(" ").startswith(("Human:", "\n\nHuman:"))


def role_of(turn: Mapping[str, Any]) -> OurRole | None:
    """Who speaks in a turn, in our words; None where we do not know the role."""
    role = turn.get("role", turn.get("from"))
    if not isinstance(role, str):
        return None
    return "assistant" if role in CALLS else ROLES.get(role.lower())


def messages_of(value: object, field: str) -> tuple[Message, ...]:
    """A conversation that a field holds: a text as one user turn, messages, or turns from/value.

    Args:
        value: what the field holds.
        field: its name, for what is said of problems.

    Raises:
        RowRefused: it is something else, or a turn is wrong.
    """
    if isinstance(value, str):
        return (Message(role="user", content=text_of(value, field)),)
    if not isinstance(value, list) or not all(_is_mapping(turn) for turn in value):
        raise RowRefused("wrong_type", f"{field} is {shown(value)}, expected a text or a list of messages")
    if not value:
        raise RowRefused("empty_text", f"{field} has no turns")
    messages = [_message(turn, f"{field}[{number}]") for number, turn in enumerate(value)]
    messages[-1] = _with_thinking(messages[-1], value[-1])
    return checked(tuple(messages), field)


def transcript_of(value: object, field: str) -> tuple[Message, ...]:
    r"""The turns of a transcript, a text of "\n\nHuman:" and "\n\nAssistant:".

    Raises:
        RowRefused: the field holds no transcript, or a turn says nothing.
    """
    text = text_of(value, field)
    if not is_transcript(text):
        raise RowRefused("wrong_type", f"{field} is {shown(text)}, expected a text that begins with Human:")
    if text.rstrip().endswith("\n\nAssistant:"):
        raise RowRefused("empty_text", f"{field} ends with an answer that says nothing")
    _, *parts = _SPEAKER.split(text.lstrip(" "))
    speakers, said = parts[::2], parts[1::2]
    turns = [Message(role=ROLES[who.lower()], content=words.strip()) for who, words in zip(speakers, said, strict=True)]
    for number, turn in enumerate(turns):
        if not turn.content:
            raise RowRefused("empty_message", f"{field}: turn {number + 1} of the transcript says nothing")
    return checked(tuple(turns), field)


def transcript_prompt_of(value: object, field: str) -> tuple[Message, ...]:
    """The turns of a transcript that ends where the answer goes, with or without "Assistant:".

    Raises:
        RowRefused: the field holds no transcript, or a turn says nothing.
    """
    return transcript_of(text_of(value, field).rstrip().removesuffix("\n\nAssistant:"), field)


def checked(messages: tuple[Message, ...], field: str) -> tuple[Message, ...]:
    """The messages, if there is at most one system turn among them.

    Raises:
        RowRefused: there are more.
    """
    if sum(message.role == "system" for message in messages) > 1:
        raise RowRefused("two_system_turns", f"{field} has more than one system turn")
    return messages


def to_be_answered(messages: tuple[Message, ...], field: str) -> tuple[Message, ...]:
    """The messages, if they end with what is to be answered.

    Raises:
        RowRefused: they end with an answer.
    """
    if messages[-1].role == "assistant":
        raise RowRefused("ends_with_answer", f"{field} ends with an assistant turn")
    return messages


def taken_apart(messages: tuple[Message, ...], field: str) -> tuple[tuple[Message, ...], str]:
    """Everything before the last turn, and what the assistant says in it.

    Raises:
        RowRefused: the last turn is not the assistant's, nothing stands before it, or it says nothing.
    """
    *before, last = messages
    if last.role != "assistant":
        raise RowRefused("last_turn_not_assistant", f"{field} ends with a {last.role} turn")
    if not before:
        raise RowRefused("missing_field", f"{field} holds an answer and nothing that it answers")
    return tuple(before), _words(last, field)


def answer_of(value: object, field: str) -> str:
    """The text of an answer: a text, an assistant's message, or a list of one.

    Raises:
        RowRefused: it is something else, or says nothing.
    """
    if isinstance(value, str):
        return text_of(value, field)
    messages = messages_of([value] if _is_mapping(value) else value, field)
    *before, last = messages
    if last.role != "assistant":
        raise RowRefused("last_turn_not_assistant", f"{field} ends with a {last.role} turn")
    if before:
        raise RowRefused("wrong_type", f"{field} has {len(messages)} turns, expected one answer")
    return _words(last, field)


def text_of(value: object, field: str) -> str:
    """A text that says something.

    Raises:
        RowRefused: it is no text, or only white space.
    """
    if not isinstance(value, str):
        raise RowRefused("wrong_type", f"{field} is {shown(value)}, expected a text")
    if not value.strip():
        raise RowRefused("empty_text", f"{field} is {shown(value)}")
    return value


def shown(value: object) -> str:
    """A value as a message about it shows it."""
    return shortened(repr(value))


def _words(answer: Message, field: str) -> str:
    if answer.tool_calls:
        raise RowRefused("tool_call_answer", f"{field} answers with a tool call")
    return text_of(answer.content, field)


def _message(turn: Mapping[str, Any], field: str) -> Message:
    role = role_of(turn)
    if role is None:
        raise RowRefused("unknown_role", f"{field} has the role {shown(turn.get('role', turn.get('from')))}")
    content = _content(turn["content"] if "content" in turn else turn.get("value"), field)
    calls: tuple[JsonValue, ...] = ()
    if turn.get("role", turn.get("from")) in CALLS:
        content, calls = "", _calls(content, field)
    elif turn.get("tool_calls"):
        calls = tuple(turn["tool_calls"]) if isinstance(turn["tool_calls"], list) else (turn["tool_calls"],)
    if not content.strip() and not calls and role != "tool":
        raise RowRefused("empty_message", f"{field} says nothing")
    names = {key: turn[key] for key in ("name", "tool_call_id") if isinstance(turn.get(key), str)}
    return Message(role=role, content=content, tool_calls=calls, **names)


def _with_thinking(message: Message, turn: Mapping[str, Any]) -> Message:
    """An answer with the thinking part that stands in a key of its own; of earlier turns no template shows it."""
    thinking = next((turn[key] for key in THINKING if isinstance(turn.get(key), str)), "").strip("\n")
    if message.role != "assistant" or not thinking:
        return message
    return message.model_copy(update={"content": f"<think>\n{thinking}\n</think>\n\n{message.content}"})


def _content(value: object, field: str) -> str:
    """The words of a turn; a list of parts is joined, if all of them are texts."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        parts = [part.get("text") if _is_mapping(part) else part for part in value]
        if all(isinstance(part, str) for part in parts):
            return "".join(str(part) for part in parts)
    raise RowRefused("wrong_type", f"{field} says {shown(value)}, expected a text")


def _calls(content: str, field: str) -> tuple[JsonValue, ...]:
    """Tool calls that stand as JSON in the place of a turn's words, in the form that chat templates read."""
    try:
        found = json.loads(content)
    except json.JSONDecodeError as error:
        raise RowRefused("wrong_type", f"{field} is a tool call, but no JSON: {error.msg}") from error
    calls = found if isinstance(found, list) else [found]
    if not calls or not all(_is_mapping(call) and isinstance(call.get("name"), str) for call in calls):
        raise RowRefused("wrong_type", f"{field} is a tool call without a name")
    return tuple({"type": "function", "function": call} for call in calls)


def _is_list_of(value: object, who: str, *says: str) -> bool:
    if not isinstance(value, list) or not value:
        return False
    return all(_is_mapping(turn) and who in turn and any(key in turn for key in says) for turn in value)


def _is_mapping(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)

"""What kind of thing a column holds."""

from types import UnionType
from typing import Any

from prefloop.data.formats.registry import Kind
from prefloop.data.messages import is_messages, is_transcript, is_turns, role_of


def kind_of(value: object) -> Kind | None:
    """The narrowest kind of a value; None for what is absent, empty or nothing that a format knows."""
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "transcript" if is_transcript(value) else "text"
    if isinstance(value, dict):
        return "mapping"
    return _kind_of_list(value) if isinstance(value, list) else None


def _kind_of_list(values: list[Any]) -> Kind | None:
    if is_messages(values):
        if role_of(values[0]) == "assistant":
            return "reply"
        return "dialogue" if role_of(values[-1]) == "assistant" else "messages"
    if is_turns(values):
        return "turns"
    there = [value for value in values if value is not None]
    kinds: tuple[tuple[Kind, type | UnionType], ...] = (("texts", str), ("mappings", dict), ("numbers", int | float))
    return next((kind for kind, of in kinds if there and all(isinstance(value, of) for value in there)), None)

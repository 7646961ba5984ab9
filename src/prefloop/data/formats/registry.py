"""Formats: how the rows of one kind of data set are recognised, and what they become."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from prefloop.data.given import Given
from prefloop.errors import DataError, did_you_mean

Kind = Literal[
    "text",
    "transcript",
    "messages",
    "dialogue",
    "reply",
    "turns",
    "number",
    "flag",
    "texts",
    "numbers",
    "mappings",
    "mapping",
]
"""What a column holds: a text, a text of "Human:"/"Assistant:" turns, messages (role, content) that end with what is to
be answered, messages that end with the assistant's turn, messages that begin with it, turns (from, value), a number,
true or false, a list of texts, a list of numbers, a list of mappings, a mapping."""
TEXT: frozenset[Kind] = frozenset({"text", "transcript"})
MESSAGES: frozenset[Kind] = frozenset({"messages", "dialogue", "turns"})
NUMBER: frozenset[Kind] = frozenset({"number"})
ANSWER: frozenset[Kind] = frozenset({"reply", "mapping", "turns"})


@dataclass(frozen=True)
class Format:
    """One form of rows that users have."""

    name: str
    says: str
    """What a user is told: "TRL preference, conversational"."""
    columns: Mapping[str, frozenset[Kind]]
    """Columns that every row has, and what each may hold."""
    optional: frozenset[str]
    """Columns that are read where they are there; all others are named as not read."""
    read: Callable[[Mapping[str, Any], str], Given]
    """From a row's values and its place to records; raises RowRefused."""
    example: str
    """One row as JSON, for the documentation; a test reads it."""
    also: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """Other names of columns; `read` finds them under the first."""


_REGISTRY: dict[str, Format] = {}


def register(format_: Format) -> Format:
    """Makes a format known under its name."""
    assert format_.name not in _REGISTRY
    known = replace(format_, read=_by_first_name(format_)) if format_.also else format_
    _REGISTRY[format_.name] = known
    return known


def with_first_names(format_: Format, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row's values with the columns that the format knows under another name under their first."""
    renamed = dict(values)
    for name, others in format_.also.items():
        for other in others:
            if renamed.get(name) is None and renamed.get(other) is not None:
                renamed[name] = renamed.pop(other)
    return renamed


def _by_first_name(format_: Format) -> Callable[[Mapping[str, Any], str], Given]:
    return lambda values, place: format_.read(with_first_names(format_, values), place)


def formats() -> dict[str, Format]:
    """All formats by name."""
    return dict(_REGISTRY)


def find_format(name: str, where: str) -> Format:
    """The format of this name.

    Raises:
        DataError: there is none; `where` is said first.
    """
    if name not in _REGISTRY:
        raise DataError(f"{where}: format '{name}' is not known. {did_you_mean(name, _REGISTRY)}")
    return _REGISTRY[name]

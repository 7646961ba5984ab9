"""Formats: how the rows of one kind of data set are recognised, and what they become."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from prefloop.data.given import Given
from prefloop.errors import DataError, did_you_mean

Kind = Literal["text", "transcript", "messages", "reply", "turns", "number", "flag", "texts", "mappings", "mapping"]
"""What a column holds: a text, a text of "Human:"/"Assistant:" turns, messages (role, content) that begin with another
turn than the assistant's, messages that are an assistant's reply alone, turns (from, value), a number, true or false,
a list of texts, a list of mappings, a mapping."""


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


_REGISTRY: dict[str, Format] = {}


def register(format_: Format) -> Format:
    """Makes a format known under its name."""
    assert format_.name not in _REGISTRY
    _REGISTRY[format_.name] = format_
    return format_


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

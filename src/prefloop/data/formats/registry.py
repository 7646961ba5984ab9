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
Kinds = frozenset[Kind]
TEXT: Kinds = frozenset({"text", "transcript"})
TRANSCRIPT: Kinds = frozenset({"transcript"})
TEXTS: Kinds = frozenset({"texts"})
MESSAGES: Kinds = frozenset({"messages", "dialogue", "turns"})
UNANSWERED: Kinds = frozenset({"messages"})
ANSWERED: Kinds = frozenset({"dialogue"})
DIALOGUE: Kinds = frozenset({"dialogue", "messages"})
"""A dialogue should be answered; one that is not is refused by itself, not as a data set of unknown format."""
REPLY: Kinds = frozenset({"reply", "mapping", "turns", "text", "transcript"})
NUMBER: Kinds = frozenset({"number"})
NUMBERS: Kinds = frozenset({"numbers"})
FLAG: Kinds = frozenset({"flag", "number"})
MAPPING: Kinds = frozenset({"mapping"})
MAPPINGS: Kinds = frozenset({"mappings"})


@dataclass(frozen=True)
class Format:
    """One form of rows that users have."""

    name: str
    says: str
    """What a user is told: "TRL preference, conversational"."""
    columns: Mapping[str, Kinds]
    """Columns that every row has, and what each may hold."""
    optional: frozenset[str]
    """Columns that are read where they are there; all others are named as not read."""
    read: Callable[[Mapping[str, Any], str], Given]
    """From a row's values and its place to records; raises RowRefused."""
    example: str
    """One row as JSON, for the documentation; a test reads it."""
    also: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """Other names of columns; `read` finds them under the first."""
    labels: frozenset[str] = frozenset()
    """Columns that are kept as the prompt's labels; many data sets have them, so that no format is known by them."""


_REGISTRY: dict[str, Format] = {}


def register(format_: Format) -> Format:
    """Makes a format known under its name."""
    assert format_.name not in _REGISTRY
    known = replace(format_, read=_by_first_name(format_)) if format_.also else format_
    _REGISTRY[format_.name] = known
    return known


def first_names(format_: Format, values: Mapping[str, Any]) -> Mapping[str, str]:
    """Columns of a row that the format reads under another name -> that name."""
    found: dict[str, str] = {}
    for name, others in format_.also.items():
        if values.get(name) is None and (
            other := next((other for other in others if values.get(other) is not None), None)
        ):
            found[other] = name
    return found


def with_first_names(format_: Format, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row's values with the columns that the format knows under another name under their first."""
    names = first_names(format_, values)
    return (
        {names.get(column, column): value for column, value in values.items() if column not in names.values()}
        if names
        else values
    )


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

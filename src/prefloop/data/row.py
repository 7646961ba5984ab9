"""A row as it stands in a file, before anybody has said what its columns mean."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from prefloop.data.problems import Problem


@dataclass(frozen=True)
class Row:
    """One row of a source."""

    place: str
    """Where it stands, "pairs.jsonl:412"; never a path. Lines and rows count from 1."""
    values: Mapping[str, Any] | None
    """Its columns as JSON values; None where the line could not be read."""
    original: str
    """The row as it stands in the file; as JSON, where the file is binary."""
    problems: tuple[Problem, ...] = ()
    """What is wrong with it as a line; a refused line has no values."""


SURROGATE = re.compile("[\ud800-\udfff]")


def row_of(place: str, value: object, original: str, problems: tuple[Problem, ...] = ()) -> Row:
    """A row of what was read at a place, unless it is no object or holds characters that are none.

    Args:
        place: of the row.
        value: what was read there.
        original: how it stands there.
        problems: what was wrong on the way; where one refuses the row, nothing is added.
    """
    if any(problem.fate == "refused" for problem in problems):
        return Row(place, None, original, problems)
    if not isinstance(value, dict):
        return Row(place, None, original, (*problems, Problem("not_an_object", f"found {_kind(value)}")))
    values = cast("dict[str, Any]", value)
    bad = _bad_character(values)
    return Row(place, values, original, problems) if bad is None else Row(place, None, original, (*problems, bad))


def _bad_character(values: Mapping[str, Any]) -> Problem | None:
    for path, text in _texts(values):
        if "\0" in text:
            return Problem("nul", f"in {_shown(path)} at character {text.index(chr(0)) + 1}")
        if not text.isascii() and (found := SURROGATE.search(text)):
            return Problem(
                "lone_surrogate", f"U+{ord(found[0]):04X} in {_shown(path)} at character {found.start() + 1}"
            )
    return None


def _texts(values: Mapping[str, Any]) -> Iterator[tuple[Sequence[str | int], str]]:
    """Every text with the keys and positions that lead to it. No recursion: what JSON can nest, this can walk."""
    waiting: list[tuple[tuple[str | int, ...], object]] = [((), values)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, str):
            yield path, value
        elif isinstance(value, dict):
            inside = cast("dict[str, object]", value)
            waiting += [((*path, key), inner) for key, inner in inside.items()]
            for key in inside:
                yield (*path, "a key"), key
        elif isinstance(value, list):
            waiting += [((*path, number), inner) for number, inner in enumerate(cast("list[object]", value))]


def _shown(path: Sequence[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def _kind(value: object) -> str:
    match value:
        case list():
            return "a list"
        case str():
            return "a text"
        case None:
            return "null"
        case bool():
            return "true or false"
        case _:
            return "a number"


def printable(text: str) -> str:
    """A text read with `surrogateescape`, with the bytes that are no UTF-8 written out."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def not_utf8(text: str) -> Problem | None:
    """The problem of a row's text read with `surrogateescape`, where a byte of it is no UTF-8."""
    if (bad := SURROGATE.search(text)) is None:
        return None
    return Problem("invalid_utf8", f"0x{ord(bad[0]) - 0xDC00:02X} at character {bad.start() + 1} of the row")


def columns_twice(names: Sequence[str]) -> tuple[Problem, ...]:
    """The problem of every row of a table in which two columns have one name."""
    twice = [name for number, name in enumerate(names) if name in names[:number]]
    return (Problem("duplicate_key", f"the column {twice[0]} stands twice"),) if twice else ()


def without_none(value: Any) -> Any:
    """A value without the keys that hold nothing: a table writes them where only other rows have them."""
    match value:
        case dict():
            return {key: without_none(inner) for key, inner in value.items() if inner is not None}
        case list():
            return [without_none(inner) for inner in value]
        case _:
            return value

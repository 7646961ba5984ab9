"""JSON as text: values with the keys that stand twice, and lines of JSON as rows with what is wrong with them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from prefloop.data.problems import Problem, shortened
from prefloop.data.row import Row, row_of

LONGEST_LINE = 64 * 2**20
"""Bytes; a longer line is never held in memory."""
SHOWN = 200
"""Characters of a line that is too long, as its original."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Decoded:
    """A JSON value."""

    value: Any
    end: int
    """Position behind it."""
    twice: tuple[str, ...]
    """Keys that stand more than once in one object; the value has the last."""


def decoded(text: str, start: int = 0) -> Decoded:
    """The JSON value that begins at a position.

    Raises:
        ValueError: there is none; a JSONDecodeError says where it goes wrong.
        RecursionError: it is nested too deeply.
    """
    twice: list[str] = []

    def made(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice.extend(key for key in found if keys.count(key) > 1)
        return found

    value, end = json.JSONDecoder(object_pairs_hook=made).raw_decode(text, start)
    return Decoded(value, end, tuple(twice))


def duplicates(found: Decoded) -> tuple[Problem, ...]:
    """The problem of keys that stand twice, if there are any."""
    return (Problem("duplicate_key", ", ".join(found.twice)),) if found.twice else ()


def rows_of_lines(file: BinaryIO, place: str) -> Iterator[Row]:
    """Every line of a file as a row, good or bad; lines count from 1.

    Args:
        file: its bytes.
        place: what the file is called.
    """
    for number, line in enumerate(_lines(file), start=1):
        yield _row_of_line(line, f"{place}:{number}", first=number == 1)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines with their end; of one that is too long only as much as shows that it is."""
    while line := file.readline(LONGEST_LINE + 1):
        too_long = len(line) > LONGEST_LINE and not line.endswith(b"\n")
        yield line
        while too_long and line and not line.endswith(b"\n"):
            line = file.readline(2**20)


def _row_of_line(line: bytes, place: str, *, first: bool) -> Row:
    problems: tuple[Problem, ...] = ()
    if first and line.startswith(BYTE_ORDER_MARK):
        problems = (Problem("byte_order_mark", "EF BB BF before the first character"),)
        line = line.removeprefix(BYTE_ORDER_MARK)
    body = line.rstrip(b"\r\n")
    if len(body) > LONGEST_LINE:
        shown = body[:SHOWN].decode(errors="replace")
        return Row(place, None, shown, (*problems, Problem("line_too_long", "more than 64 MiB")))
    original = body.decode(errors="backslashreplace")
    if (problem := _problem_of_bytes(body)) is not None:
        return Row(place, None, original, (*problems, problem))
    try:
        found = decoded(original, len(original) - len(original.lstrip()))
    except (ValueError, RecursionError) as error:
        return Row(place, None, original, (*problems, invalid(error, original, ends=not line.endswith(b"\n"))))
    if rest := original[found.end :].strip():
        problem = Problem("invalid_json", f"{shortened(rest)} behind the value, at column {found.end + 1}")
        return Row(place, None, original, (*problems, problem))
    return row_of(place, found.value, original, (*problems, *duplicates(found)))


def _problem_of_bytes(body: bytes) -> Problem | None:
    if not body.strip():
        return Problem("empty_line", "nothing but white space")
    if b"\0" in body:
        return Problem("nul", f"byte {body.index(0) + 1} of the line")
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return Problem("invalid_utf8", f"0x{body[error.start]:02X} at byte {error.start + 1} of the line")
    return None


def invalid(error: Exception, text: str, *, ends: bool) -> Problem:
    """What is wrong with text that is not JSON.

    Args:
        error: of `decoded`.
        text: what was read.
        ends: whether nothing follows it in the file, so that it may have been cut off.
    """
    if isinstance(error, RecursionError):
        return Problem("invalid_json", "nested too deeply")
    if not isinstance(error, json.JSONDecodeError):
        return Problem("invalid_json", shortened(str(error)))
    at_end = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
    if ends and at_end:
        return Problem("invalid_json", f"cut off after {len(text)} characters")
    return Problem("invalid_json", f"{error.msg} at column {error.pos + 1}")

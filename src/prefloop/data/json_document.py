"""A JSON document as rows: a list of objects, or an object with one list; read piece by piece, never as a whole."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from typing import BinaryIO, TextIO

from prefloop.data.json_text import (
    LONGEST_LINE,
    SHOWN,
    Decoded,
    decoded,
    duplicates,
    invalid,
    rows_of_lines,
)
from prefloop.data.problems import Problem
from prefloop.data.row import Row, not_utf8, printable, row_of
from prefloop.errors import DataError

PIECE = 2**16
"""Characters that are read at a time."""
EXPECTED = "a list of objects, or an object that holds one"
BLANK = " \t\r\n"


class Invalid(Exception):  # noqa: N818
    """The document cannot be read on from here."""

    def __init__(self, problem: Problem, original: str) -> None:
        super().__init__(problem.detail)
        self.problem = problem
        self.original = original


class Document:
    """The text of a JSON document with a position that only moves forward."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text = ""
        self._at = 0
        self._ended = False

    def pass_mark(self) -> bool:
        """Passes a byte order mark, if the document begins with one."""
        self._read(PIECE)
        marked = self._text.startswith("\ufeff")
        self._at += marked
        return marked

    def next_sign(self) -> str:
        """The next character that is not white space, without passing it; empty at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in BLANK:
                    return self._text[self._at]
                self._at += 1
            if not self._read(PIECE):
                return ""

    def take(self, *expected: str) -> str:
        """Passes one of some characters.

        Raises:
            Invalid: another one stands there.
        """
        found = self.next_sign()
        if found not in expected or not found:
            raise self._invalid(f"expected {' or '.join(expected)}")
        self._at += 1
        return found

    def value(self) -> tuple[Decoded, str]:
        """Passes one whole value; it and its text.

        Raises:
            Invalid: there is none, or it is longer than a line may be.
        """
        self.next_sign()
        wanted = PIECE
        while True:
            try:
                found = decoded(self._text, self._at)
            except (ValueError, RecursionError) as error:
                if self._ended or isinstance(error, RecursionError):
                    rest = self._text[self._at :]
                    raise Invalid(self._described(error), rest[:SHOWN]) from error
            else:
                if found.end < len(self._text) or self._ended:
                    text = self._text[self._at : found.end]
                    self._at = found.end
                    return found, text
            if len(self._text) - self._at > LONGEST_LINE:
                raise Invalid(Problem("line_too_long", "more than 64 MiB"), self._text[self._at :][:SHOWN])
            self._read(wanted)
            wanted *= 2

    def _read(self, characters: int) -> bool:
        piece = self._file.read(characters)
        self._text = self._text[self._at :] + piece
        self._at = 0
        self._ended = not piece
        return bool(piece)

    def _described(self, error: Exception) -> Problem:
        if isinstance(error, json.JSONDecodeError):
            rest = self._text[self._at :]
            return invalid(json.JSONDecodeError(error.msg, rest, error.pos - self._at), rest, ends=True)
        return invalid(error, "", ends=False)

    def _invalid(self, expected: str) -> Invalid:
        rest = self._text[self._at : self._at + SHOWN]
        found = f"{rest[0]!r}" if rest else "the end of the file"
        return Invalid(Problem("invalid_json", f"{expected}, found {found}"), rest)


@dataclass(frozen=True)
class _Survey:
    """What a document is made of, as far as it can be read."""

    lists: tuple[str, ...] = ()
    """Keys of an object that hold lists."""
    one_of_many: bool = False
    """Another value follows the object: the file holds JSON lines."""


def rows_of_document(opened: Callable[[], BinaryIO], place: str) -> Iterator[Row]:
    """The rows of a JSON file: the objects of its list, or itself, where it is one object without a list.

    Some call files of JSON lines `.json`; they are read as such. Where the document breaks off or goes wrong, one last
    row says so: what follows cannot be told apart.

    Args:
        opened: opens the file from its beginning.
        place: what the file is called.

    Raises:
        DataError: the file holds an object with several lists, or no object and no list.
    """
    with _text(opened) as file:
        document = Document(file)
        document.pass_mark()
        begins = document.next_sign()
        survey = _surveyed(document) if begins == "{" else _Survey()
    if survey.one_of_many:
        with opened() as lines:
            yield from rows_of_lines(lines, place)
        return
    if begins not in {"", "[", "{"} or len(survey.lists) > 1:
        found = (
            f"an object with the lists {', '.join(survey.lists)}" if survey.lists else f"{begins!r} at its beginning"
        )
        raise DataError(f"{place}: found {found}, expected {EXPECTED}. Write one JSON object a line, as .jsonl.")
    with _text(opened) as file:
        yield from _rows(Document(file), survey.lists, place)


def _text(opened: Callable[[], BinaryIO]) -> TextIO:
    return TextIOWrapper(opened(), encoding="utf-8", errors="surrogateescape", newline="")


def _surveyed(document: Document) -> _Survey:
    """Walks through an object once to find its lists; a value of the object is never kept."""
    lists: list[str] = []
    try:
        for key in _keys(document):
            if document.next_sign() == "[":
                lists.append(key)
                for _ in _elements(document):
                    pass
            else:
                document.value()
        return _Survey(tuple(lists), one_of_many=document.next_sign() != "")
    except Invalid:  # told again, as a row, when the rows are read
        return _Survey(tuple(lists))


def _rows(document: Document, lists: tuple[str, ...], place: str) -> Iterator[Row]:
    marked = (Problem("byte_order_mark", "before the first character"),) if document.pass_mark() else ()
    number = 0
    try:
        for found, text in _values(document, lists):
            number += 1
            yield _row(found, text, f"{place}:{number}", marked if number == 1 else ())
        if sign := document.next_sign():
            raise Invalid(Problem("invalid_json", f"{sign!r} behind the end of the document"), sign)
    except Invalid as error:
        problems = (*(() if number else marked), error.problem)
        yield Row(f"{place}:{number + 1}", None, printable(error.original), problems)


def _values(document: Document, lists: tuple[str, ...]) -> Iterator[tuple[Decoded, str]]:
    """The values that are rows."""
    if document.next_sign() == "[":
        yield from _elements(document)
    elif not lists:
        if document.next_sign():
            yield document.value()
    else:
        for key in _keys(document):
            if key in lists:
                yield from _elements(document)
            else:
                document.value()


def _keys(document: Document) -> Iterator[str]:
    """The keys of an object, each with the position at its value; the caller passes the value."""
    document.take("{")
    if document.next_sign() == "}":
        document.take("}")
        return
    while True:
        found, _ = document.value()
        document.take(":")
        yield str(found.value)
        if document.take(",", "}") == "}":
            return


def _elements(document: Document) -> Iterator[tuple[Decoded, str]]:
    """The elements of a list, with their text."""
    document.take("[")
    if document.next_sign() == "]":
        document.take("]")
        return
    while True:
        yield document.value()
        if document.take(",", "]") == "]":
            return


def _row(found: Decoded, text: str, place: str, problems: tuple[Problem, ...]) -> Row:
    if (byte := not_utf8(text)) is not None:
        return Row(place, None, printable(text), (*problems, byte))
    return row_of(place, found.value, text, (*problems, *duplicates(found)))

"""Files of judgments as lines, each with its place, and their columns with the error that names it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from prefloop.data.compressed import ENDINGS, to_read
from prefloop.data.files import READERS, rows_of_file
from prefloop.data.problems import CODES
from prefloop.errors import DataError


@dataclass(frozen=True)
class Line:
    """One row of a file."""

    place: str
    """"judgments.jsonl:412"; never a path."""
    values: Mapping[str, Any]

    def given(self, column: str) -> Any:
        """What a column holds.

        Raises:
            DataError: there is no such column.
        """
        if column not in self.values:
            raise DataError(f"{self.place}: has no {column}; its columns are {', '.join(self.values) or 'none'}.")
        return self.values[column]

    def number(self, column: str) -> float:
        """A number that is finite.

        Raises:
            DataError: there is none.
        """
        value = self.given(column)
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise self.wrong(column, "a number")
        return float(value)

    def name(self, column: str) -> str:
        """What something is called: a text, or a number.

        Raises:
            DataError: there is none.
        """
        value = self.given(column)
        if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
            raise self.wrong(column, "a name")
        return str(value)

    def whole(self, column: str) -> int:
        """A whole number.

        Raises:
            DataError: there is none.
        """
        value = self.number(column)
        if value != int(value):
            raise self.wrong(column, "a whole number")
        return int(value)

    def text(self, column: str) -> str:
        """A text.

        Raises:
            DataError: there is none.
        """
        value = self.given(column)
        if not isinstance(value, str):
            raise self.wrong(column, "a text")
        return value

    def wrong(self, column: str, expected: str) -> DataError:
        """The error of a column that holds something else than is expected."""
        found = repr(self.values.get(column))
        return DataError(
            f"{self.place}: {column} is {found if len(found) <= 60 else found[:57] + '...'}, expected {expected}."
        )


def read_lines(path: Path) -> tuple[Line, ...]:
    """All rows of a JSON lines, JSON or CSV file, which may be compressed.

    Raises:
        DataError: a row cannot be read, or there is none.
    """
    _check_file(path)
    lines: list[Line] = []
    for row in rows_of_file(path, path.name):
        if row.values is None:
            problem = next(problem for problem in row.problems if problem.fate == "refused")
            raise DataError(f"{row.place}: {CODES[problem.code].meaning}: {problem.detail}. {CODES[problem.code].fix}")
        lines.append(Line(row.place, row.values))
    if not lines:
        raise DataError(f"{path.name}: has no row. Name a file of judgments.")
    return tuple(lines)


def _check_file(path: Path) -> None:
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "there is no such file"
        raise DataError(f"{path}: {found}. Name a file of judgments.")


def read_json(path: Path) -> Any:
    """The one JSON value of a file, which may be compressed.

    Raises:
        DataError: it is none.
    """
    _check_file(path)
    try:
        with to_read(path) as file:
            return json.loads(file.read())
    except (EOFError, OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path.name}: is not JSON: {error}. Get the file again.") from None


def stem(path: Path) -> str:
    """What a file is called without the endings of its kind and its compression: "gpt-3.5" of "gpt-3.5.jsonl.gz"."""
    name = path.name.removesuffix(path.suffix) if path.suffix in ENDINGS else path.name
    known = next((known for known in READERS if name.lower().endswith(known)), "")
    return name[: len(name) - len(known)]


def names_of(paths: Sequence[Path]) -> tuple[str, ...]:
    """The stem of each file, with its folder's name before it where two are called the same.

    Raises:
        DataError: one file is named twice.
    """
    stems = [stem(path) for path in paths]
    names = [
        f"{path.resolve().parent.name}/{name}" if stems.count(name) > 1 else name
        for path, name in zip(paths, stems, strict=True)
    ]
    for path, name in zip(paths, names, strict=True):
        if names.count(name) > 1:
            raise DataError(f"{path}: a second file is called {name}. Name each file once.")
    return tuple(names)

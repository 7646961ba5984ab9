"""CSV files as rows: cells are texts unless their column holds numbers, flags, lists or objects."""

import ast
import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import Any, BinaryIO

from prefloop.data.json_text import BYTE_ORDER_MARK, LONGEST_LINE, SHOWN
from prefloop.data.problems import CODES, Problem
from prefloop.data.row import Row, columns_twice, not_utf8, printable, row_of, without_none
from prefloop.errors import DataError

LOOKED_AT = 1000
"""Rows that decide what a column holds; a later cell that is something else stays a text."""
NUMBER = re.compile(
    r"(?P<digits>-?(0|[1-9]\d*))|-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?|(?i:[+-]?(nan|inf|infinity))", re.A
)
FLAGS = {"true": True, "false": False, "True": True, "False": False}

csv.field_size_limit(LONGEST_LINE)  # the reader's own limit of 128 KiB is shorter than answers are

Cells = tuple[list[str], str, tuple[Problem, ...]]
"""The cells of a row, how it stands in the file, and what is wrong with it."""
Meaning = Callable[[str], Any]
"""From a cell to its value; a ValueError where it has none."""


def rows_of_csv(file: BinaryIO, place: str, delimiter: str) -> Iterator[Row]:
    """Every row below the header, good or bad; rows count from 1, however many lines each takes.

    A column of the first rows holds numbers where all of its cells are numbers, flags where all are true or false, and
    lists or objects where most are, as JSON or as Python writes them. Otherwise it holds texts. An empty cell is an
    empty text, or no value at all.

    Args:
        file: its bytes, UTF-8.
        place: what the file is called.
        delimiter: between cells.

    Raises:
        DataError: the header cannot be read.
    """
    rows = _cells(file, delimiter)
    header, problems = _header(rows, place)
    if not header:
        return
    always = columns_twice(header)
    first = list(islice(rows, LOOKED_AT))
    whole = [cells for cells, _, _ in first if len(cells) == len(header)]
    meanings = {name: _meaning([cells[index] for cells in whole]) for index, name in enumerate(header)}
    for number, (cells, original, found) in enumerate(chain(first, rows), start=1):
        wrong = (*(problems if number == 1 else ()), *found, *always)
        if not found and len(cells) != len(header):
            wrong = (*wrong, Problem("invalid_csv", f"{len(cells)} cells under {len(header)} columns"))
        values = dict(_values(dict(zip(header, cells, strict=False)), meanings))
        yield row_of(f"{place}:{number}", values, original, wrong)


def _header(rows: Iterator[Cells], place: str) -> tuple[list[str], tuple[Problem, ...]]:
    """The names of the columns, and what the first row is warned of."""
    for header, _, problems in rows:
        refused = [problem for problem in problems if problem.fate == "refused" and problem.code != "empty_line"]
        if refused:
            raise DataError(f"{place}: the header cannot be read: {refused[0].detail}. {CODES[refused[0].code].fix}")
        if header:
            return header, problems
    return [], ()


def _cells(file: BinaryIO, delimiter: str) -> Iterator[Cells]:
    lines = _Lines(file)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        lines.taken.clear()
        problem = None
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            cells, problem = [], Problem("invalid_csv", str(error))
        original = "".join(lines.taken).rstrip("\r\n")
        yield cells, printable(original), lines.problems(original, problem)


class _Lines:
    """The lines of a file, as texts in which a byte that is no UTF-8 is a lone surrogate, with what is wrong so far."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._first = True
        self._marked = False
        self._too_long = False
        self.taken: list[str] = []
        """What was read since it was cleared last."""

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._file.readline(LONGEST_LINE + 1)
        if not line:
            raise StopIteration
        if self._first and line.startswith(BYTE_ORDER_MARK):
            self._marked = True
            line = line.removeprefix(BYTE_ORDER_MARK)
        self._first = False
        if len(line) > LONGEST_LINE and not line.endswith(b"\n"):
            self._too_long = True
            line = line[:SHOWN]
            while (rest := self._file.readline(2**20)) and not rest.endswith(b"\n"):
                pass
        self.taken.append(line.decode(errors="surrogateescape"))
        return self.taken[-1]

    def problems(self, original: str, problem: Problem | None) -> tuple[Problem, ...]:
        """What is wrong with the row that was just taken; of what refuses it, the first."""
        found: list[Problem] = []
        if self._marked:
            found.append(Problem("byte_order_mark", "EF BB BF before the first character"))
        if self._too_long:
            found.append(Problem("line_too_long", "more than 64 MiB"))
        elif not original.strip():
            found.append(Problem("empty_line", "nothing but white space"))
        elif (byte := not_utf8(original)) is not None:
            found.append(byte)
        elif problem is not None:
            found.append(problem)
        self._marked = self._too_long = False
        return tuple(found)


def _meaning(cells: Sequence[str]) -> Meaning:
    """What the cells of a column are."""
    filled = [cell for cell in cells if cell.strip()]
    if not filled:
        return str
    for meaning, enough in ((_number, len(filled)), (_flag, len(filled)), (_nested, len(filled) // 2 + 1)):
        if sum(_has(meaning, cell) for cell in filled) >= enough:
            return meaning
    return str


def _has(meaning: Meaning, cell: str) -> bool:
    try:
        meaning(cell)
    except ValueError:
        return False
    return True


def _number(cell: str) -> int | float:
    """A number as JSON writes it, or a NaN or infinity, which later checks are to see; "007" is a name."""
    if (found := NUMBER.fullmatch(cell.strip())) is None:
        raise ValueError(cell)
    return int(cell) if found["digits"] else float(cell)


def _flag(cell: str) -> bool:
    if cell.strip() not in FLAGS:
        raise ValueError(cell)
    return FLAGS[cell.strip()]


def _nested(cell: str) -> Any:
    """A list or an object, as JSON or as Python writes it (pandas and datasets do)."""
    if not cell.lstrip().startswith(("[", "{")):
        raise ValueError(cell)
    with suppress(ValueError, RecursionError):
        return json.loads(cell)
    try:
        return without_none(ast.literal_eval(cell.strip()))
    except (SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(cell) from error


def _values(cells: Mapping[str, str], meanings: Mapping[str, Meaning]) -> Iterator[tuple[str, Any]]:
    for name, cell in cells.items():
        if meanings[name] is str:
            yield name, cell
        elif cell.strip():
            yield name, meanings[name](cell) if _has(meanings[name], cell) else cell

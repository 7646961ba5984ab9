"""Files of rows: which reader an ending asks for."""

import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from prefloop.data.compressed import ENDINGS, ZstdError, to_read
from prefloop.data.csv_file import rows_of_csv
from prefloop.data.json_document import rows_of_document
from prefloop.data.json_text import rows_of_lines
from prefloop.data.row import Row
from prefloop.errors import DataError

Reader = Callable[[Path, str], Iterator[Row]]
"""From a file and what it is called to its rows."""


def _json_lines(path: Path, place: str) -> Iterator[Row]:
    with to_read(path) as file:
        yield from rows_of_lines(file, place)


def _json(path: Path, place: str) -> Iterator[Row]:
    return rows_of_document(lambda: to_read(path), place)


def _csv(path: Path, place: str) -> Iterator[Row]:
    with to_read(path) as file:
        yield from rows_of_csv(file, place, ",")


def _tsv(path: Path, place: str) -> Iterator[Row]:
    with to_read(path) as file:
        yield from rows_of_csv(file, place, "\t")


def _columnar(path: Path, place: str) -> Iterator[Row]:
    try:
        from prefloop.data import columnar  # noqa: PLC0415  an extra, and slow to import
    except ImportError as error:
        raise DataError(f"{place}: needs pyarrow to be read. Run: pip install 'prefloop[data]'") from error
    reader = columnar.rows_of_parquet if ending(path) == ".parquet" else columnar.rows_of_arrow
    yield from reader(path, place)


READERS: Mapping[str, Reader] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _columnar,
    ".arrow": _columnar,
}
"""By ending of a file's name, without that of a compression."""


def ending(path: Path) -> str:
    """The ending that says what a file holds: ".jsonl" of "pairs.jsonl.gz"."""
    return (path.with_suffix("") if path.suffix in ENDINGS else path).suffix.lower()


def rows_of_file(path: Path, place: str) -> Iterator[Row]:
    """The rows of a file; one whose ending says nothing is read as JSON lines.

    Args:
        path: of the file.
        place: what it is called in the places of its rows.

    Raises:
        DataError: the file is damaged as a whole, so that its rows cannot be told apart.
    """
    number = 0
    try:
        for row in READERS.get(ending(path), _json_lines)(path, place):
            yield row
            number += 1
    except (EOFError, OSError, zlib.error, ZstdError) as error:
        raise DataError(f"{place}: is damaged after row {number}: {error}. Get the file again.") from error

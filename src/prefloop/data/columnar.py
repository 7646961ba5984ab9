"""Parquet and Arrow files as rows. Needs pyarrow, which is imported nowhere else."""

import base64
import json
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from prefloop.data.problems import Problem
from prefloop.data.row import Row, columns_twice, row_of, without_none

BATCH = 256
"""Rows that are in memory at a time."""


def rows_of_parquet(path: Path, place: str) -> Iterator[Row]:
    """The rows of a parquet file; they count from 1.

    Raises:
        OSError: the file is not whole.
    """
    with _arrow_errors(), parquet.ParquetFile(path, buffer_size=2**20, pre_buffer=False) as file:
        yield from _rows(file.iter_batches(BATCH, use_threads=False), place)


def rows_of_arrow(path: Path, place: str) -> Iterator[Row]:
    """The rows of an Arrow file, as a stream (`datasets` writes them) or with a footer; they count from 1.

    Raises:
        OSError: the file is not whole.
    """
    with _arrow_errors(), pa.memory_map(str(path)) as file:
        footed = file.read(6) == b"ARROW1"
        file.seek(0)
        if footed:
            reader = pa.ipc.open_file(file)
            batches: Iterable[pa.RecordBatch] = map(reader.get_batch, range(reader.num_record_batches))
        else:
            batches = pa.ipc.open_stream(file)
        pieces = (batch.slice(start, BATCH) for batch in batches for start in range(0, batch.num_rows, BATCH))
        yield from _rows(pieces, place)


@contextmanager
def _arrow_errors() -> Generator[None]:
    try:
        yield
    except pa.ArrowException as error:
        raise OSError(str(error).splitlines()[0]) from error


def _rows(batches: Iterable[pa.RecordBatch], place: str) -> Iterator[Row]:
    number = 0
    for batch in batches:
        always = columns_twice(batch.schema.names)
        for values, problems in _of_batch(batch):
            number += 1
            original = json.dumps(values, ensure_ascii=False)
            yield row_of(f"{place}:{number}", values, original, (*always, *problems))


def _of_batch(batch: pa.RecordBatch) -> Iterator[tuple[dict[str, Any], tuple[Problem, ...]]]:
    """Rows as JSON values; of a batch with one that cannot be read, row by row."""
    try:
        columns = [_json_values(column) for column in batch.columns]
    except (ValueError, KeyError):
        for index in range(batch.num_rows):
            yield _of_row(batch.slice(index, 1))
        return
    for cells in zip(*columns, strict=True):
        yield without_none(dict(zip(batch.schema.names, cells, strict=True))), ()


def _of_row(row: pa.RecordBatch) -> tuple[dict[str, Any], tuple[Problem, ...]]:
    """What of a row can be read, and what is wrong with the rest."""
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for name, column in zip(row.schema.names, row.columns, strict=True):
        try:
            values[name] = _json_values(column)[0]
        except UnicodeDecodeError as error:
            problems.append(Problem("invalid_utf8", f"0x{error.object[error.start]:02X} in {name}"))
            values[name] = error.object.decode(errors="backslashreplace")
        except ValueError as error:
            problems.append(Problem("invalid_json", f"{error} in {name}"))
        except KeyError as error:
            problems.append(Problem("duplicate_key", f"{error.args[0]} in {name}"))
    return without_none(values), tuple(problems[:1])


def _json_values(column: pa.Array) -> list[Any]:
    values = column.to_pylist(maps_as_pydicts="strict")
    return values if _is_json(column.type) else [_json_value(value, column.type) for value in values]


def _is_json(kind: pa.DataType) -> bool:
    """What pyarrow makes of the type is JSON as it is."""
    if isinstance(kind, pa.JsonType):
        return False
    return (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_null(kind)
        or (kind.num_fields > 0 and all(_is_json(kind.field(index).type) for index in range(kind.num_fields)))
    )


def _json_value(value: Any, kind: pa.DataType) -> Any:
    """A value as JSON has it: dates as texts, decimals as numbers, and JSON that a column holds as text, read."""
    match value:
        case str():
            return json.loads(value) if isinstance(kind, pa.JsonType) else value
        case dict():
            return {str(key): _json_value(inner, _inner(kind, key)) for key, inner in value.items()}
        case list():
            return [_json_value(inner, kind.value_type) for inner in value]
        case _:
            return _scalar(value)


def _scalar(value: Any) -> Any:
    match value:
        case Decimal():
            return float(value)
        case date() | time():
            return value.isoformat()
        case bytes():
            return base64.b64encode(value).decode()
        case timedelta():
            return value.total_seconds()
        case _:
            return value


def _inner(kind: pa.DataType, key: str) -> pa.DataType:
    return kind.item_type if pa.types.is_map(kind) else kind.field(key).type

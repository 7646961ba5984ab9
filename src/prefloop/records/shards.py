"""Records in files: JSON lines, cut into shards of prompts that are aligned over all artifacts of a run."""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from prefloop.errors import DataError
from prefloop.records.nouns import Record

PROMPTS_PER_SHARD = 1000

R = TypeVar("R", bound=Record)
T = TypeVar("T")


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"part-{number:05d}.jsonl"


def in_pieces(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    """Neighbouring items together, `size` at a time; the last piece may be shorter."""
    rest = iter(items)
    while piece := tuple(islice(rest, size)):
        yield piece


def shards_in(folder: Path) -> list[Path]:
    """The shards of a folder, in order."""
    return sorted(folder.glob("part-*.jsonl"))


def to_line(record: Record) -> str:
    """One record as one JSON line, fields in the order of its class, absent values left out."""
    return json.dumps(record.model_dump(mode="json", exclude_none=True), ensure_ascii=False) + "\n"


def write_records(path: Path, records: Iterable[Record]) -> int:
    """Writes records to one file and says how many there were."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(to_line(record))
            count += 1
    return count


def read_records(path: Path, kind: type[R]) -> Iterator[R]:
    """The records of one file.

    Raises:
        DataError: a line is not a record of this kind; says the file, the line and what to look for.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield kind.model_validate_json(line)
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(part) for part in first["loc"]) or "line"
                raise DataError(
                    f"{path.parent.name}/{path.name}:{number}: not a {kind.__name__}: {where}: {first['msg']}. "
                    "Was this file written by another stage or an older version?"
                ) from error


def read_folder(folder: Path, kind: type[R], name: str | None = None) -> Iterator[R]:
    """The records of all shards of a folder in order, or of the shard of one name."""
    for shard in shards_in(folder):
        if name in {None, shard.name}:
            yield from read_records(shard, kind)

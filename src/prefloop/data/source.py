"""Where prompts and pairs come from: what a recipe names, as rows with their places."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Protocol

from pydantic import TypeAdapter, ValidationError

from prefloop.data.files import rows_of_file
from prefloop.data.problems import CODES
from prefloop.data.row import Row
from prefloop.errors import DataError, did_you_mean
from prefloop.records import Message, digest, file_digest

SHIPPED = {
    "everyday": ("everyday.jsonl", "train"),
    "everyday_pairs": ("everyday_pairs.jsonl", None),
    "everyday_scored_pairs": ("everyday_scored_pairs.jsonl", None),
}
"""Shipped sets with their default part; `everyday:heldout` is kept for evaluation.

The scored pairs are twelve of `everyday_pairs` with what the judge `vader` says of their answers.
"""


class DataSource(Protocol):
    """Rows from one place."""

    @property
    def name(self) -> str:
        """What it is called in messages and records; never a path."""
        ...

    @property
    def identity(self) -> str:
        """Equal where the rows are equal, wherever they lie."""
        ...

    def rows(self) -> Iterator[Row]:
        """Every row with its place, good or bad, in order; streamed."""
        ...


@dataclass(frozen=True)
class FileSource:
    """A file of rows, or the part of one that belongs to a split."""

    path: Path
    split: str | None = None

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.path.name

    @property
    def identity(self) -> str:
        """Hash of what the rows are, whatever the file is called."""
        return digest([file_digest(self.path), self.split])

    def rows(self) -> Iterator[Row]:
        """The rows of the file; of a split those whose column `split` names it."""
        for row in rows_of_file(self.path, self.path.name):
            if self.split is None or (row.values is not None and row.values.get("split") == self.split):
                yield row


def find_source(name: str) -> DataSource:
    """The source that a recipe names: a file, `everyday` or `everyday:heldout` (`builtin:` may stand in front).

    Raises:
        DataError: there is no such file or shipped set.
    """
    stem, _, split = name.removeprefix("builtin:").partition(":")
    if stem in SHIPPED:
        file, default = SHIPPED[stem]
        with as_file(files("prefloop.data") / file) as path:
            return FileSource(path, split or default)
    path = Path(name)
    if not path.is_file():
        raise DataError(
            f"{name}: no such file. Give a file of JSON lines or a shipped set. {did_you_mean(stem, SHIPPED)}"
        )
    return FileSource(path)


def usable(source: DataSource) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each row with its place.

    Raises:
        DataError: a line cannot be read; says file and line.
    """
    for row in source.rows():
        if row.values is None:
            problem = row.problems[-1]
            code = CODES[problem.code]
            raise DataError(f"{row.place}: {code.meaning}: {problem.detail}. {code.fix}")
        yield row.place, row.values


def messages_of(value: object, key: str, place: str) -> tuple[Message, ...]:
    """A string as one user message, or a list of messages, checked.

    Raises:
        DataError: it is neither, or a message is empty or malformed.
    """
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    try:
        messages = TypeAdapter(tuple[Message, ...]).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        raise DataError(
            f"{place}: {key}{where}: {first['msg']}, found {_shown(first['input'])}. "
            "Expected a text or a list of {role, content}."
        ) from error
    if not messages:
        raise DataError(f"{place}: {key} is empty, expected a text or a list of messages.")
    for number, message in enumerate(messages):
        if not message.content.strip():
            raise DataError(f"{place}: {key}[{number}].content is empty. Fill it in or remove the row.")
    return messages


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

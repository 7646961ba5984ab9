"""Where prompts and pairs come from: shipped sets and files of JSON lines, row by row with their place."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

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


@dataclass(frozen=True)
class DataSource:
    """A file of rows, or the part of one that belongs to a split."""

    path: Path
    split: str | None

    @property
    def identity(self) -> str:
        """Hash of what the rows are, whatever the file is called."""
        return digest([file_digest(self.path), self.split])

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each row with its place, "file.jsonl:412".

        Raises:
            DataError: a line is empty or no JSON object; says file and line.
        """
        with self.path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                place = f"{self.path.name}:{number}"
                if not line.strip():
                    raise DataError(f"{place}: the line is empty, expected a JSON object. Remove the line.")
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise DataError(
                        f"{place}: not JSON: {error.msg} at column {error.colno}. Write one JSON object a line."
                    ) from error
                if not isinstance(row, dict):
                    raise DataError(f"{place}: found {type(row).__name__}, expected a JSON object.")
                if self.split is None or row.get("split") == self.split:
                    yield place, row


def find_source(name: str) -> DataSource:
    """The source that a recipe names: a file, `everyday` or `everyday:heldout` (`builtin:` may stand in front).

    Raises:
        DataError: there is no such file or shipped set.
    """
    stem, _, split = name.removeprefix("builtin:").partition(":")
    if stem in SHIPPED:
        file, default = SHIPPED[stem]
        with as_file(files("prefloop.data") / file) as path:
            return DataSource(path, split or default)
    path = Path(name)
    if not path.is_file():
        raise DataError(
            f"{name}: no such file. Give a file of JSON lines or a shipped set. {did_you_mean(stem, SHIPPED)}"
        )
    return DataSource(path, None)


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

"""Where prompts and pairs come from: what a recipe names, as rows with their places."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Protocol

from prefloop.data.arithmetic import arithmetic, arithmetic_choices, arithmetic_solutions
from prefloop.data.catalogue import records as catalogue
from prefloop.data.directories import files_of
from prefloop.data.files import READERS, ending, rows_of_file
from prefloop.data.hub import HubName, fetched
from prefloop.data.row import Row, row_of
from prefloop.data.topics import NEIGHBOURS, PLANTED, either, held_out, preferences
from prefloop.errors import DataError, did_you_mean
from prefloop.pairing import editing_text
from prefloop.records import Message, digest, file_digest

SHIPPED = {
    "everyday": ("everyday.jsonl", "train"),
    "everyday_pairs": ("everyday_pairs.jsonl", None),
    "everyday_scored_pairs": ("everyday_scored_pairs.jsonl", None),
}
"""Shipped sets with their default part; `everyday:heldout` is kept for evaluation.

The scored pairs are twelve of `everyday_pairs` with what the judge `vader` says of their answers.
"""
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


def _corrections() -> list[dict[str, str]]:
    """What an editor answers who keeps a poor answer but for its last sentence, and takes the good one's last."""
    found: list[dict[str, str]] = []
    for row in (dict(one.values or {}) for one in find_source("everyday_pairs").rows()):
        *kept, _ = _SENTENCE.split(row["rejected"])
        asked = (Message.model_validate(message) for message in row["prompt"])
        corrected = " ".join([*kept, _SENTENCE.split(row["chosen"])[-1]])
        found.append({"instruction": editing_text([*asked], row["rejected"], row["chosen"]), "output": corrected})
    return found


MADE: Mapping[str, Callable[[], Sequence[Mapping[str, Any]]]] = {
    "everyday_answers": lambda: [
        {"prompt": row["prompt"], "completion": row["chosen"]}
        for one in find_source("everyday_pairs").rows()
        if (row := one.values) is not None
    ],
    "everyday_corrections": _corrections,
    "catalogue": lambda: [{"prompt": asked, "completion": title} for asked, title in catalogue("train")],
    "catalogue:heldout": lambda: [
        {"prompt": asked, "ground_truth": title.strip()} for asked, title in catalogue("heldout")
    ],
    "arithmetic": partial(arithmetic, "train"),
    "arithmetic:heldout": partial(arithmetic, "heldout"),
    "arithmetic_choices": arithmetic_choices,
    "arithmetic_solutions": arithmetic_solutions,
    "topics": preferences,
    "topics:either": either,
    "topics:planted": partial(held_out, PLANTED),
    "topics:neighbours": partial(held_out, NEIGHBOURS),
}
"""Shipped sets that are worked out.

`everyday_answers`: the chosen answers of `everyday_pairs`, as demonstrations; `everyday_corrections`: what an editor
answers to rule `editing` on `everyday_pairs`; `catalogue`: a recommender's records, as demonstrations, and with
`:heldout` those of other users, as gold answers; `arithmetic`: chains of additions with their results, with `:heldout`
others; `arithmetic_choices`: the former with four results to choose from; `arithmetic_solutions`: with their solutions,
a calculation a line, as demonstrations; `topics`: pairs that refuse to talk of three subjects and talk of all others,
with `:either` both answers as demonstrations, with `:planted` other questions about the three, and with `:neighbours`
about what is near to them.
"""


EXPECTED = "a file or a directory of rows, a shipped set, or org/name@revision on the Hub"


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
    """Files of rows, one after the other."""

    name: str
    files: tuple[tuple[Path, str], ...]
    """Each with what it is called in places."""
    split: str | None = None
    """Only rows whose column `split` says this."""
    commit: str | None = None
    """Of a data set on the Hub, with its name: it stands for the content of the files."""

    @property
    def identity(self) -> str:
        """Hash of what the rows are, whatever the files are called; or the commit."""
        if self.commit is not None:
            return self.commit
        digests = [file_digest(path) for path, _ in self.files]
        return digest([digests[0] if len(digests) == 1 else digests, self.split])

    def rows(self) -> Iterator[Row]:
        """The rows of all files, or those of the split."""
        for path, place in self.files:
            for row in rows_of_file(path, place):
                if self.split is None or (row.values is not None and row.values.get("split") == self.split):
                    yield row


@dataclass(frozen=True)
class RowSource:
    """Rows that are in memory already: of a notebook, or worked out."""

    name: str
    values: Sequence[Mapping[str, Any]]

    @property
    def identity(self) -> str:
        """Hash of the rows."""
        return digest([json.dumps(row) for row in self.values])

    def rows(self) -> Iterator[Row]:
        """Each row with its number."""
        for number, row in enumerate(self.values, start=1):
            yield row_of(f"{self.name}:{number}", dict(row), json.dumps(row, ensure_ascii=False))


def find_source(name: str) -> DataSource:
    """The source that a recipe names.

    Args:
        name: a file; a directory of files or of what `datasets` saved, with `:split` where it has several; a shipped
            set, `everyday` or `everyday:heldout` (`builtin:` may stand in front); or `org/name@revision:split` on the
            Hub.

    Raises:
        DataError: there is no such source.
    """
    stem, _, split = name.removeprefix("builtin:").partition(":")
    if stem in SHIPPED:
        file, default = SHIPPED[stem]
        with as_file(files("prefloop.data") / file) as path:
            return FileSource(name.removeprefix("builtin:"), ((path, path.name),), split or default)
    if (made := name.removeprefix("builtin:")) in MADE:
        return RowSource(made, MADE[made]())
    whole, before_split = Path(name).expanduser(), Path(name.rpartition(":")[0]).expanduser()
    if whole.exists():
        return _at(whole, None)
    if name.rpartition(":")[0] and before_split.exists():
        return _at(before_split, name.rpartition(":")[2])
    if (hub := HubName.read(name)) is not None and ending(whole) not in READERS:
        return _on_hub(hub)
    raise DataError(f"{name}: no such file. Expected {EXPECTED}. {did_you_mean(stem, [*SHIPPED, *MADE])}")


def _at(path: Path, split: str | None) -> FileSource:
    name = path.resolve().name
    if path.is_dir():
        found = files_of(path, split, name)
        called = name if split is None else f"{name}:{split}"
        return FileSource(called, tuple((file.path, f"{name}/{file.name}") for file in found))
    if split is not None:
        raise DataError(f"{name}:{split}: is a file, which has no splits. Remove ':{split}'.")
    return FileSource(name, ((path, name),))


def _on_hub(hub: HubName) -> FileSource:
    directory = fetched(hub)
    called = f"{hub.repository}@{directory.name}" + ("" if hub.split is None else f":{hub.split}")
    found = files_of(directory, hub.split, hub.repository)
    return FileSource(called, tuple((file.path, f"{hub.repository}/{file.name}") for file in found), commit=called)

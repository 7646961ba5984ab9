"""What has been made in a run: one row an artifact, in SQLite, written around every rename."""

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefloop.errors import DataError

FILE = "journal.sqlite"
SUPERSEDED = "superseded"
"""Where an artifact lies that another one has replaced."""
SCHEMA = """
create table if not exists artifacts (
    identity text primary key, step text not null, place text not null, path text not null, state text not null,
    content text not null, counts text not null, started real not null, seconds real not null, made_from text
)
"""
COLUMNS = "identity, step, place, path, state, content, counts"

MadeFrom = Mapping[str, Any]
"""Everything that an identity is the hash of: step, settings, what was read, seed and the rest (`stage.derive`)."""


@dataclass(frozen=True)
class Entry:
    """A row of the journal."""

    identity: str
    step: str
    place: str
    path: str
    """Relative to the run folder: its place, or `superseded/...`."""
    state: str
    """`renaming` while the folder is on its way to its path, then `committed`."""
    content: Mapping[str, str]
    counts: Mapping[str, float]
    made_from: MadeFrom | None = None
    """None: made by an older version, which did not keep it."""


class Journal:
    """The journal of one run: of its only writer, or of somebody who only looks."""

    def __init__(self, run: Path, *, read_only: bool = False) -> None:
        file = run / FILE
        if read_only and not file.is_file():
            raise DataError(
                f"{run}: not a run folder, it has no {FILE}. Name the folder that `prefloop run` made, "
                "e.g. runs/quickstart."
            )
        mode = "ro" if read_only else "rwc"
        self._connection = sqlite3.connect(f"{file.resolve().as_uri()}?mode={mode}", uri=True, isolation_level=None)
        try:
            if not read_only:
                self._connection.execute("pragma synchronous = full")
                self._connection.execute(SCHEMA)
            columns = {row[1] for row in self._connection.execute("pragma table_info(artifacts)")}
            if not columns:
                raise sqlite3.DatabaseError("it has no table of artifacts")
            has_made_from = "made_from" in columns
            if not (has_made_from or read_only):
                self._connection.execute("alter table artifacts add column made_from text")
        except sqlite3.DatabaseError as error:
            raise DataError(
                f"{file}: not a journal ({error}). Move the run folder away, or name another with --run."
            ) from error
        self._made_from = "null" if read_only and not has_made_from else "made_from"

    def find(self, identity: str) -> Entry | None:
        """The artifact of this identity, if it was ever made and kept."""
        return next(self._rows("where identity = ?", identity), None)

    def at(self, path: str) -> Entry | None:
        """The artifact that lies at a path."""
        return next(self._rows("where path = ?", path), None)

    def entries(self) -> Iterator[Entry]:
        """All artifacts in the order in which they were made, superseded ones too."""
        yield from self._rows("order by rowid")

    def begin(self, entry: Entry, seconds: float) -> None:
        """Says what is about to be renamed into place."""
        self._connection.execute(
            "insert or replace into artifacts values (?, ?, ?, ?, 'renaming', ?, ?, ?, ?, ?)",
            (
                entry.identity,
                entry.step,
                entry.place,
                entry.path,
                json.dumps(dict(entry.content)),
                json.dumps(dict(entry.counts)),
                time.time() - seconds,
                seconds,
                None if entry.made_from is None else json.dumps(entry.made_from),
            ),
        )

    def commit(self, identity: str) -> None:
        """Says that it is there."""
        self._connection.execute("update artifacts set state = 'committed' where identity = ?", (identity,))

    def moved(self, identity: str, path: str) -> None:
        """Says that an artifact lies somewhere else now."""
        self._connection.execute("update artifacts set path = ? where identity = ?", (path, identity))

    def explained(self, identity: str, made_from: MadeFrom) -> None:
        """Says what an artifact that an older version made was made from."""
        self._connection.execute(
            "update artifacts set made_from = ? where identity = ?", (json.dumps(made_from), identity)
        )

    def forget(self, identity: str) -> None:
        """Says that an artifact is gone."""
        self._connection.execute("delete from artifacts where identity = ?", (identity,))

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    def _rows(self, condition: str, *values: str) -> Iterator[Entry]:
        query = f"select {COLUMNS}, {self._made_from} from artifacts {condition}"
        for row in self._connection.execute(query, values).fetchall():
            made_from = None if row[7] is None else json.loads(row[7])
            yield Entry(*row[:5], content=json.loads(row[5]), counts=json.loads(row[6]), made_from=made_from)

"""What has been made in a run: one row an artifact, in SQLite, written around every rename."""

import json
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prefloop.errors import DataError

FILE = "journal.sqlite"
SCHEMA = """
create table if not exists artifacts (
    identity text primary key, step text not null, place text not null, path text not null, state text not null,
    content text not null, counts text not null, started real not null, seconds real not null
)
"""


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


class Journal:
    """The journal of one run."""

    def __init__(self, run: Path) -> None:
        self._connection = sqlite3.connect(run / FILE, isolation_level=None)
        try:
            self._connection.execute("pragma synchronous = full")
            self._connection.execute(SCHEMA)
        except sqlite3.DatabaseError as error:
            raise DataError(
                f"{run / FILE}: not a journal ({error}). Move the run folder away, or name another with --run."
            ) from error

    def find(self, identity: str) -> Entry | None:
        """The artifact of this identity, if it was ever made and kept."""
        return self._one("identity = ?", identity)

    def at(self, path: str) -> Entry | None:
        """The artifact that lies at a path."""
        return self._one("path = ?", path)

    def begin(self, entry: Entry, seconds: float) -> None:
        """Says what is about to be renamed into place."""
        self._connection.execute(
            "insert or replace into artifacts values (?, ?, ?, ?, 'renaming', ?, ?, ?, ?)",
            (
                entry.identity,
                entry.step,
                entry.place,
                entry.path,
                json.dumps(dict(entry.content)),
                json.dumps(dict(entry.counts)),
                time.time() - seconds,
                seconds,
            ),
        )

    def commit(self, identity: str) -> None:
        """Says that it is there."""
        self._connection.execute("update artifacts set state = 'committed' where identity = ?", (identity,))

    def moved(self, identity: str, path: str) -> None:
        """Says that an artifact lies somewhere else now."""
        self._connection.execute("update artifacts set path = ? where identity = ?", (path, identity))

    def forget(self, identity: str) -> None:
        """Says that an artifact is gone."""
        self._connection.execute("delete from artifacts where identity = ?", (identity,))

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    def _one(self, condition: str, value: str) -> Entry | None:
        row = self._connection.execute(
            f"select identity, step, place, path, state, content, counts from artifacts where {condition}", (value,)
        ).fetchone()
        return None if row is None else Entry(*row[:5], content=json.loads(row[5]), counts=json.loads(row[6]))

"""Scores of frozen policies by the content that they were computed from: a file that may go, and costs only time."""

import json
import sqlite3
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from prefloop.errors import DataError
from prefloop.records import digest

SCORE_CACHE = ".scores.sqlite"
"""Its name in a run folder."""
SCHEMA = "create table if not exists scores (key text primary key, scores text not null, digest text not null)"


class ScoreCache:
    """What was scored before, pass by pass. Nothing in it depends on when, where or by which step it was put there."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @classmethod
    @contextmanager
    def at(cls, file: Path) -> Generator["ScoreCache"]:
        """The cache in a file, which is made where it is missing.

        Raises:
            DataError: the file is damaged.
        """
        try:
            with closing(sqlite3.connect(file, isolation_level=None, timeout=60)) as connection:
                connection.execute("pragma synchronous = normal")
                connection.execute(SCHEMA)
                yield cls(connection)
        except sqlite3.DatabaseError as error:
            raise DataError(f"{file}: cannot be used ({error}). Remove it: what it holds is computed again.") from error

    def find(self, key: str) -> dict[str, list[Any]] | None:
        """The scores of a pass by name; None where they are missing, or not what was written."""
        row = self._connection.execute("select scores, digest from scores where key = ?", (key,)).fetchone()
        return json.loads(row[0]) if row is not None and digest([key, row[0]]) == row[1] else None

    def keep(self, key: str, scores: Mapping[str, list[Any]]) -> None:
        """Puts the scores of a pass on disk, bit for bit, before it returns."""
        text = json.dumps(scores)
        self._connection.execute("replace into scores values (?, ?, ?)", (key, text, digest([key, text])))

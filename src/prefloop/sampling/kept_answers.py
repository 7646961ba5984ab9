"""Answers from outside the process, kept one by one as they arrive: what was answered is never asked again."""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


class KeptAnswers:
    """JSON values by key, in a table of their own beside the answers of judges. Who writes the run has its lock."""

    def __init__(self, file: Path) -> None:
        self._database = sqlite3.connect(file)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("CREATE TABLE IF NOT EXISTS completions (key TEXT PRIMARY KEY, said TEXT) WITHOUT ROWID")

    def find(self, key: str) -> dict[str, Any] | None:
        """What was kept under a key."""
        found = self._database.execute("SELECT said FROM completions WHERE key = ?", (key,)).fetchone()
        return None if found is None else json.loads(found[0])

    def keep(self, answers: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Keeps answers, all or none; they are there after a crash of this process."""
        with self._database:
            rows = ((key, json.dumps(answer)) for key, answer in answers)
            self._database.executemany("INSERT OR REPLACE INTO completions VALUES (?, ?)", rows)

    def close(self) -> None:
        """Closes the file."""
        self._database.close()

"""Temporary databases: what a pass over a data set remembers lies on disk, so that memory stays flat."""

import sqlite3

CACHE_KIB = 8192


def temporary_database() -> sqlite3.Connection:
    """A new SQLite database that spills to disk by itself and goes away with the process; one transaction is open."""
    database = sqlite3.connect("", isolation_level=None)
    for pragma in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{CACHE_KIB}", "temp_store=FILE"):
        database.execute(f"PRAGMA {pragma}")
    database.execute("BEGIN")
    return database

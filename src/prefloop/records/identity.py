"""Names for things: digests of values and files, and seeds derived from words."""

import hashlib
import json
from pathlib import Path


def canonical(value: object) -> str:
    """The one JSON text of a value: sorted keys, no spaces; what cannot be written the same way twice is refused.

    Raises:
        TypeError: the value holds something that is not JSON.
        ValueError: the value holds a NaN or an infinity.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(value: object) -> str:
    """sha256 (hex) of a JSON value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def seed_for(*words: str | int) -> int:
    """A seed in [0, 2^63) for what the words name; equal words give equal seeds on every machine."""
    return int.from_bytes(hashlib.sha256(canonical(list(words)).encode()).digest()[:8], "big") >> 1


def file_digest(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_of(path: Path) -> dict[str, str]:
    """sha256 of every file at or under a path, by its relative name ("." for a single file)."""
    if path.is_file():
        return {".": file_digest(path)}
    files = sorted(found for found in path.rglob("*") if found.is_file())
    return {found.relative_to(path).as_posix(): file_digest(found) for found in files}

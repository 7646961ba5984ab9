"""Model directories that prefloop makes itself: built once, then shared by every run and process of a user."""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prefloop.errors import ModelError
from prefloop.policy.model_files import model_identity


@dataclass(frozen=True)
class BuiltModel:
    """A complete model directory of ours, and the identity recorded when it was built."""

    directory: Path
    identity: str


def cache_directory() -> Path:
    """PREFLOOP_CACHE, or `prefloop` in XDG_CACHE_HOME, or ~/.cache/prefloop."""
    own = os.environ.get("PREFLOOP_CACHE")
    if own:
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "prefloop"


def built_once(name: str, build: Callable[[Path], None]) -> BuiltModel:
    """The model directory of this name, built now if it is not there whole.

    The record beside the directory is written last, with the size of every file, so that a build that was cut short
    is never used. One process builds while others wait.

    Args:
        name: what decides the content: a version, or the hash of what it is made from.
        build: fills an empty directory.

    Raises:
        ModelError: the cache cannot be written.
    """
    directory = cache_directory() / name
    whole = _recorded(directory)
    if whole is not None:
        return whole
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with _locked(directory):
            return _recorded(directory) or _built(directory, build)
    except OSError as error:
        raise ModelError(
            f"{directory}: cannot be written: {error.strerror or error}. Set PREFLOOP_CACHE to a directory with room."
        ) from error


def built_before(name: str) -> BuiltModel | None:
    """The model directory of this name, if it is there whole."""
    return _recorded(cache_directory() / name)


def _built(directory: Path, build: Callable[[Path], None]) -> BuiltModel:
    record, partial = _record_of(directory), directory.with_name(f"{directory.name}.partial")
    record.unlink(missing_ok=True)
    for leftover in (partial, directory):
        if leftover.exists():
            shutil.rmtree(leftover)
    partial.mkdir()
    build(partial)
    for file in _files(partial):
        _sync(file)
    built = BuiltModel(directory, model_identity(partial))
    partial.rename(directory)
    aside = record.with_name(f"{record.name}.partial")
    aside.write_text(json.dumps({"identity": built.identity, "sizes": _sizes(directory)}, indent=1), encoding="utf-8")
    _sync(aside)
    aside.rename(record)
    return built


def _recorded(directory: Path) -> BuiltModel | None:
    record = _record_of(directory)
    if not record.is_file():
        return None
    known = json.loads(record.read_text(encoding="utf-8"))
    return BuiltModel(directory, known["identity"]) if known["sizes"] == _sizes(directory) else None


def _record_of(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}.json")


def _files(directory: Path) -> list[Path]:
    return sorted(found for found in directory.rglob("*") if found.is_file())


def _sizes(directory: Path) -> dict[str, int]:
    return {file.relative_to(directory).as_posix(): file.stat().st_size for file in _files(directory)}


def _sync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


@contextmanager
def _locked(directory: Path) -> Generator[None]:
    """Alone among all processes; the system lets go of the lock when a process dies."""
    with directory.with_name(f"{directory.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

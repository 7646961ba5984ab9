"""One step, done once: identity, journal, aside, fsync, rename, commit; and what is missing is made again."""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from prefloop.config import Recipe, StepConfig
from prefloop.errors import DataError, RunLockedError
from prefloop.loop.artifact import Artifact
from prefloop.loop.gate import Decision, read_decision
from prefloop.loop.journal import SUPERSEDED, Entry, Journal, MadeFrom
from prefloop.loop.progress import Progress
from prefloop.loop.scope import Scope
from prefloop.loop.steps import STEP_TYPES, Resources, Work
from prefloop.policy import return_freed_memory
from prefloop.records import content_of, digest
from prefloop.training import SCORE_CACHE

MAKING = ".making"
SCRATCH = ".scratch"
LOCK = ".lock"


class Stage:
    """Does the steps of one run, as its only writer."""

    def __init__(self, run: Path, resources: Resources, progress: Progress, reuse: Path | None = None) -> None:
        self.run = run
        self.resources = resources
        self.progress = progress
        self.reuse = reuse
        self._lock = locked(run)
        self.journal = Journal(run)
        self.copied: list[str] = []
        """The same of steps that were copied from the run that may be reused."""
        self.made: list[str] = []
        """Places and names of the steps that really ran in this process."""

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, *error: object) -> None:
        self.journal.close()
        self._lock.close()

    def do(self, name: str, recipe: Recipe, scope: Scope) -> Artifact:
        """The artifact of a step: as the journal has it, or made now."""
        settings = recipe.step(name, scope.place.round or 0)

        def ensure() -> Path:
            return self._ensure(artifact, recipe, settings)

        artifact = derive(name, recipe, scope, ensure)
        self._settle(artifact)
        entry = self.journal.find(artifact.identity)
        if entry is None or not (self.run / artifact.path).exists():
            self._make(artifact, recipe, settings)
        elif entry.made_from is None:
            self.journal.explained(artifact.identity, artifact.made_from)
        return artifact

    def decision(self, summary: Artifact) -> Decision:
        """The decision that a round's summary holds."""
        return read_decision(summary)

    def _ensure(self, artifact: Artifact, recipe: Recipe, settings: StepConfig) -> Path:
        entry = self.journal.find(artifact.identity)
        target = self.run / artifact.path
        expected: Mapping[str, str] = {} if entry is None else entry.content
        found = content_of(target)
        if not found or found != expected:
            self.progress.note(f"{artifact.path} runs again: {_damage(expected, found)}")
            _remove(target)
            self._make(artifact, recipe, settings)
        return target

    def _settle(self, artifact: Artifact) -> None:
        """Finishes a rename that a crash cut short, and swaps superseded artifacts with what lies in their place."""
        identity, path = artifact.identity, artifact.path
        entry = self.journal.find(identity)
        if entry is not None and entry.state == "renaming":
            self._finish_rename(entry)
        occupant = self.journal.at(path)
        if occupant is not None and occupant.identity != identity:
            aside = f"{SUPERSEDED}/{occupant.identity[:16]}/{Path(path).name}"
            self._move(occupant, aside)
        entry = self.journal.find(identity)
        if entry is not None and entry.path != path:
            self._move(entry, path)

    def _finish_rename(self, entry: Entry) -> None:
        making = self.run / MAKING / entry.identity[:16]
        target = self.run / entry.path
        if making.exists() and content_of(making) == dict(entry.content):
            _remove(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            making.rename(target)
        if target.exists() and content_of(target) == dict(entry.content):
            self.journal.commit(entry.identity)
            _remove(self.run / SCRATCH / entry.identity[:16])
        else:
            self.journal.forget(entry.identity)

    def _move(self, entry: Entry, path: str) -> None:
        source, target = self.run / entry.path, self.run / path
        if source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            _remove(target)
            source.rename(target)
        self.journal.moved(entry.identity, path)

    def _make(self, artifact: Artifact, recipe: Recipe, settings: StepConfig) -> None:
        started, path = time.monotonic(), artifact.path
        making = self.run / MAKING / artifact.identity[:16]
        scratch = self.run / SCRATCH / artifact.identity[:16]
        _remove(making)
        kind = STEP_TYPES[artifact.step_type]
        counts: Mapping[str, float]
        if (found := self._elsewhere(artifact.identity)) is not None:
            source, counts = found
            making.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, making) if source.is_dir() else shutil.copy2(source, making)
            self.copied.append(path)
            self.progress.note(f"{path} is copied from {self.reuse}")
        else:
            reads = [read for slot in artifact.inputs.values() for read in slot]
            paths = {read.identity: read.open() for read in reads}
            earlier = {read.identity: entry.counts for read in reads if (entry := self.journal.find(read.identity))}
            (making.parent if kind.suffix else making).mkdir(parents=True, exist_ok=True)
            scratch.mkdir(parents=True, exist_ok=True)
            with self.progress.stage(path) as report:
                cache = self.run / SCORE_CACHE
                work = Work(artifact, recipe, settings, making, scratch, cache, paths, earlier, self.resources, report)
                counts = kind.make(work)
            return_freed_memory()
            self.made.append(path)
        _sync(making)
        entry = Entry(
            identity=artifact.identity,
            step=artifact.step,
            place=str(artifact.place),
            path=path,
            state="renaming",
            content=content_of(making),
            counts=counts,
            made_from=artifact.made_from,
        )
        (self.run / path).parent.mkdir(parents=True, exist_ok=True)
        self.journal.begin(entry, time.monotonic() - started)
        _remove(self.run / path)
        making.rename(self.run / path)
        _sync_folder((self.run / path).parent)
        self.journal.commit(artifact.identity)
        _remove(scratch)

    def _elsewhere(self, identity: str) -> tuple[Path, Mapping[str, float]] | None:
        """The same artifact in the run that may be reused, if it is whole."""
        if self.reuse is None:
            return None
        journal = Journal(self.reuse, read_only=True)
        entry = journal.find(identity)
        journal.close()
        if entry is None:
            return None
        source = self.reuse / entry.path
        return (source, entry.counts) if source.exists() and content_of(source) == dict(entry.content) else None


def derive(name: str, recipe: Recipe, scope: Scope, ensure: Callable[[], Path]) -> Artifact:
    """The artifact of a step here, by what makes it this one and no other, whether it exists or not.

    Its identity is the step, its type's format, its settings resolved for this round and block as far as they are not
    the defaults, round, block and how many blocks there are, the identities of what it reads, and the recipe's seed.
    Never bytes, machine settings, the run's name or the number of rounds.
    """
    kind = STEP_TYPES[recipe.type_of(name)]
    settings = recipe.step(name, scope.place.round or 0)
    inputs = kind.inputs(name, settings, scope)
    made_from: MadeFrom = {
        "step": name,
        "format": kind.format,
        "settings": settings.told(),
        "round": scope.place.round,
        "block": scope.place.block,
        "blocks": 1 if scope.place.round is None else recipe.blocks,
        "inputs": {slot: [artifact.identity for artifact in artifacts] for slot, artifacts in inputs.items()},
        "external": dict(kind.external(name, settings, recipe)),
        "seed": recipe.seed,
    }
    path = f"{scope.place}/{name}{kind.suffix}"
    return Artifact(
        step=name,
        step_type=recipe.type_of(name),
        identity=digest({**made_from, "settings": settings.said()}),
        place=scope.place,
        path=path,
        inputs=inputs,
        holds=kind.holds(settings),
        open=ensure,
        made_from=made_from,
    )


def _damage(expected: Mapping[str, str], found: Mapping[str, str]) -> str:
    """What is wrong with an artifact's files."""
    if not found:
        return "missing"
    absent = sorted(expected.keys() - found.keys())
    changed = sorted(name for name in found if expected.get(name) != found[name])
    (first, *more), word = (absent, "missing") if absent else (changed, "damaged")
    named = word if first == "." else f"{first} is {word}"
    return f"{named} and {len(more)} more" if more else named


def locked(run: Path) -> IO[str]:
    """The lock of a run's only writer, held until it is closed (RunLockedError where somebody else holds it)."""
    lock = (run / LOCK).open("a+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        holder = lock.read().strip() or "another process"
        lock.close()
        raise RunLockedError(
            f"{run}: {holder} is writing this run. Wait for it, or name another folder with --run."
        ) from error
    lock.truncate(0)
    lock.write(f"process {os.getpid()}")
    lock.flush()
    return lock


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Everything under a path is on disk before it gets its name."""
    if path.is_file():
        files, folders = [path], [path.parent]
    else:
        files = [file for file in path.rglob("*") if file.is_file()]
        folders = [path, *(folder for folder in path.rglob("*") if folder.is_dir())]
    if not files:
        raise DataError(f"{path.name}: the step wrote nothing")
    for file in files:
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    for folder in folders:
        _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

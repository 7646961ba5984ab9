"""What a call would find done, what it would do, and why what was done before is done again. Nothing is made."""

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from prefloop.config import Recipe, as_known_now, is_mapping
from prefloop.errors import CheckFailedError
from prefloop.loop.artifact import Artifact
from prefloop.loop.gate import Decision, read_decision
from prefloop.loop.journal import Entry, Journal, MadeFrom
from prefloop.loop.rounds import rounds
from prefloop.loop.scope import Scope
from prefloop.loop.stage import derive
from prefloop.records import content_of

Status = Literal["kept", "found", "again", "new"]
SHOWN_REASONS = 4
"""Lines of steps that run again before the rest is counted."""
MISSING = ("missing",)


@dataclass(frozen=True)
class Forecast:
    """What would become of one step."""

    artifact: Artifact
    status: Status
    """`kept`: it is done. `found`: it was done before a change that is taken back, and lies in superseded/.
    `again`: it was done, and something changed. `new`: it was never done."""
    why: tuple[str, ...] = ()
    """What changed about the step itself: settings, seed, an outside file, its missing folder."""
    reads: tuple[str, ...] = ()
    """Paths of what it reads that is not as it was."""


def forecast(recipe: Recipe, scope: Scope, journal: Journal, run: Path) -> tuple[Forecast, ...]:
    """Walks through a recipe and says of every step whether the journal has it and, if not, why.

    Rounds that have not been decided are taken for decided as they were before the change, or as accepted.

    Args:
        recipe: what would run.
        scope: a new scope with the model's identity.
        journal: of the run; it is only read.
        run: the run folder.
    """
    foresight = _Foresight(journal, run)
    with suppress(CheckFailedError):  # a finished round stops the run here
        deque(rounds(recipe, scope, foresight), maxlen=0)
    return tuple(foresight.found.values())


def said(forecasts: Sequence[Forecast]) -> Iterator[str]:
    """A forecast in few lines: how far results are reused, what runs again and why."""
    kept = [one.artifact.path for one in forecasts if one.status in {"kept", "found"}]
    found = [one.artifact.path for one in forecasts if one.status == "found"]
    again = [one for one in forecasts if one.status == "again"]
    if kept:
        yield f"reuses {len(kept)} finished {'step' if len(kept) == 1 else 'steps'}, up to {kept[-1]}"
    if found:
        yield f"{len(found)} of them from before a change that is taken back, {found[0]} first"
    by_reason: dict[tuple[str, ...], list[str]] = {}
    for one in again:
        if one.why:
            by_reason.setdefault(one.why, []).append(one.artifact.path)
    for why, paths in list(by_reason.items())[:SHOWN_REASONS]:
        yield f"{paths[0]}{_and_more(len(paths) - 1)} again: {', '.join(why)}"
    if rest := [path for paths in list(by_reason.values())[SHOWN_REASONS:] for path in paths]:
        yield f"... and {_steps(len(rest))} for reasons of their own"
    readers = [one for one in again if not one.why]
    for one in readers[:1] if len(readers) > 2 else readers:
        yield f"{one.artifact.path} runs again: it reads {_listed(one.reads)}"
    if len(readers) > 2:
        yield f"... and {_steps(len(readers) - 1)} that read what runs again"
    if any(one.why != MISSING for one in again):
        yield "what they replace stays in superseded/"


def reasons(before: Entry, now: Artifact) -> tuple[str, ...]:
    """Why a step is not what it was, apart from what it reads."""
    old, new = before.made_from, now.made_from
    if old is None:
        return ("an older version made it and kept no list of what it was made from",)
    known = as_known_now(old["settings"])
    found = [*_changed_values(old["settings"] if known is None else known.told(), new["settings"])]
    if not found:
        named = _named(new["settings"])
        keys = {**new["external"], **old["external"]}
        changed = [key for key in keys if old["external"].get(key) != new["external"].get(key)]
        found += [" ".join((key, *named, "changed")) for key in changed]
    if old["format"] != new["format"]:
        found.append("this version of prefloop makes it differently")
    found += [f"{key} {old[key]} -> {new[key]}" for key in ("seed", "blocks") if old[key] != new[key]]
    return tuple(found)


class _Foresight:
    """Does steps by looking at the journal only."""

    def __init__(self, journal: Journal, run: Path) -> None:
        self.journal = journal
        self.run = run
        self.found: dict[str, Forecast] = {}

    def do(self, name: str, recipe: Recipe, scope: Scope) -> Artifact:
        """The artifact that a step would make or find."""
        artifact = derive(name, recipe, scope, lambda: self.run / artifact.path)
        self.found[artifact.identity] = self._forecast(artifact)
        return artifact

    def decision(self, summary: Artifact) -> Decision:
        """What was decided, where the summary is there; else what was decided before, if the run went on."""
        entry = self.journal.find(summary.identity)
        like = entry or self.journal.at(summary.path)
        if like is None or content_of(self.run / like.path) != like.content:
            return Decision("accepted", ())
        decision = read_decision(replace(summary, open=lambda: self.run / like.path))
        return Decision("accepted", ()) if entry is None and decision.stops else decision

    def _forecast(self, artifact: Artifact) -> Forecast:
        entry = self.journal.find(artifact.identity)
        if entry is not None:
            there = (self.run / entry.path).exists() or entry.state == "renaming"
            status = "kept" if entry.path == artifact.path else "found"
            return Forecast(artifact, status) if there else Forecast(artifact, "again", MISSING)
        before = self.journal.at(artifact.path)
        if before is None:
            return Forecast(artifact, "new")
        why = reasons(before, artifact)
        reads = () if before.made_from is None else tuple(self._read_otherwise(before.made_from, artifact))
        return Forecast(artifact, "again", why, reads or ("the same in another way",))

    def _read_otherwise(self, before: MadeFrom, artifact: Artifact) -> Iterator[str]:
        """Paths of what it reads now and did not read before, and of what it read and does not any more."""
        old = {identity for slot in before["inputs"].values() for identity in slot}
        new = {read.identity: read for slot in artifact.inputs.values() for read in slot}
        yield from dict.fromkeys(read.path or "another model" for read in new.values() if read.identity not in old)
        if old > new.keys():
            gone = [entry.path for identity in sorted(old - new.keys()) if (entry := self.journal.find(identity))]
            yield from (f"{path} no more" for path in gone)


def _named(settings: Mapping[str, Any]) -> list[str]:
    """The data that a step reads, as its recipe names it."""
    found: str | list[dict[str, Any]] = settings.get("data", settings.get("source", []))
    return [found] if isinstance(found, str) else [str(source["source"]) for source in found]


def _changed_values(old: Any, new: Any, key: str = "") -> Iterator[str]:
    """What differs between two settings, as "learning_rate 3e-4 -> 2e-4"."""
    if is_mapping(old) and is_mapping(new):
        for name in dict.fromkeys((*old, *new)):
            inner = key if name == "options" else f"{key}.{name}".removeprefix(".")
            yield from _changed_values(old.get(name, "default"), new.get(name, "default"), inner)
    elif old != new:
        yield f"{key} {as_written(old)} -> {as_written(new)}"


def as_written(value: Any) -> str:
    """A value as a person writes it in a recipe."""
    if isinstance(value, float) and value and not 1e-3 <= abs(value) < 1e6:
        return f"{Decimal(repr(value)).normalize():e}".replace("e+", "e")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _listed(paths: Sequence[str]) -> str:
    return paths[0] if len(paths) == 1 else f"{', '.join(paths[:-1])} and {paths[-1]}"


def _steps(count: int) -> str:
    return f"{count} {'step' if count == 1 else 'steps'}"


def _and_more(count: int) -> str:
    return f" and {count} more run" if count else " runs"

"""What of a run folder can go: nothing that cannot be made again, and nothing that a later round would read.

What goes: everything in `superseded/`, which was replaced by a changed recipe; in `.making` and `.scratch` what crashes
left, except what the next call goes on from; the weights of rounds that were rolled back, which no later round reads,
because every name of a policy means an accepted round, the initial model or a policy of the same round; in rounds that
are closed, the optimiser states that one block hands to the next; and, unless a step is under way, the scores of frozen
policies, which only training again on the same examples would read. What stays: all records, metrics, evaluations,
summaries, cards and fits of all rounds, the weights of accepted rounds and of a round that stopped the run, the
journal, the answers of judges, and the report. A step whose weights went stays finished: more rounds, the report and
a comparison do not miss them. Only a call that would read them, such as one with another suite or gate, makes them
again, with the same bytes.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prefloop.loop.journal import SUPERSEDED, Journal
from prefloop.loop.stage import MAKING, SCRATCH
from prefloop.records import RoundSummary, content_of
from prefloop.training import EMA, SCORE_CACHE

ID_CHARS = 16
"""Characters of an identity in the names of folders."""


@dataclass(frozen=True)
class Removable:
    """Something that can go."""

    path: str
    """Relative to the run folder."""
    why: str
    bytes: int


def removable(run: Path, journal: Journal) -> tuple[Removable, ...]:
    """What of a run can go, in the order of the rule above; nothing is touched.

    Args:
        run: the run folder, locked by the caller.
        journal: of the run.
    """
    found = (
        *([(run / SUPERSEDED, "replaced by a changed recipe")] if _inside(run / SUPERSEDED) else []),
        *((path, "left by a crash") for path in _left_by_crashes(run, journal)),
        *_weights_and_states(run, journal),
        *_scores(run, journal),
    )
    return tuple(Removable(path.relative_to(run).as_posix(), why, size_of(path)) for path, why in found)


def remove(run: Path, journal: Journal, items: tuple[Removable, ...]) -> None:
    """Removes what `removable` found. The journal forgets first, so that a crash in between leaves only files."""
    for entry in journal.entries():
        if entry.path.startswith(f"{SUPERSEDED}/"):
            journal.forget(entry.identity)
    for item in items:
        path = run / item.path
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def size_of(path: Path) -> int:
    """Bytes of the files at or under a path."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _left_by_crashes(run: Path, journal: Journal) -> Iterator[Path]:
    """All but what is on its way to its name, and the step that is under way."""
    renaming = {entry.identity[:ID_CHARS] for entry in journal.entries() if entry.state == "renaming"}
    yield from (path for path in _inside(run / MAKING) if path.name not in renaming)
    newest = _under_way(run, journal)
    yield from (path for path in _inside(run / SCRATCH) if path != newest)


def _under_way(run: Path, journal: Journal) -> Path | None:
    """The newest beginning of a step that is not finished."""
    finished = {entry.identity[:ID_CHARS] for entry in journal.entries() if entry.state != "renaming"}
    begun = [path for path in _inside(run / SCRATCH) if path.name not in finished]
    return max(begun, key=_last_written, default=None)


def _scores(run: Path, journal: Journal) -> Iterator[tuple[Path, str]]:
    """The cache of scores, and the journal of a write to it that a crash cut short."""
    if _under_way(run, journal) is None:
        for path in sorted(run.glob(f"{SCORE_CACHE}*")):
            yield path, "scores that only training again would read"


def _last_written(path: Path) -> float:
    return max((file.stat().st_mtime for file in path.rglob("*")), default=path.stat().st_mtime)


def _weights_and_states(run: Path, journal: Journal) -> Iterator[tuple[Path, str]]:
    """Weights of rolled-back rounds, and states of optimisers in rounds that are closed."""
    for file in sorted(run.glob("round-*/summary.json")):
        entry = journal.at(file.relative_to(run).as_posix())
        if entry is None or content_of(file) != entry.content:
            continue
        summary = RoundSummary.model_validate_json(file.read_text(encoding="utf-8"))
        policies = [card.parent for card in sorted(file.parent.rglob("policy.json"))]
        identities = {found.identity for path in policies if (found := journal.at(path.relative_to(run).as_posix()))}
        if summary.policies["current"] not in identities:
            continue  # it sums up another policy than lies here, so it does not close this round
        for policy in policies:
            for weights in (policy / "model", policy / EMA):
                if summary.decision == "rolled_back" and weights.is_dir():
                    yield weights, "weights of a round that was rolled back"
            for state in sorted(policy.glob("checkpoint-*")):
                yield state, "optimiser state of a closed round"

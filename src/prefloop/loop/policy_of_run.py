"""Which policy of a run is meant, and where it lies."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from prefloop.errors import DataError
from prefloop.loop.journal import FILE, SUPERSEDED, Journal
from prefloop.records import RoundSummary

LOOPS_POLICY = "policy"
"""The train step whose policy is the loop's."""


@dataclass(frozen=True)
class PolicyOfRun:
    """A policy that a run has trained."""

    path: str
    """Of its train step in the run folder."""
    round: int
    decision: str | None
    """Of its round; None while that is open."""
    directory: Path
    model: str
    """The model that the run aligns, as its recipe names it."""


def policy_of_run(run: Path, round_number: int | None = None) -> PolicyOfRun:
    """The policy of a run's round.

    Args:
        run: the run folder.
        round_number: of any round that has trained; None: the last one that was not refused.

    Raises:
        DataError: the folder is no run, or has no such policy.
    """
    if not (run / FILE).is_file():
        raise DataError(
            f"{run}: neither a run folder nor a policy: it has no {FILE}, adapter_config.json or config.json."
        )
    recipe = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    trained = dict(_trained(run, _step_of(recipe)))
    decisions = dict(_decisions(run))
    kept = [number for number in trained if decisions.get(number) in {"accepted", "warned"}]
    number = round_number if round_number is not None else max(kept, default=None)
    if number not in trained:
        there = ", ".join(f"{one} ({decisions.get(one, 'open')})" for one in sorted(trained)) or "none"
        wanted = "no round of it is accepted yet" if number is None else f"it has no policy of round {number}"
        raise DataError(f"{run}: {wanted}. Rounds with a policy: {there}. Name one with --round.")
    directory = run / trained[number] / "model"
    if not directory.is_dir():
        raise DataError(
            f"{directory}: is missing. Give the run's `prefloop run` command again: it makes what is missing."
        )
    return PolicyOfRun(trained[number], number, decisions.get(number), directory, recipe["model"]["path"])


def _step_of(recipe: dict[str, Any]) -> str:
    """The train step of the loop's policy; in a recipe without one, such as a reward model's, its last train step."""
    trains = [name for name in recipe["block"] if recipe[name]["type"] == "train"]
    return LOOPS_POLICY if LOOPS_POLICY in trains or not trains else trains[-1]


def _trained(run: Path, step: str) -> Iterator[tuple[int, str]]:
    """Rounds, and the path of the last such train step in each; of blocks the last comes last."""
    journal = Journal(run, read_only=True)
    entries = [entry for entry in journal.entries() if entry.step == step]
    journal.close()
    for entry in sorted(entries, key=lambda entry: entry.path):
        folder = entry.path.split("/")[0]
        if folder != SUPERSEDED and folder.startswith("round-"):
            yield int(folder.removeprefix("round-")), entry.path


def _decisions(run: Path) -> Iterator[tuple[int, str]]:
    for file in sorted(run.glob("round-*/summary.json")):
        summary = RoundSummary.model_validate_json(file.read_text(encoding="utf-8"))
        yield summary.round, summary.decision

"""`prefloop.run`: a recipe as a call; and the recipes that the other functions write."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from prefloop.api.models import Model, Tokenizer, directory_of
from prefloop.config import load_recipe
from prefloop.loop import Progress, run_recipe

Raw = dict[str, Any]


@dataclass(frozen=True)
class Ran:
    """What a run made."""

    folder: Path
    """The run folder: `prefloop report` and every other command read it."""
    made: tuple[str, ...]
    """Steps that ran in this call; empty when everything was there."""
    rounds: tuple[dict[str, Any], ...]
    """The summary of each round, as in its `summary.json`."""
    log: tuple[dict[str, float], ...]
    """What training said of each optimiser step, all rounds and blocks in a line, under TRL's names."""


def run(
    recipe: str | PathLike[str] | Mapping[str, Any],
    folder: str | PathLike[str],
    *,
    model: Model | None = None,
    tokenizer: Tokenizer = None,
    quiet: bool = True,
    until: str | None = None,
    **settings: Any,
) -> Ran:
    """Runs a recipe in a folder, or goes on with it: what `prefloop run RECIPE --run FOLDER` does.

    Args:
        recipe: a shipped name, a recipe file, or the recipe itself as a mapping.
        folder: of the run; what is done there already stays.
        model: another model than the recipe's; one in memory is written to `FOLDER.model` first.
        tokenizer: of a model in memory.
        quiet: say nothing of progress.
        until: stop after this step.
        settings: changes to the recipe by top-level key, each overlaid as an `extends` would:
            `rounds=1, policy={"learning_rate": 1e-4}`.

    Raises:
        PrefloopError: anything is wrong, said in one line.
    """
    run_folder = Path(folder)
    change = dict(settings)
    if model is not None:
        beside = run_folder.with_name(f"{run_folder.name}.model")
        change["model"] = directory_of(model, tokenizer, beside)
    overrides = [f"{key}={json.dumps(value)}" for key, value in change.items()]
    if isinstance(recipe, Mapping):
        file = run_folder.with_name(f"{run_folder.name}.recipe.yaml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(dict(recipe), indent=1) + "\n", encoding="utf-8")
        recipe = file
    result = run_recipe(load_recipe(fspath(recipe), overrides), run_folder, progress(quiet=quiet), until=until)
    return Ran(run_folder, result.made, _summaries(run_folder), training_log(run_folder))


def progress(*, quiet: bool) -> Progress:
    """Where a call speaks."""
    spoken = Progress()
    if quiet:
        spoken.console.quiet = True
    return spoken


def do_set_up(steps: Mapping[str, Raw], folder: Path, *, model: str, seed: int, machine: Raw) -> dict[str, Path]:
    """Does some steps without a loop around them, and says where each one's result lies."""
    raw = {"name": "steps", "model": model, "seed": seed, "rounds": 1, "block": [], "machine": machine}
    file = folder / "steps.yaml"
    file.write_text(json.dumps({**raw, "setup": [*steps], **steps}), encoding="utf-8")
    place = folder / "steps"
    *_, last = steps
    run_recipe(load_recipe(os.fspath(file)), place, progress(quiet=True), until=last)
    return {name: place / "setup" / name for name in steps}


def training_log(run_folder: Path) -> tuple[dict[str, float], ...]:
    """Lines of all `training.jsonl` of a run, in order."""
    files = sorted(run_folder.glob("round-*/**/training.jsonl"))
    lines = (line for file in files for line in file.read_text(encoding="utf-8").splitlines())
    return tuple(json.loads(line) for line in lines)


def _summaries(run_folder: Path) -> tuple[dict[str, Any], ...]:
    files = sorted(run_folder.glob("round-*/summary.json"))
    return tuple(json.loads(file.read_text(encoding="utf-8")) for file in files)

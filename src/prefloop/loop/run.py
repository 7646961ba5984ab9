"""A run from a checked recipe to its report: the folder, what it says first, the rounds, what it ends with."""

import json
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import JsonValue
from transformers.utils import logging as transformers_logging

from prefloop.config import LoadedRecipe, is_mapping
from prefloop.errors import DataError, RecipeError
from prefloop.loop.journal import FILE as JOURNAL
from prefloop.loop.progress import Progress
from prefloop.loop.rounds import rounds
from prefloop.loop.scope import Scope
from prefloop.loop.stage import Stage
from prefloop.loop.steps import Resources
from prefloop.loop.wiring import check_until, model_artifact, rehearse
from prefloop.policy import ModelSource, check_model, resolve_model
from prefloop.records import digest


@dataclass(frozen=True)
class RunResult:
    """What a call did."""

    run: Path
    made: tuple[str, ...]
    """Steps that ran in this call; empty when everything was there."""
    copied: tuple[str, ...]
    """Steps that were copied from the run that may be reused."""


def run_recipe(
    loaded: LoadedRecipe, run: Path, progress: Progress, *, until: str | None = None, reuse: Path | None = None
) -> RunResult:
    """Runs a recipe in a folder, or goes on with it; everything that is there already stays.

    Args:
        loaded: the recipe.
        run: the run folder.
        progress: where to speak.
        until: stop after this step, `STEP` or `round-NN/STEP`.
        reuse: another run whose artifacts of equal identity are copied.

    Raises:
        PrefloopError: of the kind that says how the process should end. Before the folder is made where possible.
    """
    recipe = loaded.recipe
    if until is not None:
        check_until(until, recipe, loaded.where)
    _check_folders(run, reuse)
    if recipe.machine.device == "cuda" and not torch.cuda.is_available():
        raise RecipeError(f"{loaded.where}: machine.device is cuda, but torch sees no CUDA device. Use auto or cpu.")
    rehearse(loaded)
    transformers_logging.disable_progress_bar()
    check_model(recipe.model.path)
    progress.note(f"model: {recipe.model.path}")
    source = resolve_model(recipe.model.path)
    model = model_artifact(_model_identity(source, recipe.model.chat_template_kwargs), source.directory)
    initial = model
    if recipe.initial is not None:
        check_model(recipe.initial)
        other = resolve_model(recipe.initial)
        initial = model_artifact(_model_identity(other, recipe.model.chat_template_kwargs), other.directory)
    for note in loaded.notes:
        progress.note(note)
    _prepare(loaded, run, progress)
    resources = Resources(source, recipe.model.chat_template_kwargs, recipe.machine)
    with Stage(run, resources, progress, reuse) as stage:
        _write_head(loaded, run)
        for artifact in rounds(recipe, Scope(recipe, initial, model), stage):
            if until is not None and until in {artifact.step, f"round-{artifact.place.round or 0:02d}/{artifact.step}"}:
                break
        return RunResult(run, tuple(stage.made), tuple(stage.copied))


def changes_between(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """What differs between two resolved recipes, as "policy.learning_rate: 1e-05 -> 2e-05"."""
    for key in dict.fromkeys((*old, *new)):
        before, after = old.get(key), new.get(key)
        if is_mapping(before) and is_mapping(after):
            yield from changes_between(before, after, f"{prefix}{key}.")
        elif before != after and f"{prefix}{key}" != "name":
            yield f"{prefix}{key}: {before} -> {after}"


def _model_identity(source: ModelSource, chat_template_kwargs: Mapping[str, JsonValue]) -> str:
    return digest([source.identity, dict(chat_template_kwargs)]) if chat_template_kwargs else source.identity


def _check_folders(run: Path, reuse: Path | None) -> None:
    if reuse is not None and not (reuse / JOURNAL).is_file():
        raise RecipeError(f"--reuse {reuse}: not a run folder, it has no {JOURNAL}.")
    if run.is_dir() and any(run.iterdir()) and not (run / JOURNAL).is_file():
        raise DataError(f"{run}: is not empty and not a run folder. Name another with --run.")
    if run.exists() and not run.is_dir():
        raise DataError(f"{run}: is a file, expected a folder. Name another with --run.")
    parent = next(folder for folder in (run, *run.absolute().parents) if folder.is_dir())
    if not os.access(parent, os.W_OK):
        raise DataError(f"{run}: cannot be written, {parent} does not allow it. Name another folder with --run.")


def _prepare(loaded: LoadedRecipe, run: Path, progress: Progress) -> None:
    """Makes the folder and says what changed since it was last run."""
    run.mkdir(parents=True, exist_ok=True)
    saved = run / "recipe.yaml"
    if saved.is_file():
        before = yaml.safe_load(saved.read_text(encoding="utf-8"))
        changed = [line for line in changes_between(before or {}, loaded.raw) if not line.startswith("machine")]
        for line in changed:
            progress.note(f"changed: {line}")
        if changed:
            progress.note("what depends on it runs again; the old results stay in superseded/")


def _write_head(loaded: LoadedRecipe, run: Path) -> None:
    aside = run / ".recipe.yaml.writing"
    aside.write_text(yaml.safe_dump(loaded.raw, sort_keys=False, allow_unicode=True), encoding="utf-8")
    aside.replace(run / "recipe.yaml")
    environment = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        **{name: version(name) for name in ("prefloop", "torch", "transformers", "peft", "numpy")},
    }
    (run / "environment.json").write_text(json.dumps(environment, indent=1) + "\n", encoding="utf-8")

"""A run from a checked recipe to its report: the folder, what it says first, the rounds, what it ends with."""

import json
import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import yaml
from transformers.utils import logging as transformers_logging

from prefloop.config import LoadedRecipe, Recipe, TrainStep
from prefloop.errors import DataError, RecipeError
from prefloop.loop.appraisal import Models
from prefloop.loop.artifact import Artifact
from prefloop.loop.dry import try_largest
from prefloop.loop.forecast import forecast, said
from prefloop.loop.journal import FILE as JOURNAL
from prefloop.loop.plan import Compared, compared, ends_at, plan
from prefloop.loop.precision import keep, settled
from prefloop.loop.progress import Progress
from prefloop.loop.reading import require_clean
from prefloop.loop.rounds import rounds
from prefloop.loop.scope import Scope
from prefloop.loop.stage import LOCK, Stage, locked
from prefloop.loop.steps import Resources, device_of, devices_here
from prefloop.loop.wiring import check_until, fetch_judges, identity_of, model_artifact, rehearse
from prefloop.policy import ModelSource, check_model, resolve_model
from prefloop.policy.quantized import require_quantizer


@dataclass(frozen=True)
class RunResult:
    """What a call did."""

    run: Path
    made: tuple[str, ...]
    """Steps that ran in this call; empty when everything was there."""
    copied: tuple[str, ...]
    """Steps that were copied from the run that may be reused."""
    compared: tuple[Compared, ...] = ()
    """What was predicted before it, beside what came out; empty when nothing ran."""


def run_recipe(
    loaded: LoadedRecipe,
    run: Path,
    progress: Progress,
    *,
    until: str | None = None,
    reuse: Path | None = None,
    strict: bool = False,
) -> RunResult:
    """Runs a recipe in a folder, or goes on with it; everything that is there already stays.

    Args:
        loaded: the recipe.
        run: the run folder.
        progress: where to speak.
        until: stop after this step, `STEP` or `round-NN/STEP`.
        reuse: another run whose artifacts of equal identity are copied.
        strict: do nothing unless every row of the data is accepted without a warning.

    Raises:
        PrefloopError: of the kind that says how the process should end. Before the folder is made where possible.
    """
    recipe = loaded.recipe
    if until is not None:
        check_until(until, recipe, loaded.where)
    _check_folders(run, reuse)
    if (device := recipe.machine.device) not in ("auto", *devices_here()):
        raise RecipeError(
            f"{loaded.where}: machine.device is {device}, but torch sees no such device. Use auto or cpu."
        )
    _check_quantizer(recipe)
    rehearse(loaded)
    transformers_logging.disable_progress_bar()
    fetch_judges(recipe)
    source, model, initial = _models(recipe, progress)
    loaded, trial = settled(loaded, run, source.directory)
    recipe = loaded.recipe
    for note in loaded.notes:
        progress.note(note)
    resources = Resources(source, recipe.model.chat_template_kwargs, recipe.machine)
    if (run / LOCK).is_file():
        locked(run).close()  # whoever writes this run needs the memory that a dry pass would take
    models = Models(initial, model, source.directory, resources.bench.codec)
    if strict:
        require_clean(loaded, resources.bench.codec)
    planned = plan(loaded, run, models)
    resources.rows.update({step.path: step.rows for step in planned.steps if step.rows is not None})
    try_largest(loaded, run, models, resources, progress, until=until, reuse=reuse)
    run.mkdir(parents=True, exist_ok=True)
    with Stage(run, resources, progress, reuse) as stage:
        found = forecast(recipe, Scope(recipe, initial, model), stage.journal, run)
        last = next((number for number, one in enumerate(found) if ends_at(one.artifact, until)), len(found))
        for line in said(found[: last + 1]):
            progress.note(line)
        _write_head(loaded, run)
        keep(trial, run)
        for artifact in rounds(recipe, Scope(recipe, initial, model), stage):
            if ends_at(artifact, until):
                break
    made = tuple(stage.made)
    return RunResult(run, made, tuple(stage.copied), compared(planned, loaded, models, made) if made else ())


def _models(recipe: Recipe, progress: Progress) -> tuple[ModelSource, Artifact, Artifact]:
    """Where the model is that is aligned, its artifact, and that of the policy called initial."""
    check_model(recipe.model.path)
    progress.note(f"model: {recipe.model.path}")
    source = resolve_model(recipe.model.path)
    model = model_artifact(identity_of(source.identity, recipe.model.chat_template_kwargs), source.directory)
    if recipe.initial is None:
        return source, model, model
    check_model(recipe.initial)
    other = resolve_model(recipe.initial)
    identity = identity_of(other.identity, recipe.model.chat_template_kwargs)
    return source, model, model_artifact(identity, other.directory)


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


def _check_quantizer(recipe: Recipe) -> None:
    """What a train step in 4 bits needs is there (ModelError where it is not)."""
    trained = [name for name in recipe.names() if recipe.type_of(name) == "train"]
    steps = (recipe.step(name, number) for name in trained for number in range(recipe.rounds))
    if any(isinstance(step, TrainStep) and step.lora is not None and step.lora.quantize for step in steps):
        require_quantizer(device_of(recipe.machine).type)


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

"""The precision of samplers that leave it open: found out as a run begins, and kept with the run ever after.

So an answer never depends on a clock behind an unchanged identity: what was found is a setting like any other.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path

from prefloop.config import LoadedRecipe
from prefloop.errors import DataError
from prefloop.loop.steps import device_of
from prefloop.policy.faster_precision import Trial, faster_precision

FILE = "precision.json"
"""File of a run folder with what the trial took. Without it the next call tries again."""


def settled(loaded: LoadedRecipe, run: Path, directory: Path) -> tuple[LoadedRecipe, Trial | None]:
    """A recipe that leaves no precision open, and the trial that decided: the one that the run keeps, or one made now.

    Args:
        loaded: the recipe as it was written.
        run: the run folder.
        directory: of the model.

    Raises:
        DataError: what the run keeps cannot be read.
    """
    if loaded.recipe.sampling_in("float32") == loaded.recipe:
        return loaded, None
    kept = run / FILE
    trial = _read(kept) if kept.exists() else faster_precision(directory, device_of(loaded.recipe.machine))
    recipe = loaded.recipe.sampling_in(trial.precision)
    return replace(loaded, recipe=recipe, notes=(*loaded.notes, f"sampling in {trial}")), trial


def keep(trial: Trial | None, run: Path) -> None:
    """Writes a trial, if there was one, beside what the run computes by it."""
    if trial is not None:
        aside = run / f".{FILE}.writing"
        aside.write_text(json.dumps(asdict(trial), indent=1) + "\n", encoding="utf-8")
        aside.replace(run / FILE)


def _read(kept: Path) -> Trial:
    try:
        return Trial(**json.loads(kept.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise DataError(f"{kept}: is damaged, expected the seconds of a trial. Remove it to try again.") from error

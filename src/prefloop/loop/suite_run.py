"""A suite run by itself: a model answers it, opponents and a judge as they are named; the same steps as in a loop."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from prefloop.config import (
    COMPARED,
    LoadedRecipe,
    SuiteFile,
    answers_of_suite,
    comparisons_of_suite,
    in_pool,
    of_step,
    pool_of_suite,
    prompts_of_suite,
    recipe_of,
)
from prefloop.data.files import READERS
from prefloop.errors import DataError, RecipeError
from prefloop.evaluation import Answered, Answers, best_of_each, comparisons, read_scores, worth_of_choosing
from prefloop.loop.progress import Progress
from prefloop.loop.run import run_recipe
from prefloop.records import Judgment, Prompt, Response, read_folder, write_records
from prefloop.sampling import Replay

NAME = "suite"
RUN = "run"
"""Subfolder that is a run folder."""
ANSWERS = "answers.jsonl"
"""File of a folder with all answers of its model, as records: what other runs of the suite may name as an opponent."""


@dataclass(frozen=True)
class SuiteRun:
    """What is to be run."""

    name: str
    """Of the suite, for messages."""
    suite: SuiteFile
    """With everything that the command line said instead."""
    model: str
    """A directory, `builtin:NAME` or `org/name@revision`."""
    folder: Path
    seed: int = 0
    machine: Mapping[str, Any] = field(default_factory=dict[str, Any])
    sampler: Mapping[str, Any] | None = None
    """Who samples the model's answers, as in a recipe; None: this process. Opponents are sampled here."""
    step: str = f"{NAME}-samples"
    """The step that samples."""


@dataclass(frozen=True)
class SuiteAnswers:
    """What came out."""

    prompts: Mapping[str, Prompt]
    """Of first turns, by id, in the order of the suite."""
    ours: Answered
    opponents: tuple[Answered, ...]
    best_of: Mapping[str, Any] | None = None
    """What choosing among several answers is worth, where the suite says `best_of`."""


def run_suite(run: SuiteRun, progress: Progress) -> SuiteAnswers:
    """Samples and judges a suite in a folder, or goes on with it; opponents that are models answer it once.

    Raises:
        PrefloopError: of the kind that says how the process should end.
    """
    n = run.suite.best_of or 1
    if n > 1 and run.suite.judge is None:
        raise RecipeError(f"suite {run.name}: best_of is {n}, but nobody judges which answer is best. Name a judge.")
    named = run.suite.pool or {}
    for spec in named.values():
        _require_answers(spec)
    pool = {name: _file_of(run, name, spec, progress) for name, spec in named.items()}
    loaded = _recipe(run, pool)
    last = loaded.recipe.setup[-1]
    run_recipe(loaded, run.folder / RUN, progress, until=last)
    made = {step: run.folder / RUN / "setup" / step for step in loaded.recipe.setup}
    prompts = {one.prompt_id: one for one in read_folder(made[f"{NAME}-prompts"], Prompt)}
    met = {step: read_folder(made[step], Judgment) for step in made if step.endswith(COMPARED)}
    ours = _answered(made, short_name(run.model), run.step, NAME)
    ours = replace(ours, answers=replace(ours.answers, compared=comparisons(ours.answers, chain(*met.values()))))
    of_all = worth_of_choosing(ours.answers, n) if n > 1 else None
    ours = replace(ours, answers=best_of_each(ours.answers, n)) if n > 1 else ours
    write_records(run.folder / ANSWERS, ours.answers.responses)
    steps = {name: in_pool(NAME, name) for name in pool}
    return SuiteAnswers(prompts, ours, tuple(_answered(made, name, step, step) for name, step in steps.items()), of_all)


def short_name(model: str) -> str:
    """What a model is called in tables: of a directory its last part."""
    return Path(model).resolve().name if Path(model).is_dir() else model


def _require_answers(spec: str) -> None:
    """A file of answers can be read, before anything is sampled (DataError where it cannot)."""
    path = Path(spec).expanduser()
    if not path.exists() and path.suffix in {".gz", ".zst", ".zip", *READERS}:
        raise DataError(f"{spec}: there is no such file. Name a file of answers, or a model.")
    if path.exists() and not (path / "config.json").is_file():
        Replay.load(os.fspath(path))


def _file_of(run: SuiteRun, name: str, spec: str, progress: Progress) -> str:
    """The file with an opponent's answers; a model's are sampled now, in a folder of their own."""
    path = Path(spec).expanduser()
    if path.exists() and not (path / "config.json").is_file():
        return os.fspath(path)
    progress.note(f"opponent {name}: {spec}")
    folder = run.folder / "opponents" / name
    alone = run.suite.model_copy(update={"pool": None, "judge": None, "best_of": None})
    step = f"{NAME}-{name}"  # of another name, so that a model which meets itself answers anew
    run_suite(SuiteRun(run.name, alone, spec, folder, run.seed, run.machine, step=step), progress)
    return os.fspath(folder / ANSWERS)


def _recipe(run: SuiteRun, pool: Mapping[str, str]) -> LoadedRecipe:
    """The steps of an evaluation without a loop around them."""
    settings = {**of_step(run.suite), "suite": run.name, "pool": dict(pool), "sampler": run.sampler}
    compared: dict[str, Any] = {}
    if run.suite.compares and run.suite.judge is not None:
        opponents = {f"{in_pool(NAME, name)}{COMPARED}": in_pool(NAME, name) for name in pool}
        compared = comparisons_of_suite(settings, run.step, opponents)
    for name in pool:
        if not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise RecipeError(f"suite {run.name}: an opponent is called {name!r}. Use letters, digits, dots, hyphens.")
    steps = {
        f"{NAME}-prompts": prompts_of_suite(settings),
        **answers_of_suite(settings, run.step, NAME, policy="initial", stem=NAME),
        **pool_of_suite(settings, NAME),
        **compared,
    }
    raw = {
        "name": NAME,
        "model": run.model,
        "seed": run.seed,
        "rounds": 1,
        "setup": list(steps),
        "block": [],
        "round": [],
        "machine": dict(run.machine),
        **steps,
    }
    return recipe_of(raw, f"suite {run.name}")


def _answered(made: Mapping[str, Path], name: str, step: str, stem: str) -> Answered:
    """A policy's answers and scores, of the steps that the present recipe has."""
    first = tuple(read_folder(made[step], Response))
    second = tuple(read_folder(made[again], Response)) if (again := f"{step}-2") in made else ()
    endings = {"judge": f"{stem}-judgments", "truth": f"{stem}-truth"}
    scores = {judge: read_scores(made[judged]) for judge, judged in endings.items() if judged in made}
    return Answered(name, Answers((*first, *second), scores, {one.response_id: 2 for one in second}))

"""Runs that are to be compared, read: their held-out answers and what the judges made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import yaml
from pydantic import JsonValue

from prefloop.config import COMPARED
from prefloop.errors import DataError
from prefloop.evaluation import Answers, comparisons
from prefloop.records import Judgment, Response, RoundSummary, digest, read_folder
from prefloop.report.answers import JUDGES, scores_of
from prefloop.report.lineage import left_over, recipe_of
from prefloop.report.read import on_disk, optional_json, stages_of, without_folders
from prefloop.report.view import Evaluation

NOT_COMPUTED = frozenset({"seed", "name", "title", "paper", "machine"})
"""Recipe keys in which seeds of one arm may differ: they decide nothing about what is computed, or are the seed."""

Recipe = Mapping[str, JsonValue]


@dataclass(frozen=True)
class RoundAnswers:
    """One round that has ended, with its held-out answers."""

    number: int
    accepted: bool
    policy: str
    """Identity."""
    evaluation: Evaluation
    answers: Answers

    @property
    def label(self) -> str:
        """How people count: 1 is the folder round-00."""
        return str(self.number + 1)


@dataclass(frozen=True)
class RunAnswers:
    """One run: a seed of an arm."""

    place: str
    """The folder as it was named, without the folders of this machine."""
    path: Path
    recipe: Recipe
    initial: Answers
    rounds: tuple[RoundAnswers, ...]
    """In their order; those whose answers were removed, and that nothing needs, are left out."""
    judges: Mapping[str, str]
    """What `judge` and `truth` are."""

    @property
    def name(self) -> str:
        """The recipe's."""
        return str(self.recipe.get("name", "")) or "unnamed"

    @property
    def seed(self) -> int:
        """The recipe's."""
        seed = self.recipe.get("seed", 0)
        return seed if isinstance(seed, int) else 0

    @property
    def settings(self) -> dict[str, JsonValue]:
        """What makes it another arm than others."""
        return {key: value for key, value in self.recipe.items() if key not in NOT_COMPUTED}

    @property
    def identity(self) -> str:
        """Of its recipe, seed included."""
        return digest({**self.settings, "seed": self.seed})

    @property
    def prompts(self) -> frozenset[str]:
        """Held-out prompts that the initial model answered."""
        return frozenset(response.prompt_id for response in self.initial.responses)

    @property
    def planned(self) -> int:
        """Rounds of the recipe."""
        planned = self.recipe.get("rounds", 3)
        return planned if isinstance(planned, int) else 3

    @property
    def last_accepted(self) -> RoundAnswers | None:
        """The round whose policy the run stands on; None: the initial model."""
        return next((one for one in reversed(self.rounds) if one.accepted), None)


def read_runs(paths: Sequence[Path]) -> tuple[RunAnswers, ...]:
    """Every run, in the order in which they are named.

    Raises:
        DataError: a folder is no run, was not evaluated, or is named twice.
    """
    named: set[Path] = set()
    for path in paths:
        if path.resolve() in named:
            raise DataError(f"{path}: named twice. Name every run once.")
        named.add(path.resolve())
    return tuple(map(read_answers, paths))


def read_answers(run: Path) -> RunAnswers:
    """The recipe and the held-out answers of one run.

    Raises:
        DataError: the folder is no run, was not evaluated, or one of its files is not what it must be.
    """
    recipe = _recipe(run)
    planned = recipe.get("rounds", 3)
    numbers = range(planned if isinstance(planned, int) else 3)  # later ones belong to a recipe with more rounds
    folders = [folder for number in numbers if (folder := run / f"round-{number:02d}").is_dir()]
    stale = _left_over(run, folders)
    fresh = [folder for folder in folders if not {folder.name, f"{folder.name}/summary.json"} & stale]
    rounds = [one for folder in fresh if (one := _round(run, folder)) is not None]
    if not rounds and len(fresh) < len(folders):
        raise DataError(
            f"{run}: its recipe has changed, and no round of the present one has ended yet. "
            "Run `prefloop run` again until its first round has, then compare."
        )
    if not rounds:
        raise DataError(
            f"{run}: no round of it has ended yet. Run `prefloop run` again until its first round has, then compare."
        )
    kept = tuple(one for one in rounds if one.answers.responses)
    missing = next((one for one in reversed(rounds) if one.accepted), None)
    if missing is not None and not missing.answers.responses:
        raise DataError(
            f"{run}: round-{missing.number:02d} is its last accepted round, and its evaluation-samples are missing. "
            "The same `prefloop run` makes them again."
        )
    initial = _answers(run / "setup", "evaluation-initial", "evaluation-initial")
    if not initial.responses:
        raise DataError(
            f"{run}: the initial model's held-out answers are missing (setup/evaluation-initial). "
            "The same `prefloop run` makes them again."
        )
    judges = {judge: _judge_name(run, suffix) for judge, suffix in JUDGES.items() if judge in initial.scores}
    return RunAnswers(without_folders(str(run)), run, recipe, initial, kept, judges)


def _left_over(run: Path, folders: Sequence[Path]) -> frozenset[str]:
    """What an earlier recipe left in the folder; nothing is known without a journal."""
    stages = tuple(stages_of(run))
    return frozenset(left_over(recipe_of(run), stages, list(map(on_disk, folders))) if stages else ())


def _recipe(run: Path) -> Recipe:
    path = run / "recipe.yaml"
    if not path.is_file():
        raise DataError(
            f"{run}: no recipe.yaml in it, so this is not a run folder. "
            "Name the folder that `prefloop run` made, e.g. runs/quickstart."
        )
    try:
        recipe: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise DataError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(recipe, dict):
        raise DataError(f"{path}: found {type(recipe).__name__}, expected the mapping that `prefloop run` wrote.")
    return cast("Recipe", recipe)


def _round(run: Path, folder: Path) -> RoundAnswers | None:
    """A round that has a decision; others may still change."""
    summary = optional_json(folder / "summary.json", RoundSummary)
    if summary is None:
        return None
    evaluation = optional_json(folder / "evaluation.json", Evaluation)
    if evaluation is None:
        raise DataError(
            f"{run}: {folder.name} was not evaluated, so there is nothing to compare. "
            "Name a suite (--set evaluation.suite=everyday) and run it again: only the evaluations are made."
        )
    answers, compared = _answers(folder, "evaluation-samples", "evaluation"), folder / f"evaluation-initial{COMPARED}"
    return RoundAnswers(
        number=summary.round,
        accepted=summary.decision in {"accepted", "warned"},
        policy=summary.policies["current"],
        evaluation=evaluation,
        answers=replace(answers, compared=comparisons(answers, read_folder(compared, Judgment))),
    )


def _answers(folder: Path, step: str, stem: str) -> Answers:
    """The answers of one policy; a judge that was not asked is absent."""
    second = tuple(read_folder(folder / f"{step}-2", Response))  # of a suite with two turns
    turns = {response.response_id: 2 for response in second}
    return Answers((*read_folder(folder / step, Response), *second), scores_of(folder, stem), turns)


def _judge_name(run: Path, suffix: str) -> str:
    return next(judgment.judge for judgment in read_folder(run / f"setup/evaluation-initial-{suffix}", Judgment))

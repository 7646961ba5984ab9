"""A run folder, read: finished or not, with or without evaluation."""

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from prefloop.errors import DataError
from prefloop.records import Judgment, Prompt, Response, RoundSummary, read_folder
from prefloop.report.view import (
    Answer,
    Comparison,
    Evaluation,
    Fitted,
    Recipe,
    Round,
    RunView,
    Stage,
    Training,
    last_accepted,
)

COMPARISONS = 12
"""Held-out prompts on the page: the first of the file, so that nobody chose them."""

_Parsed = TypeVar("_Parsed")
_JUDGES = {"judge": "judgments", "truth": "truth"}
_VERSION = re.compile(r"\d+(\.\d+)+([.+-]?\w+)*")
_ABSOLUTE_PATH = re.compile(r"(?<![\w.:/~])(?:~|[A-Za-z]:)?[/\\](?:[^\s'\",/\\\[\]{}]+[/\\])+(?=[^\s'\",/\\\[\]{}])")
_FITS = TypeAdapter(dict[str, Fitted])
_COUNTS = TypeAdapter(dict[str, float])
_METRICS = TypeAdapter(dict[str, Any])


def read_run(run: Path) -> RunView:
    """Everything that the page shows of a run.

    Raises:
        DataError: the folder is no run, or one of its files is not what it must be.
    """
    recipe, text = _recipe(run)
    folders = sorted(folder for folder in run.glob("round-[0-9]*") if folder.is_dir())
    rounds = tuple(map(_round, folders[: recipe.rounds]))  # later ones belong to a recipe with more rounds
    shown = last_accepted(rounds)
    return RunView(
        recipe=recipe,
        recipe_text=text,
        versions=dict(_versions(_environment(run / "environment.json"))),
        rounds=rounds,
        comparisons=() if shown is None else tuple(_comparisons(run, f"round-{shown.number:02d}")),
        stages=tuple(_stages(run)),
    )


def without_folders(text: str) -> str:
    """A text in which absolute paths of this machine keep only their last part."""
    return _ABSOLUTE_PATH.sub("…/", text)


def _recipe(run: Path) -> tuple[Recipe, str]:
    path = run / "recipe.yaml"
    if not path.is_file():
        raise DataError(
            f"{run}: no recipe.yaml in it, so this is not a run folder. "
            "Name the folder that `prefloop run` made, e.g. runs/quickstart."
        )
    text = without_folders(path.read_text(encoding="utf-8"))

    def parsed(content: str) -> Recipe:
        return Recipe.model_validate(yaml.safe_load(content))

    return _checked("recipe.yaml", "recipe", text, parsed), text


def _round(folder: Path) -> Round:
    trained = sorted(path.parent for path in folder.rglob("training.jsonl"))
    return Round(
        number=int(folder.name.removeprefix("round-")),
        summary=_optional(folder / "summary.json", RoundSummary),
        evaluation=_optional(folder / "evaluation.json", Evaluation),
        training=tuple(_training(step, step.relative_to(folder.parent)) for step in trained),
    )


def _training(folder: Path, place: Path) -> Training:
    lines = (folder / "training.jsonl").read_text(encoding="utf-8").splitlines()
    steps = (
        _checked(f"{place}/training.jsonl:{number}", "line of metrics", line, _METRICS.validate_json)
        for number, line in enumerate(lines, start=1)
    )
    fitted = folder / "fitted.json"
    return Training(
        place=str(place),
        steps=tuple(
            {name: float(value) for name, value in step.items() if isinstance(value, int | float)} for step in steps
        ),
        fitted=_checked(f"{place}/fitted.json", "set of fits", fitted.read_text(encoding="utf-8"), _FITS.validate_json)
        if fitted.is_file()
        else {},
    )


def _comparisons(run: Path, place: str) -> Iterator[Comparison]:
    """The first prompts in file order, with the first answer of each side."""
    prompts = list(read_folder(run / "setup/evaluation-prompts", Prompt))[:COMPARISONS]
    before = _first_answers(run, "setup", "evaluation-initial", "evaluation-initial")
    after = _first_answers(run, place, "evaluation-samples", "evaluation")
    for prompt in prompts:
        if prompt.prompt_id in before and prompt.prompt_id in after:
            yield Comparison(
                prompt=next((m.content for m in reversed(prompt.messages) if m.role == "user"), ""),
                earlier_turns=len(prompt.messages) - 1,
                before=before[prompt.prompt_id],
                after=after[prompt.prompt_id],
            )


def _first_answers(run: Path, place: str, answers: str, stem: str) -> dict[str, Answer]:
    scores = {
        judge: {
            judgment.subjects[0]: judgment.values[0]
            for judgment in read_folder(run / place / f"{stem}-{suffix}", Judgment)
            if judgment.kind == "score" and judgment.values[0] is not None
        }
        for judge, suffix in _JUDGES.items()
    }
    return {
        response.prompt_id: Answer(
            text=response.text,
            num_tokens=response.num_tokens,
            cut=response.finish_reason == "length",
            scores={
                judge: given[response.response_id] for judge, given in scores.items() if response.response_id in given
            },
        )
        for response in read_folder(run / place / answers, Response)
        if response.index == 0
    }


def _stages(run: Path) -> Iterator[Stage]:
    """What lies in the run by the journal, in the order in which a run makes it."""
    path = run / "journal.sqlite"
    if not path.is_file():
        return
    query = (
        "select path, identity, counts, seconds from artifacts where state = 'committed' "
        "order by place != 'setup', place, started"
    )
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            rows: list[tuple[str, str, str, float]] = connection.execute(query).fetchall()
    except sqlite3.DatabaseError as error:
        raise DataError(
            f"journal.sqlite: not a journal ({error}). Was this file written by an older version?"
        ) from error
    for place, identity, counts, seconds in rows:
        if not place.startswith("superseded/"):
            yield Stage(
                place,
                identity,
                _checked(f"journal.sqlite: {place}", "set of counts", counts, _COUNTS.validate_json),
                seconds,
            )


def _environment(path: Path) -> Any:
    if not path.is_file():
        return {}
    return _checked(path.name, "JSON file", path.read_text(encoding="utf-8"), json.loads)


def _versions(environment: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Leaves that are version numbers; what else is in there (paths, times, hosts) is the machine's own business."""
    if isinstance(environment, dict):
        for key, value in sorted(cast("dict[str, Any]", environment).items()):
            yield from _versions(value, key)
    elif isinstance(environment, str) and _VERSION.fullmatch(environment):
        yield name, environment


_Model = TypeVar("_Model", bound=BaseModel)


def _optional(path: Path, kind: type[_Model]) -> _Model | None:
    if not path.is_file():
        return None
    where = f"{path.parent.name}/{path.name}"
    return _checked(where, kind.__name__, path.read_text(encoding="utf-8"), kind.model_validate_json)


def _checked(where: str, what: str, content: str, parse: Callable[[str], _Parsed]) -> _Parsed:
    """What a parser makes of a file, or one line that says where it could not."""
    try:
        return parse(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "content"
        reason = f"{field}: {first['msg']}"
    except (ValueError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
    raise DataError(f"{where}: not a {what}: {reason}. Was this file written by another stage or an older version?")

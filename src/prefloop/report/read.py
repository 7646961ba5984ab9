"""A run folder, read: finished or not, with or without evaluation."""

import json
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from prefloop.errors import DataError
from prefloop.records import RoundSummary
from prefloop.report.answers import NONE, comparisons, held_out, initial_answers, round_answers
from prefloop.report.lineage import RoundOnDisk, left_over, recipe_of
from prefloop.report.plain import comparable_curve
from prefloop.report.view import (
    Evaluation,
    Fitted,
    Recipe,
    RewardModel,
    Round,
    RunView,
    Stage,
    Training,
    Validation,
    last_accepted,
)

_Parsed = TypeVar("_Parsed")
_VERSION = re.compile(r"\d+(\.\d+)+([.+-]?\w+)*")
_ABSOLUTE_PATH = re.compile(r"(?<![\w.:/~])(?:~|[A-Za-z]:)?[/\\](?:[^\s'\",/\\\[\]{}]+[/\\])+(?=[^\s'\",/\\\[\]{}])")
_FITS = TypeAdapter(dict[str, Fitted])
_COUNTS = TypeAdapter(dict[str, float])
_METRICS = TypeAdapter(dict[str, Any])


def read_run(run: Path) -> RunView:
    """Everything that the page shows of a run: only what belongs to the recipe that lies in the folder.

    Raises:
        DataError: the folder is no run, or one of its files is not what it must be.
    """
    recipe, text = _recipe(run)
    journaled = tuple(stages_of(run))
    folders = sorted(folder for folder in run.glob("round-[0-9]*") if folder.is_dir())
    folders = folders[: recipe.rounds]  # later ones belong to a recipe with more rounds
    stale = left_over(recipe_of(run), journaled, [on_disk(folder) for folder in folders])
    stages = tuple(stage for stage in journaled if stage.in_place and not _under(stage.path, stale))
    rounds = tuple(_round(folder, stale, stages) for folder in folders if folder.name not in stale)
    before = NONE if "setup/evaluation-initial" in stale else initial_answers(run)
    answers = {one.number: round_answers(run, f"round-{one.number:02d}") for one in rounds if one.evaluation}
    shown = last_accepted(rounds)
    after = NONE if shown is None else answers.get(shown.number, NONE)
    prompts = held_out(run)
    return RunView(
        recipe=recipe,
        recipe_text=text,
        versions=dict(_versions(_environment(run / "environment.json"))),
        rounds=rounds,
        left_over=stale,
        before=before,
        after=after,
        comparisons=tuple(comparisons(prompts, before, after)),
        prompts=len(prompts),
        stages=stages,
        reward_models=tuple(_reward_models(run, [run / "setup", *folders], stale)),
        plain=comparable_curve(recipe),
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


def on_disk(folder: Path) -> RoundOnDisk:
    """A round's folder with its summary, if it has one."""
    return RoundOnDisk(folder.name, optional_json(folder / "summary.json", RoundSummary))


def _round(folder: Path, stale: Sequence[str], stages: Sequence[Stage]) -> Round:
    """A round without what an earlier recipe left in its folder."""

    def fresh(path: Path) -> bool:
        return not _under(path.relative_to(folder.parent).as_posix(), stale)

    trained = sorted(path.parent for path in folder.rglob("training.jsonl") if fresh(path))
    summary = optional_json(folder / "summary.json", RoundSummary) if fresh(folder / "summary.json") else None
    evaluation = folder / "evaluation.json"
    journaled = {
        stage.path.removeprefix(f"{folder.name}/"): stage.counts
        for stage in stages
        if stage.path.startswith(f"{folder.name}/")
    }
    return Round(
        number=int(folder.name.removeprefix("round-")),
        summary=summary,
        evaluation=optional_json(evaluation, Evaluation) if fresh(evaluation) else None,
        training=tuple(_training(step, step.relative_to(folder.parent)) for step in trained),
        counts=journaled or ({} if summary is None else summary.counts),
    )


def _reward_models(run: Path, folders: Sequence[Path], stale: Sequence[str]) -> Iterator[RewardModel]:
    """Reward models of the set-up and of rounds that were tried on pairs kept apart."""
    for path in (path for folder in folders for path in sorted(folder.rglob("reward_model.json"))):
        place = path.parent.relative_to(run).as_posix()
        found = optional_json(path, RewardModel)
        if found is not None and found.accuracy is not None and not _under(place, stale):
            yield found.model_copy(update={"place": place})


def _under(path: str, places: Sequence[str]) -> bool:
    return any(path == place or path.startswith(f"{place}/") for place in places)


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
        validation=optional_json(folder / "validation.json", Validation),
    )


def stages_of(run: Path) -> Iterator[Stage]:
    """What the journal knows, in the order in which a run makes it; superseded artifacts too."""
    path = run / "journal.sqlite"
    if not path.is_file():
        return
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            columns = {row[1] for row in connection.execute("pragma table_info(artifacts)")}
            made_from = "made_from" if "made_from" in columns else "null"
            rows: list[tuple[str, str, str, float, str | None]] = connection.execute(
                f"select path, identity, counts, seconds, {made_from} from artifacts where state = 'committed' "
                "order by place != 'setup', place, started"
            ).fetchall()
    except sqlite3.DatabaseError as error:
        raise DataError(
            f"journal.sqlite: not a journal ({error}). Was this file written by an older version?"
        ) from error
    for place, identity, counts, seconds, origin in rows:
        where = f"journal.sqlite: {place}"
        yield Stage(
            path=place,
            identity=identity,
            counts=_checked(where, "set of counts", counts, _COUNTS.validate_json),
            seconds=seconds,
            made_from=None if origin is None else _checked(where, "record of origin", origin, _METRICS.validate_json),
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


def optional_json(path: Path, kind: type[_Model]) -> _Model | None:
    """A JSON file of a run as what it must be (DataError where it is not); None where it is not there."""
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

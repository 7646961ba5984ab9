"""`prefloop sample`, `score`, `pair` and `train`: one stage on files, by the functions of the Python API."""

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from shutil import rmtree
from typing import Any

from prefloop.cli.console import output
from prefloop.cli.export import export_command
from prefloop.config import judge_of
from prefloop.config.recipe import merge
from prefloop.config.spoken import numbers, setting
from prefloop.data import Reading, find_source
from prefloop.errors import DataError

Rows = list[dict[str, Any]]
OBJECTIVES: Mapping[str, str] = {"preference": "dpo", "sft": "sft", "reward_model": "bradley_terry"}


def sample_command(source: str, out: Path, model: str, seed: int, changes: Sequence[str]) -> dict[str, Any]:
    """Writes a model's answers to the prompts of a data set, a row each."""
    from prefloop.api import sample

    _require_new(out)
    rows: Rows = []
    for given in Reading(find_source(source)):
        messages = [one.model_dump(mode="json", exclude_defaults=True) for one in given.prompt.messages]
        gold = {} if given.prompt.answer is None else {"answer": given.prompt.answer}
        rows.append({"prompt": messages, **gold})
    with _kept(out) as run:
        return _written(out, sample(model, rows, seed=seed, run=run, **_settings(changes, "num_samples=4")))


def score_command(source: str, out: Path, judge: str, model: str, name: str, seed: int) -> dict[str, Any]:
    """Writes rows of a prompt and a completion with what a judge says of them."""
    from prefloop.api import judge as judged

    _require_new(out)
    with _kept(out) as run:
        return _written(out, judged(_rows(source), judge_of(judge), model=model, name=name, seed=seed, run=run))


def pair_command(source: str, out: Path, rule: str, score: str, changes: Sequence[str]) -> dict[str, Any]:
    """Writes the examples that a rule makes of scored answers, a row each."""
    from prefloop.api import pair

    _require_new(out)
    return _written(out, pair(_rows(source), rule, score=score, **_settings(changes, "min_margin=0.1")))


def train_command(
    source: str, out: Path, model: str, objective: str, run: Path | None, seed: int, changes: Sequence[str]
) -> dict[str, Any]:
    """Trains a model on rows and writes it, or its adapter, as other tools load it."""
    from prefloop.api import train

    _require_new(out)
    folder = run or out.with_name(f"{out.name}.run")
    told = _settings(changes, "learning_rate=1e-5")
    trained = train(model, None, _rows(source), objective, run=folder, seed=seed, quiet=False, **told)
    assert trained.run is not None
    return {**export_command(trained.run, out, None, merged=False), "run": str(trained.run)}


def _rows(source: str) -> Rows:
    """Rows as they stand in a file.

    Raises:
        DataError: a line cannot be read.
    """
    rows: Rows = []
    for row in find_source(source).rows():
        if row.values is None:
            raise DataError(f"{row.place}: {row.problems[0].detail} `prefloop lint {source}` lists all such lines.")
        rows.append(dict(row.values))
    return rows


def _settings(changes: Sequence[str], example: str) -> dict[str, Any]:
    return numbers(reduce(merge, (setting(one, example=example) for one in changes), {}))


@contextmanager
def _kept(out: Path) -> Generator[Path]:
    """A folder beside the file, which keeps what is done of it until it is written: the same command goes on.

    Raises:
        DataError: there is another folder of this name.
    """
    run = out.with_name(f"{out.name}.run")
    done = run / "steps"
    if run.exists() and not done.is_dir():
        raise DataError(f"{run}: is in the way of what is kept until {out.name} is written. Name another file.")
    try:
        yield run
    except BaseException:
        if not done.is_dir():
            rmtree(run, ignore_errors=True)  # nothing was begun
        raise
    rmtree(run)


def _require_new(out: Path) -> None:
    """Nothing is begun whose result could not be written (DataError)."""
    if out.exists():
        raise DataError(f"{out}: is there already and is not overwritten. Name another, or remove it.")
    if not out.absolute().parent.is_dir():
        raise DataError(f"{out}: there is no folder {out.parent}. Make it, or name another place.")


def _written(out: Path, rows: Rows) -> dict[str, Any]:
    """A file of rows, which appears when it is complete."""
    aside = out.with_name(f".{out.name}.writing")
    aside.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    aside.replace(out)
    output().print(f"{out}: {len(rows)} rows", highlight=False, markup=False, soft_wrap=True)
    return {"out": str(out), "rows": len(rows)}

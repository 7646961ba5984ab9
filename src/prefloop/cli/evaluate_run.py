"""`prefloop evaluate run`: a model answers a suite, a judge says what it thinks, a table is made of it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from prefloop.cli.console import output, say
from prefloop.cli.evaluate import number, paired_lines, with_interval
from prefloop.config import SuiteFile, judge_of, merge, read_suite, sampler_of, setting, suite_with
from prefloop.errors import DataError, RecipeError


@dataclass(frozen=True)
class RunOptions:
    """What the command line says."""

    suite: str
    model: str
    judge: str | None
    prompts: str | None
    references: str | None
    against: Sequence[str]
    changes: Sequence[str]
    folder: Path | None
    bootstrap: int
    seed: int
    threads: int | None
    sampler: str | None = None


def evaluate_run_command(options: RunOptions) -> dict[str, Any]:
    """Runs the suite, writes the answers for other tools, and prints the table.

    Raises:
        PrefloopError: of the kind that says how the process should end.
    """
    suite = suite_of(options)
    from prefloop.evaluation import suite_result
    from prefloop.loop import Progress, SuiteRun, run_suite, short_name

    machine = {} if options.threads is None else {"threads": options.threads}
    name = Path(options.suite).stem
    folder = options.folder or Path("runs") / f"{name}-{_safe(short_name(options.model))}"
    sampler = None if options.sampler is None else sampler_of(options.sampler)
    run = SuiteRun(options.suite, suite, options.model, folder, options.seed, machine, sampler)
    found = run_suite(run, Progress())
    result = {
        "suite": options.suite,
        "model": found.ours.name,
        "judge": suite.judge,
        **suite_result(suite, found.ours, found.opponents, found.prompts, seed=options.seed, draws=options.bootstrap),
        **({} if found.best_of is None else {"best_of": found.best_of}),
    }
    files = _write(folder, suite, found)
    (folder / "evaluation.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    _print(result)
    say([f"in {folder}: evaluation.json, {', '.join(files)}"])
    return result


def suite_of(options: RunOptions) -> SuiteFile:
    """The suite with what the command line says instead."""
    suite = read_suite(options.suite)
    said: dict[str, Any] = suite.model_dump(exclude_none=True)
    for text in options.changes:
        said = merge(said, setting(text, example="num_samples=2"))
    judge = None if options.judge is None else judge_of(options.judge)
    given = {"prompts": options.prompts, "references": options.references, "judge": judge}
    said |= {key: value for key, value in given.items() if value is not None}
    if options.against:
        said["pool"] = dict(_opponents(options.against))
    suite = suite_with(suite, said, f"suite {options.suite}")
    if suite.prompts is None:
        raise RecipeError(f"suite {options.suite}: leaves its questions to you. Name their file: --prompts.")
    if suite.table in {"preferences", "battles"} and suite.judge is not None and not suite.pool:
        raise RecipeError(f"suite {options.suite}: {suite.table} are against somebody. Name an opponent: --against.")
    return suite


def _opponents(against: Sequence[str]) -> Iterator[tuple[str, str]]:
    """NAME=FILE, or a file or model that is called as itself."""
    names: set[str] = set()
    for text in against:
        name, equals, spec = text.partition("=")
        if not equals:
            spec, name = text, _safe(Path(text).name.split(".")[0] if Path(text).exists() else text)
        if name in names:
            raise RecipeError(f"--against {text}: a second opponent is called {name}. Name it: --against OTHER={spec}.")
        names.add(name)
        yield name, spec


def _safe(name: str) -> str:
    from prefloop.evaluation import file_name

    return file_name(name)


def _write(folder: Path, suite: SuiteFile, found: Any) -> list[str]:
    """Answers in the forms of other tools, and what a judge outside of the program is asked; their names."""
    from prefloop.evaluation import (
        conversations,
        file_name,
        judge_requests,
        write_alpaca_eval,
        write_arena_hard,
        write_fastchat,
    )

    model = found.ours.name
    given = conversations(found.prompts, found.ours.answers)
    stem = file_name(model)
    written = {
        "alpaca_eval/model_outputs.json": write_alpaca_eval,
        f"fastchat/{stem}.jsonl": write_fastchat,
        f"arena_hard/{stem}.jsonl": write_arena_hard,
    }
    if suite.turns == 2:
        del written["alpaca_eval/model_outputs.json"]  # which has no place for a second turn
    for file, write in written.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        write(folder / file, model, given)
    files = ["answers.jsonl", *written]
    if suite.judge_form is not None and suite.judge is None:
        first = next(iter(found.opponents), None)
        baseline = None if first is None else (first.name, conversations(found.prompts, first.answers))
        try:
            lines = list(judge_requests(suite.judge_form, (model, given), baseline))
        except DataError as error:
            say([f"judge_requests.jsonl is left out: {error}"])
            return files
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / "judge_requests.jsonl").write_text(text, encoding="utf-8")
        files.append("judge_requests.jsonl")
    return files


def _print(result: Mapping[str, Any]) -> None:
    """The answers of everybody, and the suite's table."""
    judges = list(dict.fromkeys(judge for one in result["answers"].values() for judge in one["score"]))
    table = Table("answers of", *judges, "tokens", "characters", "finished", "distinct-2", "n", box=None)
    for name, one in result["answers"].items():
        scores = [with_interval(one["score"][judge]["value"], one["score"][judge]["interval"]) for judge in judges]
        columns = ("tokens", "characters", "finish_rate", "distinct_2")
        shown = [with_interval(one[key]["value"], one[key]["interval"]) for key in columns]
        table.add_row(name, *scores, *shown, str(one["tokens"]["n"]))
    output().print(table)
    say(_notes(result))


def _notes(result: Mapping[str, Any]) -> Iterator[str]:
    model = result["model"]
    first = next(iter(result["answers"].values()))
    yield f"in brackets {first['interval_method']}; of distinct-2 {first['distinct_2']['interval_method']}"
    if result["judge"] is None:
        yield "nobody judged: name a judge (--judge) for scores and comparisons"
    if (best := result.get("best_of")) is not None:
        shown = "; ".join(
            f"{judge} {', '.join(number(value, '.3f') for value in by_n)}" for judge, by_n in best["by_n"].items()
        )
        yield f"each answer is the judge's choice of {best['n']}; mean scores of the best of 1, 2, ...: {shown}"
    for opponent, one in result.get("against", {}).items():
        for judge, duel in ({"judge": one} if "win_rate" in one else one).items():
            raw = with_interval(duel["win_rate"], duel["interval"])
            controlled = with_interval(duel["length_controlled_winrate"], duel["lc_interval"])
            n = duel.get("n", duel.get("n_total"))
            yield f"{model} against {opponent}, by {judge}: {raw} % of {n}, at equal lengths {controlled} %"
            if duel.get("unjudged"):
                yield f"  {duel['unjudged']} pairs of answers have no verdict and are left out"
            yield from (f"  {warning}" for warning in duel.get("warnings", ()))
    for name, one in result.get("models", {}).items():
        if "turn1" in one:
            turns = [
                f"{part} {with_interval(one[part], one['intervals'][part])}" for part in ("turn1", "turn2", "average")
            ]
            yield f"{name}: {', '.join(turns)} of {one['n']}"
            for category, mean in one.get("categories", {}).items():
                yield f"  {category} {with_interval(mean, one['category_intervals'][category])}"
        else:
            score = with_interval(one["score"], one["interval"])
            yield f"{name}: score {score} against {result['baseline']}, rating {number(one['rating'], '+.3f')}"
    yield from paired_lines(result.get("paired", ()), " points" if "baseline" in result else "")
    yield from result.get("warnings", ())

"""`prefloop judge`: people's answers to what a run waits for, and judges against labels."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.table import Table

from prefloop.cli.console import output, say
from prefloop.cli.evaluate import number
from prefloop.config import JudgeStep, judge_of
from prefloop.errors import RecipeError
from prefloop.evaluation.labelled import against_labels, labelled_pairs
from prefloop.judging import (
    Apart,
    Budget,
    Judge,
    check_judge,
    fetch_judge,
    make_judge,
    read_answers,
)
from prefloop.loop.journal import Journal
from prefloop.loop.stage import locked
from prefloop.loop.steps.judge import remembering_in


def judge_command(run: Path, answers: Path) -> dict[str, Any]:
    """Reads a file of answers into a run."""
    Journal(run, read_only=True).close()
    with locked(run):
        result = read_answers(run, answers)
    left = f"{result.left} are still open" if result.left else "none is open"
    go_on = "" if result.left else "; run the recipe again to go on"
    output().print(
        f"{run}: {result.answered} answers read, {left}{go_on}.", highlight=False, markup=False, soft_wrap=True
    )
    return asdict(result)


def against_command(
    file: Path, judge: str, budget: Budget, run: Path | None, *, count: int | None, seed: int
) -> dict[str, Any]:
    """Judges the pairs of a labelled set in both orders and says how often the judge is right.

    Raises:
        RecipeError: the judge cannot be asked about two answers.
        DataError: the file cannot be used.
        ResumableError: the next call would exceed the budget; what was answered is kept.
    """
    settings = _settings(judge, budget)
    shows = "two" if "two" in settings.judge.takes else "one"
    if settings.judge.policies or settings.judge.type == "human":
        raise RecipeError(f"--judge {judge}: judges within a run only. Name one that needs none.")
    fetch_judge(settings.judge)
    check_judge(settings.judge, shows)
    pairs = labelled_pairs(file, count, seed)
    with _asked_once(settings, make_judge(settings.judge, shows=shows), run) as asked:
        result = against_labels(asked if shows == "two" else Apart(asked, compares=True), pairs, seed=seed)
    table = Table(
        "subset", "pairs", "order 1-2", "order 2-1", "both", "kappa", "first", "longer", "kept", "wrong", box=None
    )
    for name, one in result["subsets"].items():
        shares = [number(one[key], ".3f") for key in ("acc_ab", "acc_ba", "acc_both", "kappa", "first_share")]
        wrong = number(one["wrong"], ".3f")
        if one["wrong_interval"] is not None:
            wrong += f" [{one['wrong_interval'][0]:.3f}, {one['wrong_interval'][1]:.3f}]"
        table.add_row(
            name, str(one["n"]), *shares, number(one["prefers_longer"], ".3f"), number(one["kept"], ".3f"), wrong
        )
    output().print(table)
    say(_notes(result))
    return result


@contextmanager
def _asked_once(settings: JudgeStep, judge: Judge, run: Path | None) -> Generator[Judge]:
    """What is outside the program is asked within the budget, and nothing that a folder has an answer to."""
    if not settings.judge.kept:
        yield judge
        return
    folder = run if run is not None else Path("runs") / "labels"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder), remembering_in(folder, settings, judge, "judge") as remembering:
        yield remembering


def _settings(judge: str, budget: Budget) -> JudgeStep:
    asked = {"judge": judge_of(judge), "design": {"type": "all_pairs"}, **asdict(budget)}
    try:
        return JudgeStep.model_validate({"type": "judge", **asked})
    except ValidationError as error:
        why = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise RecipeError(
            f"--judge {judge}: {why}. Expected a judge as a recipe has it, such as '{{type: vader}}'."
        ) from error


def _notes(result: dict[str, Any]) -> list[str]:
    one = result["subsets"]["all"]
    notes = [
        f"judge {result['judge']}: {one['ties']} ties and {one['invalid']} invalid of {2 * one['n']} verdicts; the "
        f"longer answer is the better one in {number(one['labels_prefer_longer'], '.1%')} of the labels",
        "order 1-2, 2-1, both: shares that are right; a tie and an invalid verdict are not. kept: both orders name the "
        "same answer, so that rule preferred makes a pair; wrong: share of these pairs that contradict the label, with "
        "a 95 % interval over prompts",
    ]
    wrong, interval = one["wrong"], one["wrong_interval"]
    if wrong is None:
        notes.append("no pair would be made of this judge: it never says the same in both orders")
    elif interval is None or interval[1] >= 0.5:
        notes.append("this judge is not shown to be better than chance here: its pairs would teach nothing")
    else:
        notes.append(
            f"of pairs like these about {wrong:.0%} are wrong: objective conservative_dpo or robust_dpo with "
            f"label_smoothing: {wrong:.2f} expects that; policy.soft_labels: true instead counts each pair as far as "
            "the judge was sure of it, which helps where its probabilities are right"
        )
    return notes

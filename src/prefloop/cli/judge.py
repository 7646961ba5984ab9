"""`prefloop judge`: people's answers to what a run waits for."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefloop.cli.console import output
from prefloop.judging import read_answers
from prefloop.loop.journal import Journal
from prefloop.loop.stage import locked


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

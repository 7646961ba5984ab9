"""The smallest real run: builtin:tiny, a handful of prompts, one round in about a second."""

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from prefloop.config import load_recipe
from prefloop.loop import Progress, RunResult, run_recipe

SMALL = (
    "rounds=1",
    "prompts.count=6",
    "samples={num_samples: 3, temperature: 1.0, max_new_tokens: 24, wave: 2}",
    "policy={learning_rate: 1e-3, batch_size: 2}",
    "evaluation={suite: everyday, count: 5, resamples: 100}",
    "machine={threads: 1}",
)
VOLATILE = (
    "journal.sqlite",
    "answers.sqlite",
    "environment.json",
    "precision.json",
    ".lock",
    "report/",
    ".making",
    ".scratch",
    ".scores.sqlite",
    "recipe.yaml",
    "superseded/",
)

EACH_IN_A_PROCESS = """
for run, point in zip(sys.argv[1::2], sys.argv[2::2]):
    child = os.fork()  # it need not import everything again
    if child == 0:
        start(Path(run), point)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def printed_by_processes(script: str, runs: Sequence[tuple[Path, str | int]]) -> list[str]:
    """What processes print that call a script's `start` one after the other, and with what code each ends."""
    told = [str(part) for run in runs for part in run]
    done = subprocess.run([sys.executable, "-c", script + EACH_IN_A_PROCESS, *told], stdout=subprocess.PIPE, check=True)
    return done.stdout.decode().split()


@pytest.fixture
def small_run(tmp_path: Path) -> Callable[..., RunResult]:
    """Runs the small recipe with overrides in a folder of the test."""

    def run(*overrides: str, name: str = "run", recipe: str = "loop.tiny", **options: Any) -> RunResult:
        loaded = load_recipe(recipe, (*SMALL, *overrides))
        return run_recipe(loaded, tmp_path / name, Progress(), **options)

    return run


def stable_files(run: Path) -> Mapping[str, bytes]:
    """Everything of a run that must be equal byte by byte whenever and wherever it is made."""
    files = {file.relative_to(run).as_posix(): file.read_bytes() for file in run.rglob("*") if file.is_file()}
    return {name: content for name, content in files.items() if not name.startswith(VOLATILE)}

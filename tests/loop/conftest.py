"""The smallest real run: builtin:tiny, a handful of prompts, one round in about a second."""

from collections.abc import Callable, Mapping
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
    ".lock",
    "report/",
    ".making",
    ".scratch",
    ".scores.sqlite",
    "recipe.yaml",
    "superseded/",
)


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

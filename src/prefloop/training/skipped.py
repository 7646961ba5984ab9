"""Optimiser steps whose loss or gradient is not finite: left out, and kept for whoever wants to know why."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from prefloop.errors import CheckFailedError
from prefloop.training.checkpoint import Metrics
from prefloop.training.engine import Engine, NotFiniteError
from prefloop.training.rows import TokenExample

SKIPPED = "skipped-step-*.json"
IN_A_ROW = 3
"""So many skipped steps one behind the other stop the run."""


def step_or_skip(
    engine: Engine, indices: Sequence[int], learning_rate: float, before: Sequence[Metrics], folder: Path
) -> Metrics:
    """The metrics of an optimiser step.

    Where its loss or gradient is not finite no weight changes; `skipped-step-NUMBER.json` has what it was made of.

    Args:
        engine: that takes the step.
        indices: of its examples.
        learning_rate: of this step.
        before: the metrics of the steps before it.
        folder: for the file.

    Raises:
        CheckFailedError: it is the third in a row that is not finite.
    """
    number = len(before)
    try:
        return {**engine.step(indices, learning_rate, number)}
    except NotFiniteError as found:
        file = folder / SKIPPED.replace("*", f"{number + 1:06d}")
        kept = {"grad_norm": str(found.grad_norm), "examples": list(_examples(found, engine.examples))}
        file.write_text(json.dumps(kept) + "\n", encoding="utf-8")
        if number + 1 >= IN_A_ROW and all("skipped" in line for line in before[number + 1 - IN_A_ROW :]):
            raise CheckFailedError(
                f"training: the loss or its gradient was not finite in {IN_A_ROW} steps in a row, up to step "
                f"{number + 1}; no weight was changed by them. {file} has the examples of the last one. Look at them, "
                "or lower policy.learning_rate."
            ) from found
        engine.notice(f"training: the loss or its gradient is not finite in step {number + 1}, which is skipped")
        return {"skipped": 1}


def keep_skipped(scratch: Path, folder: Path) -> None:
    """Puts the files of skipped steps beside what training made."""
    for file in scratch.glob(SKIPPED):
        (folder / file.name).write_bytes(file.read_bytes())


def _examples(found: NotFiniteError, examples: Sequence[TokenExample]) -> Iterator[dict[str, Any]]:
    """Numbers as text, since JSON has none that are not finite."""
    for place, index in enumerate(found.indices):
        one = examples[index]
        yield {
            "example_id": one.example_id,
            "loss": str(found.losses[place].item()),
            **{name: str(values[place].tolist()) for name, values in found.logps.items()},
            "prompt_ids": list(one.prompt_ids),
            "answer_ids": {key: list(row.answer_ids) for key, row in one.rows.items()},
        }

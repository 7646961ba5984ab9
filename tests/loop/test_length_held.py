"""A recipe that holds length: what it measures, what it writes, what it refuses."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefloop.config import load_recipe
from prefloop.errors import RecipeError
from prefloop.loop import Progress, RunResult, run_recipe
from prefloop.records import Example, Response, read_folder

SmallRun = Callable[..., RunResult]
HELD = (
    "judgments.judge={type: vader, length_bias: 0.01}",
    "policy.objective={name: length_regularized_dpo, alpha: {length_ratio: 1.1, gain: 3}}",
)


def fitted(run: Path, number: int) -> dict[str, Any]:
    return json.loads((run / f"round-{number:02d}" / "policy" / "fitted.json").read_text())["alpha"]


def own_correction(run: Path, number: int) -> float:
    """Recomputed from the records of a round."""
    means = [
        np.mean([answer.num_tokens for answer in read_folder(run / place / "samples", Response)])
        for place in (f"round-{number:02d}", "round-00")
    ]
    gaps = np.array(
        [
            len(example.member("chosen").token_ids or ()) - len(example.member("rejected").token_ids or ())
            for example in read_folder(run / f"round-{number:02d}" / "pairs", Example)
        ]
    )
    return 3 * math.log(means[0] / means[1] / 1.1) / math.sqrt(np.mean(gaps**2))


def test_alpha_follows_the_length_of_the_rounds_own_answers(small_run: SmallRun) -> None:
    run = small_run("rounds=2", *HELD).run

    assert fitted(run, 0)["length_ratio"] == 1
    for number in range(2):
        found = fitted(run, number)
        assert found["target"] == 1.1
        assert found["correction"] == pytest.approx(own_correction(run, number), rel=1e-12)
        assert found["value"] == pytest.approx(found["fitted"] + found["correction"], rel=1e-12)


def test_where_the_reference_stays_the_corrections_add_up(small_run: SmallRun) -> None:
    run = small_run("rounds=2", *HELD, "policy.references={ref: initial}").run

    total = own_correction(run, 0) + own_correction(run, 1)
    assert fitted(run, 1)["correction"] == pytest.approx(total, rel=1e-12)


def test_without_answers_of_its_own_there_is_no_length_to_hold(tmp_path: Path) -> None:
    loaded = load_recipe("dpo.tiny", HELD[1:])
    with pytest.raises(RecipeError, match="policy: it reads answers, but no step before it makes them"):
        run_recipe(loaded, tmp_path / "run", Progress())

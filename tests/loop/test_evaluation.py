"""The evaluation of a round on the smallest real run."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefloop.loop import RunResult
from prefloop.records import Response, read_folder


def board(run: Path, number: int = 0) -> Mapping[str, Any]:
    return json.loads((run / f"round-{number:02d}/evaluation.json").read_text())


@pytest.mark.parametrize(
    ("lora", "start"), [("", 1e-3), ("policy.lora={r: 4, alpha: 8}", 1e-2)], ids=["all weights", "adapter"]
)
def test_kl_is_between_the_policy_that_answered_and_the_initial_one(
    small_run: Callable[..., RunResult], lora: str, start: float
) -> None:
    """The sampler says log pi of every answer on its own; the policy's own reading of them agrees to rounding."""
    run = small_run(*filter(None, (f"policy.learning_rate={start}", "policy.epochs=3", lora))).run
    kl = board(run)["kl"]
    answers = list(read_folder(run / "round-00/evaluation-samples", Response))
    assert kl["n"] == len(answers) == 5
    assert kl["value"] > 1e-4
    assert kl["by_prompt"].keys() == {one.prompt_id for one in answers}
    assert np.mean(list(kl["by_prompt"].values())) == pytest.approx(kl["value"])
    assert kl["k3"]["value"] > 0
    assert kl["k1"]["interval"][0] < kl["value"] < kl["k1"]["interval"][1]
    assert kl["cut"] == 1 - board(run)["finish_rate"]["value"]


def test_an_untrained_policy_is_at_no_distance(small_run: Callable[..., RunResult]) -> None:
    kl = board(small_run("policy.learning_rate=1e-30").run)["kl"]
    assert (kl["value"], kl["k1"]["value"], kl["k3"]["value"]) == (0.0, 0.0, 0.0)

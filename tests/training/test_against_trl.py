"""Our train step beside TRL's trainer, by the script that writes benchmarks/results/same_steps.md."""

import os
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TRL = Path(os.environ.get("PREFLOOP_TRL_PYTHON", ROOT / "build" / "trl" / "bin" / "python"))
HARMLESS = ROOT.parent / "shared" / "data" / "hh_harmless_test.jsonl.gz"

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(not TRL.is_file(), reason="no TRL: benchmarks/trl_environment.sh makes build/trl"),
]


@pytest.fixture
def same_steps() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "benchmarks" / "same_steps.py"))


@pytest.mark.parametrize("layout", ["trees", "rows"])
def test_twenty_steps_of_the_tiny_model_are_those_of_trl(
    layout: str, same_steps: dict[str, Any], tmp_path: Path
) -> None:
    """From log 2 to below 0.1 at a rate of 1e-3: whatever differs adds up. Rewards and log-probabilities move by
    0.6 and 400 nats; float32 leaves 7e-4 and 7e-3 of that."""
    steps = same_steps["both"](same_steps["Task"](layout=same_steps["LAYOUTS"][layout]), str(TRL), tmp_path)
    assert len(steps.ours) == len(steps.trl) == 20
    assert steps.our_ids == steps.trl_ids
    assert min(one["loss"] for one in steps.ours) < 0.1
    assert steps.furthest("loss") < 1e-4
    assert steps.furthest("rewards/margins") < 2e-3
    assert steps.furthest("rewards/chosen") < 2e-3
    assert steps.furthest("logps/chosen") < 2e-2
    assert steps.furthest("logps/rejected") < 2e-2
    gradients = [
        abs(own["grad_norm"] / other["grad_norm"] - 1) for own, other in zip(steps.ours, steps.trl, strict=True)
    ]
    assert max(gradients) < 1e-3


@pytest.mark.slow
def test_four_steps_of_smollm2_are_those_of_trl(same_steps: dict[str, Any], tmp_path: Path) -> None:
    task = same_steps["Task"](model="builtin:smollm2-135m-instruct", pairs=16, epochs=1, rate=1e-5)
    if HARMLESS.is_file():
        task = replace(task, data=str(HARMLESS))
    steps = same_steps["both"](task, str(TRL), tmp_path)
    assert len(steps.ours) == len(steps.trl) == 4
    assert steps.our_ids == steps.trl_ids
    assert steps.furthest("loss") < 1e-4
    assert steps.furthest("rewards/margins") < 1e-3


@pytest.mark.parametrize("trainer", ["sft", "kto", "reward"])
@pytest.mark.parametrize("layout", ["trees", "rows"])
def test_ten_steps_of_the_other_trainers_are_those_of_trl(
    trainer: str, layout: str, same_steps: dict[str, Any], tmp_path: Path
) -> None:
    """Rates of 1e-3: losses fall by 3 nats a token, by 0.27 and by 0.13."""
    steps = same_steps["both"](same_steps["Task"].ten_steps(trainer, same_steps["LAYOUTS"][layout]), str(TRL), tmp_path)
    assert len(steps.ours) == len(steps.trl) == 10
    assert steps.our_ids == steps.trl_ids
    assert steps.ours[-1]["loss"] < 0.85 * steps.ours[0]["loss"]
    assert steps.furthest("loss") < 1e-4
    gradients = [
        abs(own["grad_norm"] / other["grad_norm"] - 1) for own, other in zip(steps.ours, steps.trl, strict=True)
    ]
    assert max(gradients) < 1e-4

"""The translations of docs/python.md beside TRL's own trainers, on the same rows (`datasets.Dataset`)."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TRL = Path(os.environ.get("PREFLOOP_TRL_PYTHON", ROOT / "build" / "trl" / "bin" / "python"))

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(not TRL.is_file(), reason="no TRL: benchmarks/trl_environment.sh makes build/trl"),
]
Logs = dict[str, dict[str, list[dict[str, Any]]]]


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Logs:
    """What both sides logged, by trainer."""
    command = [str(TRL), str(Path(__file__).with_name("trl_page.py")), str(ROOT / "docs" / "python.md")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=tmp_path_factory.mktemp("trl"), env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def furthest(logs: Logs, trainer: str, name: str) -> float:
    """Largest difference in a column over all steps."""
    both = zip(logs[trainer]["ours"], logs[trainer]["trl"], strict=True)
    return max(abs(float(one[name]) - float(other[name])) for one, other in both)


def test_dpo_is_the_same_training(logs: Logs) -> None:
    """All rows in every step, so that their order does not matter."""
    assert len(logs["DPOTrainer"]["ours"]) == 4
    assert logs["DPOTrainer"]["ours"][-1]["loss"] < 0.5
    assert furthest(logs, "DPOTrainer", "loss") < 1e-4
    assert furthest(logs, "DPOTrainer", "rewards/margins") < 1e-3


def test_kto_is_the_same_but_for_the_answers_that_the_kl_is_estimated_by(logs: Logs) -> None:
    ours, trl = logs["KTOTrainer"]["ours"], logs["KTOTrainer"]["trl"]

    assert ours[0]["loss"] == pytest.approx(float(trl[0]["loss"]), abs=1e-4)
    assert furthest(logs, "KTOTrainer", "loss") < 1e-3
    assert ours[-1]["loss"] < ours[0]["loss"] - 0.05


def test_reward_models_learn_the_same_rows(logs: Logs) -> None:
    """Their heads begin at other random numbers."""
    for side in ("ours", "trl"):
        steps = logs["RewardTrainer"][side]
        assert float(steps[-1]["loss"]) < float(steps[0]["loss"]) - 0.05


def test_online_dpo_takes_as_many_steps_on_answers_of_its_own(logs: Logs) -> None:
    """They draw other answers; at policy = reference both begin at log 2."""
    ours, trl = logs["OnlineDPOTrainer"]["ours"], logs["OnlineDPOTrainer"]["trl"]

    assert len(ours) == len(trl) == 2
    assert ours[0]["loss"] == pytest.approx(0.693147, abs=1e-4)
    assert float(trl[0]["loss"]) == pytest.approx(0.6931, abs=2e-4)

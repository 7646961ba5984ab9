"""A real run that is driven too hard alarms, and its healthy twin is silent."""

import json
from pathlib import Path

import pytest

from prefloop.config import load_recipe
from prefloop.loop import Progress, run_recipe


def alerts(tmp_path: Path, *overrides: str) -> list[str]:
    loaded = load_recipe("quickstart.tiny", ["rounds=1", "evaluation.resamples=100", *overrides])
    run = run_recipe(loaded, tmp_path / "run", Progress()).run
    summary = json.loads((run / "round-00" / "summary.json").read_text())
    return [alert["monitor"] for alert in summary["alerts"]]


@pytest.mark.recipes
def test_a_healthy_run_raises_no_alarm(tmp_path: Path) -> None:
    assert alerts(tmp_path) == []


@pytest.mark.recipes
def test_a_collapsed_policy_raises_both_alarms_and_is_rolled_back(tmp_path: Path) -> None:
    planted = ("policy.learning_rate=0.05", "policy.epochs=4", "policy.schedule=constant")

    assert alerts(tmp_path, *planted) == ["collapse", "length"]
    summary = json.loads((tmp_path / "run" / "round-00" / "summary.json").read_text())
    assert summary["decision"] == "rolled_back"

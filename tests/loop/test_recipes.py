"""Every shipped recipe's twin, end to end, with real pairs in it."""

import json
from pathlib import Path
from typing import Any

import pytest

from prefloop.config import load_recipe, shipped_recipes
from prefloop.loop import Progress, run_recipe
from prefloop.records import Example, read_folder

TWINS = [name for name in shipped_recipes() if name.endswith(".tiny")]


@pytest.mark.recipes
@pytest.mark.parametrize("name", TWINS)
def test_a_twin_runs_end_to_end_and_trains_on_real_pairs(name: str, tmp_path: Path) -> None:
    loaded = load_recipe(name, ["machine.threads=1", "evaluation.resamples=200"])

    done = run_recipe(loaded, tmp_path / "run", Progress())

    for number in range(loaded.recipe.rounds):
        folder = done.run / f"round-{number:02d}"
        examples = list(read_folder(folder / "pairs", Example))
        assert len(examples) >= 20
        assert all(example.member("chosen").text != example.member("rejected").text for example in examples)
        losses = [json.loads(line)["loss"] for line in (folder / "policy" / "training.jsonl").read_text().splitlines()]
        assert min(losses[1:]) < losses[0]
        assert json.loads((folder / "summary.json").read_text())["round"] == number


def final_truth(tmp_path: Path, *overrides: str) -> dict[str, Any]:
    loaded = load_recipe("quickstart.tiny", ["machine.threads=1", "evaluation.num_samples=2", *overrides])
    done = run_recipe(loaded, tmp_path / "run", Progress())
    last = json.loads((done.run / f"round-{loaded.recipe.rounds - 1:02d}" / "evaluation.json").read_text())
    return last["against"]["initial"]["truth"]


@pytest.mark.slow
def test_a_policy_that_hardly_moves_wins_half_of_the_time(tmp_path: Path) -> None:
    loaded = load_recipe(
        "quickstart.tiny", ["machine.threads=1", "policy.learning_rate=1e-12", "evaluation.num_samples=2"]
    )
    done = run_recipe(loaded, tmp_path / "run", Progress())

    for number in range(loaded.recipe.rounds):
        board = json.loads((done.run / f"round-{number:02d}" / "evaluation.json").read_text())
        for opponent in board["against"].values():
            for duel in opponent.values():
                assert abs(duel["win_rate"] - 50) < 3.5 * duel["standard_error"]


@pytest.mark.slow
def test_what_the_judge_rewards_is_what_is_learnt(tmp_path: Path) -> None:
    learnt = final_truth(tmp_path / "as-it-is")
    negated = final_truth(tmp_path / "negated", "judgments.judge.negate=true")

    assert learnt["interval"][0] > 50
    assert negated["interval"][1] < 50

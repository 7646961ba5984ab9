"""Every shipped recipe's twin, end to end, with real pairs in it."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from prefloop.config import compose_recipe, load_recipe, recipe_layers, shipped_recipes
from prefloop.loop import Progress, run_recipe
from prefloop.records import Example, read_folder
from prefloop.report import write_report

EVERY_TWIN = [name for name in shipped_recipes() if name.endswith(".tiny")]
OFFLINE_TWINS = [
    name
    for name in EVERY_TWIN
    if name not in {"offline.tiny", "dpo.tiny"}
    and recipe_layers(name)[0].where == "recipe offline"
    and compose_recipe(name.removesuffix(".tiny")).raw["pairs"]["rule"]
    in {"given", "unpaired", "demonstrations", "degraded"}
]
"""They see all of their pairs in every step, so that the losses of steps can be compared."""
POLICY_GRADIENTS = {"ppo.tiny", "rloo.tiny", "nash_md.tiny"}
"""They learn from single answers, by losses that say nothing of their own; each has a test of its own."""
JUDGED_BY_SMOLLM2 = {"dno_llm.tiny", "oaif_llm.tiny", "step_dpo_llm.tiny"}
"""About a few answers only: it is a hundred times the size of the twin."""
TWINS = [name for name in EVERY_TWIN if name not in {*OFFLINE_TWINS, *POLICY_GRADIENTS, "reward_model.tiny"}]
EVERY_TIME = {"ilr_dpo.tiny", "loop.tiny", "oaif.tiny", "quickstart.tiny"}
"""The steps of the others, which are `slow` ones here, also run in the tests of their systems."""
LOSS_MOVES = {"alpha_dpo.tiny", "wpo.tiny"}
"""The margin that is asked for, or the weights, follow from the policy itself: two steps do not share one loss."""
MARGIN_FALLS = {"discopop.tiny"}
"""Its loss falls with the margin where training begins, at policy = reference (slope +0.78 at tau 0.05)."""


@pytest.mark.recipes
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in EVERY_TIME)) for name in TWINS]
)
def test_a_twin_runs_end_to_end_and_trains_on_real_pairs(name: str, tmp_path: Path) -> None:
    loaded = load_recipe(name, ["machine.threads=1", "evaluation.resamples=200"])

    done = run_recipe(loaded, tmp_path / "run", Progress())

    for number in range(loaded.recipe.rounds):
        folder = done.run / f"round-{number:02d}"
        examples = [one for pairs in sorted(folder.rglob("pairs")) for one in read_folder(pairs, Example)]
        assert len(examples) >= (8 if name in JUDGED_BY_SMOLLM2 else 20)
        for texts in ({member.role: member.text for member in example.members} for example in examples):
            assert texts["chosen"] != texts.get("rejected")
        lines = [
            line for file in sorted(folder.rglob("policy/training.jsonl")) for line in file.read_text().splitlines()
        ]
        losses = [json.loads(line)["loss"] for line in lines]
        assert min(losses[1:]) < losses[0]
        assert json.loads((folder / "summary.json").read_text())["round"] == number


@pytest.mark.recipes
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name == "dpo_avoid_topics.tiny")) for name in OFFLINE_TWINS],
)
def test_a_twin_of_an_offline_method_learns_its_pairs(name: str, tmp_path: Path) -> None:
    done = run_recipe(load_recipe(name), tmp_path / "run", Progress())

    training = done.run / "round-00" / "policy" / "training.jsonl"
    first, *_, last = (json.loads(line) for line in training.read_text().splitlines())
    assert last["loss"] < first["loss"] or name in LOSS_MOVES
    if "logps/rejected" in first:
        gain = (last["logps/chosen"] - last["logps/rejected"]) - (first["logps/chosen"] - first["logps/rejected"])
        assert gain < -0.4 if name in MARGIN_FALLS else gain > 0.4
    elif "logps/response" in first:
        assert (first["rewards/accuracies"], last["rewards/accuracies"] > 0.7) == (0.5, True)
    else:
        assert last["logps/chosen"] > first["logps/chosen"] + 0.4


@pytest.mark.recipes
def test_the_twin_of_the_reward_model_trains_two_that_tell_held_out_pairs_apart(tmp_path: Path) -> None:
    done = run_recipe(load_recipe("reward_model.tiny"), tmp_path / "run", Progress())

    folder = done.run / "round-00" / "reward_model"
    for model in (folder, folder / "member-01"):
        first, *_, last = (json.loads(line) for line in (model / "training.jsonl").read_text().splitlines())
        about = json.loads((model / "reward_model.json").read_text())
        assert last["loss"] < first["loss"] - 0.2
        assert about["accuracy"] > 0.5
        assert about["interval"][0] <= about["accuracy"] <= about["interval"][1]
    page = write_report(done.run).read_text(encoding="utf-8")
    assert "Reward models on pairs that were kept apart" in page
    assert '<th scope="row">round-00/reward_model/member-01</th>' in page


def rollout_scores(run: Path, block: int) -> list[float]:
    """What the answers were paid that an update learnt from."""
    examples = read_folder(run / f"round-00/block-{block:02d}/pairs", Example)
    return [member.numbers["score"] for one in examples for member in one.members]


@pytest.mark.recipes
def test_the_policy_of_nash_md_comes_to_win_against_where_it_started(tmp_path: Path) -> None:
    done = run_recipe(load_recipe("nash_md.tiny", ["evaluation.resamples=200"]), tmp_path / "run", Progress())

    for block in range(6):
        examples = list(read_folder(done.run / f"round-00/block-{block:02d}/pairs", Example))
        chances = [one.member("response").numbers["win_prob"] for one in examples]
        assert len(chances) == 72
        assert 0.25 < sum(chances) / len(chances) < 0.75  # against a mixture that follows it
    board = json.loads((done.run / "round-00/evaluation.json").read_text())
    assert board["against"]["initial"]["judge"]["interval"][0] > 50


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ppo.tiny", "rloo.tiny"])
def test_the_reward_of_a_policy_gradient_rises_at_bounded_kl_which_a_dearer_nat_of_kl_bounds_more(
    name: str, tmp_path: Path
) -> None:
    kls: dict[str, float] = {}
    for kl_coef in ("0.05", "1.0"):
        loaded = load_recipe(name, [f"policy.objective.kl_coef={kl_coef}", "evaluation.resamples=100"])
        run = run_recipe(loaded, tmp_path / kl_coef, Progress()).run
        board = json.loads((run / "round-00/evaluation.json").read_text())
        kls[kl_coef] = board["kl"]["value"]
        if kl_coef == "0.05":
            first, last = rollout_scores(run, 0), rollout_scores(run, 7)
            assert (len(first), len(last)) == (96, 96)
            assert sum(last) / len(last) > sum(first) / len(first) + 0.2
            assert board["against"]["initial"]["judge"]["interval"][0] > 50
            assert 0.2 < kls[kl_coef] < 5
            if name == "ppo.tiny":  # values are learnt, and go on from block to block
                folders = [run / f"round-00/block-{block:02d}/policy" for block in (0, 7)]
                values = [load_file(folder / "heads.safetensors")["token_values.weight"] for folder in folders]
                assert 0 < float(values[0].norm()) < float(values[1].norm())
    assert kls["1.0"] < kls["0.05"] / 2


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

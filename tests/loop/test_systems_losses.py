"""What makes a loss what it is acts: the second optimiser step's loss, by hand from weights after the first.

Losses of a step are those before it, and every step has all pairs, so that two runs tell it: one ends after a step, and
its policy is read; the other goes on from there.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from prefloop.config import load_recipe
from prefloop.loop import Progress, run_recipe
from prefloop.policy import ChatCodec, EncodingSettings, TokenRow, resolve_model
from prefloop.policy.exported_policy import whole_policy
from prefloop.records import Example, read_folder
from prefloop.training import tokenised
from prefloop.training.layout import scores_of_rows

pytestmark = pytest.mark.recipes

STEADY = (
    "machine.threads=1", "policy.batch_size=256", "policy.learning_rate=1e-3", "policy.schedule=constant",
    "policy.warmup=0",
)  # fmt: skip


def ran(name: str, run: Path, *overrides: str, until: str = "policy") -> Path:
    loaded = load_recipe(f"{name}.tiny", [*STEADY, *overrides])
    return run_recipe(loaded, run, Progress(), until=until).run / "round-00"


def losses(folder: Path, step: str = "policy") -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / step / "training.jsonl").read_text().splitlines()]


@dataclass(frozen=True)
class Side:
    """One answer of a pair: log-probabilities of its tokens."""

    trained: Tensor
    start: Tensor
    score: float

    @property
    def moved(self) -> Tensor:
        return self.trained - self.start


def after_a_step(name: str, run: Path, *overrides: str) -> tuple[float, list[tuple[Side, Side]]]:
    """The loss of the second step, and what both sides of every pair are to the policy after the first."""
    once = ran(name, run / "once", *overrides, "policy.epochs=1")
    twice = ran(name, run / "twice", *overrides, "policy.epochs=2")
    codec = ChatCodec.load(resolve_model("builtin:tiny").directory, {})
    pairs = list(read_folder(once / "pairs", Example))
    tokens, _ = tokenised(pairs, codec, EncodingSettings(512))
    models = [whole_policy(spec).model for spec in (str(once / "policy" / "model"), "builtin:tiny")]
    sides: list[list[Side]] = []
    for role in ("chosen", "rejected"):
        rows = [one.rows[role] for one in tokens]
        trained, start = ([*of_tokens(model, rows)] for model in models)
        scores = [one.member_numbers[role].get("score", 0.0) for one in tokens]
        sides.append([Side(*of_one) for of_one in zip(trained, start, scores, strict=True)])
    return losses(twice)[1], list(zip(*sides, strict=True))


def of_tokens(model: Any, rows: Sequence[TokenRow]) -> Iterable[Tensor]:
    with torch.no_grad():
        said = scores_of_rows(model, rows, {"token_logps"})["token_logps"]
    return (line[: len(row.answer_ids)].double() for line, row in zip(said, rows, strict=True))


def of_margins(margins: Iterable[float]) -> float:
    """Mean of -log sigmoid."""
    return float(np.mean(np.logaddexp(0, -np.array([*margins]))))


@pytest.mark.system("simpo")
def test_simpo_compares_mean_log_probabilities_with_a_margin_and_without_a_reference(tmp_path: Path) -> None:
    """The loss is that of mean log-probabilities of tokens times beta less gamma, of the trained policy alone; it is
    another one without gamma."""
    found, pairs = after_a_step("simpo", tmp_path)
    ahead = [2 * float(chosen.trained.mean() - rejected.trained.mean()) for chosen, rejected in pairs]
    assert found == pytest.approx(of_margins(one - 1 for one in ahead), abs=1e-4)
    assert abs(found - of_margins(ahead)) > 0.1
    about = json.loads((tmp_path / "once/round-00/policy/policy.json").read_text())
    assert about["references"] == {}


@pytest.mark.system("ld_dpo")
def test_the_tail_of_the_longer_answer_counts_half(tmp_path: Path) -> None:
    """The loss is that of log-ratios in which tokens behind the shorter length are halved, not that of whole ones."""
    found, pairs = after_a_step("ld_dpo", tmp_path, "policy.objective.beta=2")

    def ahead(weight: float) -> Iterable[float]:
        for chosen, rejected in pairs:
            shared = min(len(chosen.moved), len(rejected.moved))
            sums = [float(one.moved[:shared].sum() + weight * one.moved[shared:].sum()) for one in (chosen, rejected)]
            yield 2 * (sums[0] - sums[1])

    assert found == pytest.approx(of_margins(ahead(0.5)), abs=1e-4)
    assert abs(found - of_margins(ahead(1.0))) > 1e-3


@pytest.mark.system("length_normalized_dpo")
def test_log_ratios_are_means_over_tokens(tmp_path: Path) -> None:
    """The loss is that of beta times the difference of mean log-ratios of tokens; of sums it would be another one."""
    found, pairs = after_a_step("length_normalized_dpo", tmp_path, "policy.objective.beta=20")
    means = [20 * float(chosen.moved.mean() - rejected.moved.mean()) for chosen, rejected in pairs]
    lengths = np.mean([len(one.moved) for two in pairs for one in two])
    sums = [20 * float(chosen.moved.sum() - rejected.moved.sum()) / lengths for chosen, rejected in pairs]
    assert found == pytest.approx(of_margins(means), abs=1e-4)
    assert abs(found - of_margins(sums)) > 1e-3


@pytest.mark.system("odpo")
def test_the_margin_that_is_asked_for_grows_with_the_gap_in_score(tmp_path: Path) -> None:
    """The loss is that of DPO's margin less alpha times the logarithm of the gap in score; with alpha 0 it is DPO's."""
    found, pairs = after_a_step("odpo", tmp_path)
    margins = [0.1 * float(chosen.moved.sum() - rejected.moved.sum()) for chosen, rejected in pairs]
    offsets = [log(chosen.score - rejected.score) for chosen, rejected in pairs]
    asked = of_margins(margin - offset for margin, offset in zip(margins, offsets, strict=True))
    assert found == pytest.approx(asked, abs=1e-4)
    assert abs(found - of_margins(margins)) > 1e-3


@pytest.mark.system("reward_model")
def test_a_reward_model_learns_which_answer_is_better_and_is_held_near_0(tmp_path: Path) -> None:
    """Of the pairs that it learns the better answer is ahead in nine of ten after training, in a third before; where
    centring is dear, both answers end within 0.2 of 0 in the mean, where it is free they do not."""

    def trained(center_coef: int) -> list[dict[str, float]]:
        few = ("reward_model.ensemble=1", "reward_model.batch_size=256", "reward_model.epochs=30")
        loaded = load_recipe("reward_model.tiny", [*few, f"reward_model.objective.center_coef={center_coef}"])
        run = run_recipe(loaded, tmp_path / f"{center_coef}", Progress(), until="reward_model").run
        lines = (run / "round-00/reward_model/training.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    free, dear = trained(0), trained(1)
    assert [steps[0]["rewards/accuracies"] for steps in (free, dear)] == pytest.approx([0.32, 0.32], abs=0.01)
    assert free[-1]["rewards/accuracies"] > 0.9
    middle = [abs(steps[-1]["rewards/chosen"] + steps[-1]["rewards/rejected"]) / 2 for steps in (free, dear)]
    assert middle[1] < 0.2
    assert middle[0] > 1
    assert free[0]["loss"] == pytest.approx(log(2), abs=0.01)


@pytest.mark.system("ppo")
def test_ppo_pays_the_last_token_and_values_learn_what_was_still_to_come(tmp_path: Path) -> None:
    """Where training begins, policy and initial model are one and values are 0: the loss is vf_coef / 2 times the mean
    square of lam^(tokens to come) times the score, and 0 without a value loss. Without scores nothing is learnt."""
    few = ("blocks=1", "prompts.count=8", "policy.epochs=1")
    run = ran("ppo", tmp_path / "run", *few)
    blind = ran("ppo", tmp_path / "blind", *few, "policy.objective.vf_coef=0")
    squares: list[float] = []
    for one in read_folder(run / "pairs", Example):
        (answer,) = one.members
        to_come = np.arange(len(answer.token_ids or ()))
        squares += [(0.95**steps * answer.numbers["score"]) ** 2 for steps in to_come]
    assert losses(run)[0] == pytest.approx(0.1 / 2 * np.mean(squares), abs=1e-5)
    assert losses(blind)[0] == pytest.approx(0, abs=1e-5)

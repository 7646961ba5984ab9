"""Advantages of PPO and RLOO on stored rollouts, beside TRL's."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from prefloop.objectives import ppo_terms, rloo_terms
from prefloop.policy import resolve_model

ROOT = Path(__file__).parents[2]
TRL = Path(os.environ.get("PREFLOOP_TRL_PYTHON", ROOT / "build" / "trl" / "bin" / "python"))
PPO_SOURCE = TRL.parents[1] / "with_ppo" / "ppo_trainer.py"

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(not PPO_SOURCE.is_file(), reason="no TRL: benchmarks/trl_environment.sh makes build/trl"),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    script = Path(__file__).with_name("trl_rollouts.py")
    command = [str(TRL), str(script), str(resolve_model("builtin:tiny").directory), str(PPO_SOURCE)]
    done = subprocess.run(
        command, cwd=tmp_path_factory.mktemp("trl"), capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def by_prompt(values: list[float]) -> Tensor:
    """Four samples a prompt."""
    return torch.tensor(values, dtype=torch.float64).view(-1, 4)


@pytest.mark.parametrize("normalize", [False, True])
def test_advantages_and_losses_of_rloo_are_those_of_trls_trainer(normalize: bool, found: dict[str, Any]) -> None:
    """Of every generation; and of both optimiser steps on it, the second of which is clipped in places."""
    run = found["rloo"][normalize]
    assert len(run["rollouts"]) == 3
    everyone = torch.ones(4, 4, dtype=torch.bool)
    for one in run["rollouts"]:
        old, ref, scores = (by_prompt(one[name]) for name in ("old", "ref", "scores"))
        terms = rloo_terms(
            old, old, ref, scores, everyone, kl_coef=run["beta"], normalize_advantages=normalize, cliprange=None
        )
        torch.testing.assert_close(terms.advantages, by_prompt(one["advantages"]), rtol=1e-5, atol=1e-5)
    assert (
        max(abs(old - ref) for old, ref in zip(run["rollouts"][2]["old"], run["rollouts"][2]["ref"], strict=True)) > 0.1
    )
    told = {json.dumps(sorted(one["old"])): one for one in run["rollouts"]}
    clipped = 0
    for step in run["steps"]:
        one = told[json.dumps(sorted(step["old_logps"]))]
        place = {value: number for number, value in enumerate(one["old"])}
        rows = torch.empty(16, dtype=torch.float64)
        rows[[place[value] for value in step["old_logps"]]] = torch.tensor(step["policy"], dtype=torch.float64)
        old, ref, scores = (by_prompt(one[name]) for name in ("old", "ref", "scores"))
        terms = rloo_terms(
            rows.view(4, 4), old, ref, scores, everyone, kl_coef=run["beta"], normalize_advantages=normalize,
            cliprange=run["epsilon"],
        )  # fmt: skip
        assert terms.of_examples(everyone).mean().item() == pytest.approx(step["loss"], abs=2e-5)
        clipped += int(((rows.view(4, 4) - old).exp() - 1).abs().gt(run["epsilon"]).sum())
    assert clipped > 0


def test_rewards_advantages_and_returns_of_ppo_are_those_of_trls_last_trainer(found: dict[str, Any]) -> None:
    """Of answers that fill the length; behind a shorter one TRL pays the score one place after its EOS."""
    for case in found["ppo"]:
        old, ref, values = (torch.tensor(case[name]) for name in ("logprobs", "ref_logprobs", "values"))
        terms = ppo_terms(
            old, old, ref, values, values, torch.tensor(case["scores"]), torch.ones_like(old, dtype=torch.bool),
            kl_coef=0.3, kl_estimator=case["estimator"], gamma=0.9, lam=0.8, cliprange=0.2, cliprange_value=0.2,
            whiten_advantages=True, whiten_rewards=case["whiten_rewards"],
        )  # fmt: skip
        for ours, theirs in (
            (terms.token_rewards, "rewards"),
            (terms.used_advantages, "advantages"),
            (terms.returns, "returns"),
        ):
            torch.testing.assert_close(ours, torch.tensor(case[theirs]), rtol=1e-5, atol=1e-5)

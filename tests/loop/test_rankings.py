"""A loop that trains on rankings of all answers of a prompt."""

import json
from collections.abc import Callable
from math import lgamma

import pytest

from prefloop.loop.run import RunResult
from prefloop.records import Example, read_folder

SmallRun = Callable[..., RunResult]
RANKINGS = ("pairs=ranking", "policy.objective=plackett_luce_dpo", "policy.batch_size=64", "rounds=1")


def test_the_first_loss_of_a_ranking_is_the_logarithm_of_its_orders(small_run: SmallRun) -> None:
    """At the reference every order of K answers is as likely: log K!, of all examples of the step."""
    run = small_run(*RANKINGS).run
    examples = list(read_folder(run / "round-00" / "pairs", Example))
    sizes = [len(one.members) for one in examples]
    assert max(sizes) > 2
    assert {member.role for one in examples for member in one.members} == {"ranked"}
    first = json.loads((run / "round-00" / "policy" / "training.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["examples"] == len(examples)
    assert first["loss"] == pytest.approx(sum(lgamma(size + 1) for size in sizes) / len(sizes), abs=1e-4)
    assert first["rewards/accuracies"] == 0.5

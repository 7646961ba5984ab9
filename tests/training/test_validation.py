"""Examples that are only measured: what is said of them, and that training does not notice."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from prefloop.policy import PolicyFiles, Workbench, response_logps
from prefloop.training import TokenExample, TrainRequest, train

RequestFor = Callable[..., TrainRequest]


def silent(_what: str, _done: int, _count: int) -> None:
    pass


def weights(folder: Path) -> bytes:
    (file,) = folder.glob("*model.safetensors")
    return file.read_bytes()


def test_before_training_the_loss_is_log_2_and_after_it_what_the_policy_says(
    request_for: RequestFor, bench: Workbench, examples: list[TokenExample], tmp_path: Path
) -> None:
    """Log-probabilities and the loss are worked out again from the written policy, within float32 rounding."""
    request = replace(request_for("run"), examples=examples[:4], validation=examples[4:])
    train(request, bench, tmp_path / "out", silent)

    found = json.loads((tmp_path / "validation.json").read_text())

    assert found["examples"] == 3
    held = examples[4:]
    mean_weight = sum(example.weight for example in held) / 3
    assert found["before"]["loss"] == pytest.approx(mean_weight * math.log(2), abs=1e-5)
    assert found["before"]["rewards/accuracies"] == 0.5
    scores = {}
    for name, policy in (("ref", request.start), ("policy", PolicyFiles("end", tmp_path / "out"))):
        with bench.for_scoring(policy) as model, torch.no_grad():
            scores[name] = {
                f"{role}_logps": response_logps(model, [one.rows[role] for one in held])
                for role in ("chosen", "rejected")
            }
    margins = {role: (scores["policy"][role] - scores["ref"][role]).tolist() for role in scores["ref"]}
    losses = [
        example.weight * math.log1p(math.exp(-0.1 * (chosen - rejected)))
        for example, chosen, rejected in zip(held, margins["chosen_logps"], margins["rejected_logps"], strict=True)
    ]
    assert found["after"]["loss"] == pytest.approx(sum(losses) / 3, abs=1e-5)
    assert found["after"]["logps/chosen"] == pytest.approx(float(scores["policy"]["chosen_logps"].mean()), abs=1e-4)
    assert found["after"]["loss"] != found["before"]["loss"]


def test_of_a_mixture_each_source_is_measured(
    request_for: RequestFor, bench: Workbench, examples: list[TokenExample], tmp_path: Path
) -> None:
    """Seven examples in steps of four and three: one of `a` in the first, two in the second."""
    parts = ("a", "b", "b", "b", "a", "b", "a")
    mixed = [replace(example, part=part) for example, part in zip(examples, parts, strict=True)]
    train(replace(request_for("run"), validation=mixed), bench, tmp_path / "out", silent)
    of_a = [example for example in examples if parts[int(example.example_id[1:])] == "a"]
    train(replace(request_for("alone"), validation=of_a), bench, tmp_path / "alone" / "out", silent)

    found, alone = (json.loads((tmp_path / name / "validation.json").read_text()) for name in (".", "alone"))

    after = found["after"]
    assert (after["examples@a"], after["examples@b"]) == (3, 4)
    assert {name: after[f"{name}@a"] for name in alone["after"]} == pytest.approx(alone["after"], abs=1e-5)
    for name in alone["after"]:
        assert after[name] == pytest.approx((3 * after[f"{name}@a"] + 4 * after[f"{name}@b"]) / 7, abs=1e-12)


def test_training_is_the_same_to_the_last_byte_with_and_without_them(
    request_for: RequestFor, bench: Workbench, examples: list[TokenExample], tmp_path: Path
) -> None:
    plain = train(request_for("a"), bench, tmp_path / "a" / "out", silent)
    measured = train(replace(request_for("b"), validation=examples[:3]), bench, tmp_path / "b" / "out", silent)

    assert plain == measured
    assert weights(tmp_path / "a" / "out") == weights(tmp_path / "b" / "out")
    assert not (tmp_path / "a" / "validation.json").exists()


def test_training_that_was_killed_says_the_same(
    request_for: RequestFor, bench: Workbench, examples: list[TokenExample], tmp_path: Path
) -> None:
    def killed(what: str, done: int, _count: int) -> None:
        if (what, done) == ("train", 3):
            raise KeyboardInterrupt

    whole = replace(request_for("whole"), validation=examples[:3])
    train(whole, bench, tmp_path / "whole" / "out", silent)
    again = replace(request_for("again"), validation=examples[:3])
    with pytest.raises(KeyboardInterrupt):
        train(again, bench, tmp_path / "again" / "out", killed)
    train(again, bench, tmp_path / "again" / "out", silent)

    one, other = (json.loads((tmp_path / name / "validation.json").read_text()) for name in ("whole", "again"))
    assert one == other

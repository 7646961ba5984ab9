"""Examples that are only measured: what is said of them, and that training does not notice."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from prefloop.policy import PolicyFiles, Workbench
from prefloop.training import TokenExample, TrainRequest, answer_scores, train

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
        with bench.for_scoring(policy) as model:
            scores[name] = answer_scores(model, held, ("chosen", "rejected"))
    margins = {role: (scores["policy"][role] - scores["ref"][role]).tolist() for role in scores["ref"]}
    losses = [
        example.weight * math.log1p(math.exp(-0.1 * (chosen - rejected)))
        for example, chosen, rejected in zip(held, margins["chosen_logps"], margins["rejected_logps"], strict=True)
    ]
    assert found["after"]["loss"] == pytest.approx(sum(losses) / 3, abs=1e-5)
    assert found["after"]["logps/chosen"] == pytest.approx(float(scores["policy"]["chosen_logps"].mean()), abs=1e-4)
    assert found["after"]["loss"] != found["before"]["loss"]


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

"""Validation during training: what is measured when, which step is written out, and when going on is given up."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from prefloop.config import LoraConfig, ObjectiveConfig, TrainStep, load_recipe
from prefloop.errors import RecipeError
from prefloop.loop import Progress, run_recipe
from prefloop.loop.wiring import rehearse
from prefloop.objectives import find_objective
from prefloop.policy import PolicyFiles, Workbench, response_logps
from prefloop.training import BlockOfRound, TokenExample, TrainRequest, train
from prefloop.training.best import best_step, is_given_up, is_measured_after

RequestFor = Callable[..., TrainRequest]
LOSS = "eval_loss"
ACCURACY = "eval_rewards/accuracies"


def silent(_what: str, _done: int, _count: int) -> None:
    pass


def settings(**changed: Any) -> TrainStep:
    return TrainStep(type="train", objective=ObjectiveConfig(name="dpo"), **changed)


def turned(examples: list[TokenExample]) -> list[TokenExample]:
    """The same pairs preferred the other way round: each step that learns the pairs is worse on these."""
    return [
        replace(one, rows={"chosen": one.rows["rejected"], "rejected": one.rows["chosen"]}, example_id=f"t{number}")
        for number, one in enumerate(examples)
    ]


def measuring(request: TrainRequest, validation: list[TokenExample], **changed: Any) -> TrainRequest:
    told = TrainStep.model_validate({**request.settings.model_dump(), **changed})
    return replace(request, settings=told, validation=validation)


def weights(folder: Path) -> bytes:
    (file,) = folder.glob("*model.safetensors")
    return file.read_bytes()


def evaluated(lines: list[dict[str, float | int]]) -> list[int]:
    return [int(line["step"]) for line in lines if LOSS in line]


# ------------------------------------------------------------------------------------------------------- the choice


def lines_of(metric: str, *values: float | None) -> list[dict[str, float | int]]:
    """A line a step; None where nothing was measured after it."""
    return [{"loss": 1.0} if value is None else {"loss": 1.0, metric: value} for value in values]


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        (LOSS, (None, 0.7, None, 0.6, None, 0.65), 4),
        (LOSS, (0.5, 0.5, 0.6), 1),
        (ACCURACY, (0.5, 0.7, 0.7, 0.6), 2),
        ("eval_rewards/margins", (-1.0, 0.2, 0.1), 2),
        (LOSS, (math.nan, 0.7, 0.8), 2),
        (ACCURACY, (0.4, math.nan, 0.6), 3),
        (LOSS, (math.nan, math.inf), None),
        (LOSS, (None, None), None),
    ],
)
def test_the_best_step_is_the_first_with_the_best_value(
    metric: str, values: tuple[float | None, ...], best: int | None
) -> None:
    told = settings(eval_steps=1, metric_for_best_model=metric)
    assert best_step(told, lines_of(metric, *values)) == best
    assert best_step(settings(eval_steps=1), lines_of(metric, *values)) is None


@pytest.mark.parametrize(
    ("values", "given_up"),
    [
        ((0.7,), False),
        ((0.7, 0.8), False),
        ((0.7, 0.8, 0.7), True),  # as good is not better
        ((0.7, None, 0.8, None, None, 0.9), True),  # measurements are counted, not steps
        ((0.7, 0.8, 0.6, 0.65), False),
        ((math.nan, math.nan), True),
    ],
)
def test_after_two_measurements_without_a_better_one_it_is_given_up(
    values: tuple[float | None, ...], given_up: bool
) -> None:
    told = settings(eval_steps=1, metric_for_best_model=LOSS, early_stopping_patience=2)
    assert is_given_up(told, lines_of(LOSS, *values)) is given_up
    assert not is_given_up(settings(eval_steps=1, metric_for_best_model=LOSS), lines_of(LOSS, *values))


def test_it_is_measured_every_so_many_steps_and_at_the_end() -> None:
    assert [step for step in range(1, 9) if is_measured_after(step, 8, settings(eval_steps=3))] == [3, 6, 8]
    assert not any(is_measured_after(step, 8, settings()) for step in range(1, 9))


# --------------------------------------------------------------------------------------------------------- training


def test_measurements_stand_in_the_lines_of_their_steps_and_training_does_not_notice(
    request_for: RequestFor, bench: Workbench, examples: list[TokenExample], tmp_path: Path
) -> None:
    plain = train(request_for("plain", batch_size=2), bench, tmp_path / "plain" / "out", silent)
    request = measuring(request_for("often", batch_size=2), examples[:3], eval_steps=3)
    often = train(request, bench, tmp_path / "often" / "out", silent)

    assert evaluated(often) == [3, 6, 8]
    assert [{key: line[key] for key in line if not key.startswith("eval_")} for line in often] == plain
    assert weights(tmp_path / "plain" / "out") == weights(tmp_path / "often" / "out")
    found = json.loads((tmp_path / "often" / "validation.json").read_text())
    assert found["step"] == 8
    assert {f"eval_{name}": value for name, value in found["after"].items()} == {
        key: value for key, value in often[-1].items() if key.startswith("eval_")
    }
    assert found["after"].keys() >= {"loss", "rewards/accuracies", "rewards/margins", "logps/chosen"}


@pytest.mark.parametrize("lora", [None, LoraConfig(r=4, alpha=8)], ids=["full", "lora"])
def test_the_policy_that_is_written_is_that_of_the_best_step(
    request_for: RequestFor,
    bench: Workbench,
    examples: list[TokenExample],
    tmp_path: Path,
    lora: LoraConfig | None,
) -> None:
    """On turned pairs step 2 is the best that is measured; its loss is worked out again from the written weights."""
    held = turned(examples)
    request = measuring(
        request_for("run", batch_size=2, lora=lora, checkpoint_steps=100),
        held,
        eval_steps=2,
        metric_for_best_model=LOSS,
    )
    lines = train(request, bench, tmp_path / "out", silent)

    losses = {step: lines[step - 1][LOSS] for step in evaluated(lines)}
    assert min(losses, key=losses.__getitem__) == 2
    assert len(lines) == 8
    found = json.loads((tmp_path / "validation.json").read_text())
    assert (found["step"], found["after"]["loss"]) == (2, losses[2])
    end = PolicyFiles("end", request.start.directory if lora else tmp_path / "out", tmp_path / "out" if lora else None)
    scores = {}
    for name, policy in (("ref", request.start), ("policy", end)):
        with bench.for_scoring(policy) as model, torch.no_grad():
            scores[name] = {
                f"{role}_logps": response_logps(model, [one.rows[role] for one in held])
                for role in ("chosen", "rejected")
            }
    ahead = {role: scores["policy"][role] - scores["ref"][role] for role in scores["ref"]}
    margins = (ahead["chosen_logps"] - ahead["rejected_logps"]).tolist()
    mean = sum(one.weight * math.log1p(math.exp(-0.1 * margin)) for one, margin in zip(held, margins, strict=True)) / 7
    assert mean == pytest.approx(losses[2], abs=1e-5)
    assert abs(mean - losses[8]) > 1e-3


def test_where_the_last_step_is_the_best_nothing_is_put_back(
    request_for: RequestFor, bench: Workbench, examples: list[TokenExample], tmp_path: Path
) -> None:
    plain = measuring(request_for("plain", batch_size=2), examples)
    best = measuring(request_for("best", batch_size=2), examples, eval_steps=2, metric_for_best_model=LOSS)
    train(plain, bench, tmp_path / "plain" / "out", silent)
    train(best, bench, tmp_path / "best" / "out", silent)

    assert json.loads((tmp_path / "best" / "validation.json").read_text())["step"] == 8
    assert weights(tmp_path / "plain" / "out") == weights(tmp_path / "best" / "out")


def test_training_ends_when_patience_does_and_hands_the_best_step_to_the_next_block(
    request_for: RequestFor, bench: Workbench, examples: list[TokenExample], tmp_path: Path
) -> None:
    """Best after step 1, given up after step 3; the next block counts its steps, and its start is what was written."""
    told = {"eval_steps": 1, "metric_for_best_model": LOSS, "early_stopping_patience": 2, "warmup_steps": 4}
    told |= {"warmup": None, "schedule": "constant"}
    first = measuring(
        request_for("first", batch_size=2, block=BlockOfRound(0, 2, None), checkpoint_steps=100),
        turned(examples),
        **told,
    )
    lines = train(first, bench, tmp_path / "first" / "model", silent)
    assert evaluated(lines) == [1, 2, 3]

    (state,) = (tmp_path / "first").glob("checkpoint-*/state.safetensors")
    assert state.parent.name == "checkpoint-00000001"
    kept, written = load_file(state), load_file(tmp_path / "first" / "model" / "model.safetensors")
    assert all(torch.equal(kept[f"weights/{name}"], tensor) for name, tensor in written.items())
    assert {float(kept[name]) for name in kept if name.startswith("step/")} == {1.0}
    middle = PolicyFiles("middle", tmp_path / "first" / "model")
    second = measuring(
        request_for("second", batch_size=2, block=BlockOfRound(1, 2, state), start=middle, references={"ref": middle}),
        turned(examples),
        **told,
    )
    rates = [line["learning_rate"] for line in train(second, bench, tmp_path / "second" / "model", silent)]
    assert rates == pytest.approx([1e-3 * 1.5 / 4, 1e-3 * 2.5 / 4, 1e-3 * 3.5 / 4], rel=1e-12)


@pytest.mark.parametrize("keep_last", [1, 2])
def test_the_checkpoint_of_the_best_step_stays_beside_the_newest(
    request_for: RequestFor, bench: Workbench, examples: list[TokenExample], tmp_path: Path, keep_last: int
) -> None:
    request = measuring(
        request_for("run", batch_size=2, checkpoint_steps=1, keep_last=keep_last),
        turned(examples),
        eval_steps=2,
        metric_for_best_model=LOSS,
    )
    train(request, bench, tmp_path / "out", silent)
    assert sorted(int(folder.name[-2:]) for folder in request.scratch.glob("checkpoint-*")) == [
        2,
        *range(8 - keep_last, 8),
    ]


@pytest.mark.parametrize(
    ("checkpoint_steps", "patience"),
    [(1, 3), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((1, None), (3, None), (3, 3)))],
)
def test_killed_at_every_step_in_turn_it_chooses_the_same(
    request_for: RequestFor,
    bench: Workbench,
    examples: list[TokenExample],
    tmp_path: Path,
    checkpoint_steps: int,
    patience: int | None,
) -> None:
    def killed_at(step: int) -> Callable[[str, int, int], None]:
        def progress(what: str, done: int, _count: int) -> None:
            if (what, done) == ("train", step):
                raise KeyboardInterrupt

        return progress

    whole, cut = (
        measuring(
            request_for(name, batch_size=2, checkpoint_steps=checkpoint_steps, block=BlockOfRound(0, 2, None)),
            turned(examples),
            eval_steps=1,
            metric_for_best_model=LOSS,
            early_stopping_patience=patience,
        )
        for name in ("whole", "cut")
    )
    expected = train(whole, bench, tmp_path / "whole" / "model", silent)
    for step in range(1, len(expected) + 1):
        with pytest.raises(KeyboardInterrupt):
            train(cut, bench, tmp_path / "cut" / "model", killed_at(step))

    assert train(cut, bench, tmp_path / "cut" / "model", silent) == expected
    assert len(expected) == (8 if patience is None else 4)
    for file in (tmp_path / "whole").rglob("*"):
        if file.is_file() and "scratch" not in file.parts:
            assert (tmp_path / "cut" / file.relative_to(tmp_path / "whole")).read_bytes() == file.read_bytes()


# ------------------------------------------------------------------------------------------------------ as written


def test_a_run_says_which_step_its_policy_is_of(tmp_path: Path) -> None:
    """On eight pairs at a rate far too high, validation is best before the end."""
    loaded = load_recipe(
        "offline.tiny",
        [
            "data.validation={share: 0.3}",
            "policy={learning_rate: 2e-2, epochs: 4, batch_size: 8, eval_steps: 2, metric_for_best_model: eval_loss}",
            "evaluation.suite=null",
        ],
    )
    run_recipe(loaded, tmp_path / "run", Progress())

    round_00 = tmp_path / "run" / "round-00"
    lines = [json.loads(line) for line in (round_00 / "policy" / "training.jsonl").read_text().splitlines()]
    losses = {line["step"]: line[LOSS] for line in lines if LOSS in line}
    best = min(losses, key=losses.__getitem__)
    assert best < len(lines)
    assert json.loads((round_00 / "policy" / "policy.json").read_text())["best_step"] == best
    summary = json.loads((round_00 / "summary.json").read_text())
    assert (summary["counts"]["policy"]["best step"], summary["counts"]["policy"]["steps"]) == (best, len(lines))
    assert summary["counts"]["policy"]["validation loss, after"] == losses[best]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["policy.eval_steps=5"],
            "eval_steps is 5, but no examples are kept apart for validation. Give the data step "
            "`validation: {share: 0.05}`, or remove it.",
        ),
        (
            ["policy.metric_for_best_model=eval_loss"],
            "metric_for_best_model needs eval_steps, which says how often it is measured. Add it.",
        ),
        (
            ["policy={eval_steps: 5, early_stopping_patience: 2}"],
            "early_stopping_patience needs metric_for_best_model, which says what is best. Add it.",
        ),
        (
            [
                "policy={objective: simpo, references: {}, eval_steps: 5, metric_for_best_model: eval_rewards/margins}",
                "data.validation={share: 0.3}",
            ],
            "metric_for_best_model is eval_rewards/margins, but simpo has no implicit rewards: they need a reference, "
            "beta and pairs. Use eval_loss.",
        ),
    ],
    ids=lambda one: one[0] if isinstance(one, list) else "",
)
def test_what_cannot_be_measured_is_an_error_before_a_model_is_loaded(overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError) as raised:
        rehearse(load_recipe("offline.tiny", overrides))
    assert str(raised.value) == f"recipe offline.tiny: policy: {message}"


def test_without_examples_to_measure_training_does_not_begin(
    request_for: RequestFor, bench: Workbench, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match="no examples are kept apart"):
        train(measuring(request_for("run"), [], eval_steps=1), bench, tmp_path / "out", silent)
    assert not list((tmp_path / "run" / "scratch").iterdir())


@pytest.mark.parametrize(("name", "has_rewards"), [("dpo", True), ("ipo", True), ("orpo", False), ("sft", False)])
def test_an_objective_has_rewards_exactly_where_its_metrics_do(
    name: str,
    has_rewards: bool,
    request_for: RequestFor,
    bench: Workbench,
    examples: list[TokenExample],
    tmp_path: Path,
) -> None:
    objective = find_objective(name, "here")
    request = replace(
        request_for("run"),
        objective=objective,
        hyper=objective.options().model_dump(),
        references={} if not objective.models else {"ref": request_for("run").start},
        examples=[replace(one, rows={role: one.rows[role] for role in objective.roles}) for one in examples],
    )
    told = measuring(request, list(request.examples[:3]), eval_steps=4, metric_for_best_model=ACCURACY)
    if has_rewards:
        assert ACCURACY in train(told, bench, tmp_path / "out", silent)[-1]
    else:
        with pytest.raises(RecipeError, match=f"{name} has no implicit rewards"):
            train(told, bench, tmp_path / "out", silent)
        plain = train(measuring(request, list(request.examples[:3]), eval_steps=4), bench, tmp_path / "out", silent)
        assert (LOSS in plain[-1], ACCURACY in plain[-1]) == (True, False)

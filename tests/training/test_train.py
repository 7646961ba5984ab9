"""A train step from start to end: what it computes, and that being killed changes no byte."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from prefloop.config import LoraConfig, TrainStep
from prefloop.errors import CheckFailedError, DataError
from prefloop.objectives import find_objective
from prefloop.policy import PolicyFiles, Workbench, response_logps
from prefloop.training import (
    BlockOfRound,
    Budget,
    Engine,
    LossOfPlan,
    TokenExample,
    TrainRequest,
    example_data,
    learning_rate_at,
    step_plan,
    train,
)
from prefloop.training.checkpoint import (
    latest_checkpoint,
    optimizer_tensors,
    restore,
    restored_state,
    save_checkpoint,
    state_tensors,
)
from prefloop.training.optimizers import optimizer_for
from prefloop.training.score_cache import ScoreCache

from .test_references import asked, keys_in

LORA = LoraConfig(r=4, alpha=8.0)
BOTH = pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
RequestFor = Callable[..., TrainRequest]


def silent(_what: str, _done: int, _count: int) -> None:
    pass


def killed_at(what: str, done: int) -> Callable[[str, int, int], None]:
    def progress(now: str, number: int, _count: int) -> None:
        if (now, number) == (what, done):
            raise KeyboardInterrupt

    return progress


def weights_file(folder: Path) -> bytes:
    (file,) = folder.glob("*model.safetensors")
    return file.read_bytes()


def with_settings(request: TrainRequest, **changed: Any) -> TrainStep:
    return TrainStep.model_validate({**request.settings.model_dump(), **changed})


def scores(bench: Workbench, policy: PolicyFiles, examples: Sequence[TokenExample]) -> dict[str, torch.Tensor]:
    with bench.for_scoring(policy) as model, torch.no_grad():
        return {
            f"{role}_logps": response_logps(model, [one.rows[role] for one in examples])
            for role in ("chosen", "rejected")
        }


@BOTH
def test_training_starts_at_log_2_and_learns_the_preferences(
    request_for: RequestFor,
    bench: Workbench,
    examples: list[TokenExample],
    tmp_path: Path,
    lora: LoraConfig | None,
) -> None:
    request = request_for("run", lora=lora, learning_rate=3e-3)
    metrics = train(request, bench, tmp_path / "out", silent)
    assert [line["step"] for line in metrics] == [1, 2, 3, 4]
    assert [line["examples"] for line in metrics] == [4, 3, 4, 3]
    first = step_plan(7, 4, 2, request.seed)[0]
    weight = sum(examples[index].weight for index in first) / 4
    assert metrics[0]["loss"] == pytest.approx(weight * math.log(2), abs=1e-5)
    assert (metrics[0]["rewards/margins"], metrics[0]["rewards/accuracies"]) == (pytest.approx(0, abs=1e-6), 0.5)
    start = request.start
    end = PolicyFiles("end", start.directory, tmp_path / "out") if lora else PolicyFiles("end", tmp_path / "out")
    before, after = scores(bench, start, examples), scores(bench, end, examples)
    margins = (after["chosen_logps"] - before["chosen_logps"]) - (after["rejected_logps"] - before["rejected_logps"])
    assert margins.mean() > 0.1


@BOTH
def test_the_rates_are_those_of_the_middle_of_each_step(
    request_for: RequestFor, bench: Workbench, tmp_path: Path, lora: LoraConfig | None
) -> None:
    metrics = train(request_for("run", lora=lora), bench, tmp_path / "out", silent)
    assert [line["learning_rate"] for line in metrics] == [
        learning_rate_at(share, peak=1e-3, warmup=0.1, schedule="linear") for share in (1 / 8, 3 / 8, 5 / 8, 7 / 8)
    ]


@BOTH
def test_training_again_gives_the_same_bytes(
    request_for: RequestFor, bench: Workbench, tmp_path: Path, lora: LoraConfig | None
) -> None:
    one, again = (train(request_for(name, lora=lora), bench, tmp_path / name / "out", silent) for name in "ab")
    assert one == again
    assert weights_file(tmp_path / "a" / "out") == weights_file(tmp_path / "b" / "out")


@BOTH
@pytest.mark.parametrize(
    "killed", [("score with ref", 3), ("train", 1), ("train", 3)], ids=lambda at: "-".join(map(str, at))
)
def test_a_killed_train_step_goes_on_to_the_same_bytes(
    request_for: RequestFor, bench: Workbench, tmp_path: Path, lora: LoraConfig | None, killed: tuple[str, int]
) -> None:
    """Killed while the reference is scored, before the first checkpoint, and after it."""
    whole = train(request_for("whole", lora=lora), bench, tmp_path / "whole" / "out", silent)
    request = request_for("cut", lora=lora, budget=Budget(100))
    with pytest.raises(KeyboardInterrupt):
        train(request, bench, tmp_path / "cut" / "out", killed_at(*killed))
    again: list[int] = []
    resumed = train(
        request, bench, tmp_path / "cut" / "out", lambda what, done, _: again.append(done) if what == "train" else None
    )
    assert again == ([3, 4] if killed == ("train", 3) else [1, 2, 3, 4])
    assert resumed == whole
    assert weights_file(tmp_path / "cut" / "out") == weights_file(tmp_path / "whole" / "out")


@BOTH
def test_optimiser_and_schedule_go_on_over_the_blocks_of_a_round(
    request_for: RequestFor, bench: Workbench, examples: list[TokenExample], tmp_path: Path, lora: LoraConfig | None
) -> None:
    """Two blocks equal one engine with one optimiser that runs through both plans."""
    first = request_for("first", lora=lora, block=BlockOfRound(0, 2, None), seed=1)
    metrics = train(first, bench, tmp_path / "first" / "model", silent)
    start, out = first.start, tmp_path / "first" / "model"
    middle = PolicyFiles("middle", start.directory, out) if lora else PolicyFiles("middle", out)
    (state,) = (tmp_path / "first").glob("checkpoint-*/state.safetensors")
    second = request_for(
        "second", lora=lora, block=BlockOfRound(1, 2, state), seed=2, start=middle, references={"ref": start}
    )
    metrics += train(second, bench, tmp_path / "second" / "model", silent)
    assert not list((tmp_path / "second").glob("checkpoint-*"))

    data = {name: torch.from_numpy(values) for name, values in example_data(examples, ("chosen", "rejected")).items()}
    frozen = asked(first, bench)
    with bench.for_training(start, lora, seed=1) as trainable:
        optimizer = optimizer_for(trainable.parameters(), first.settings)
        engine = Engine(
            trainable,
            LossOfPlan(first.objective, {"beta": 0.1}, data, {"ref": frozen}),
            examples,
            optimizer,
            1.0,
            Budget(100),
        )
        plan = [*step_plan(7, 4, 2, seed=1), *step_plan(7, 4, 2, seed=2)]
        for number, indices in enumerate(plan):
            rate = learning_rate_at((number + 0.5) / 8, peak=1e-3, warmup=0.1, schedule="linear")
            expected = engine.step(indices, rate)
            assert metrics[number]["learning_rate"] == rate
            assert metrics[number]["loss"] == expected["loss"]
        trainable.save(tmp_path / "through")
    assert weights_file(tmp_path / "second" / "model") == weights_file(tmp_path / "through")


def test_steps_of_warm_up_are_counted_over_the_blocks_of_a_round(
    request_for: RequestFor, bench: Workbench, tmp_path: Path
) -> None:
    """Four steps a block: the second of two begins where the first ended, though killed on its way."""

    def told(request: TrainRequest) -> TrainRequest:
        return replace(request, settings=with_settings(request, warmup_steps=6, warmup=None, schedule="constant"))

    first = told(request_for("first", block=BlockOfRound(0, 2, None)))
    rates = [line["learning_rate"] for line in train(first, bench, tmp_path / "first" / "model", silent)]
    (state,) = (tmp_path / "first").glob("checkpoint-*/state.safetensors")
    middle = PolicyFiles("middle", tmp_path / "first" / "model")
    second = told(request_for("second", block=BlockOfRound(1, 2, state), start=middle, references={"ref": first.start}))
    with pytest.raises(KeyboardInterrupt):
        train(second, bench, tmp_path / "second" / "model", killed_at("train", 3))
    rates += [line["learning_rate"] for line in train(second, bench, tmp_path / "second" / "model", silent)]
    assert rates == pytest.approx([1e-3 * (number + 0.5) / 6 for number in range(6)] + [1e-3, 1e-3], rel=1e-12)


def test_kept_reference_scores_are_not_computed_again(
    request_for: RequestFor, bench: Workbench, tmp_path: Path
) -> None:
    request = request_for("run")
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        train(request, bench, tmp_path / "out", killed_at("train", 1))
    train(request, bench, tmp_path / "out", lambda what, _done, _count: said.append(what))
    assert set(said) == {"train"}


def test_altered_reference_scores_stop_training_before_its_first_step(
    request_for: RequestFor, bench: Workbench, tmp_path: Path
) -> None:
    request = request_for("run")
    with pytest.raises(KeyboardInterrupt):
        train(request, bench, tmp_path / "out", killed_at("train", 1))
    with ScoreCache.at(request.score_cache) as cache:
        for key in keys_in(request.score_cache):
            found = cache.find(key)
            assert found is not None
            cache.keep(key, {**found, "rejected_logps": [value - 0.01 for value in found["rejected_logps"]]})
    with pytest.raises(CheckFailedError, match="ref_rejected_logps of the start policy, nats a token: differs by"):
        train(request, bench, tmp_path / "out", silent)
    assert not (tmp_path / "out").exists()


def test_a_reference_of_other_weights_is_read_from_those(
    request_for: RequestFor, bench: Workbench, examples: list[TokenExample], tmp_path: Path
) -> None:
    trained = train(request_for("first"), bench, tmp_path / "first" / "out", silent)
    assert len(trained) == 4
    moved = PolicyFiles("moved", tmp_path / "first" / "out")
    request = request_for("second", references={"ref": moved})
    train(request, bench, tmp_path / "second" / "out", silent)
    kept = asked(request, bench)
    expected = scores(bench, moved, examples)
    for name, values in expected.items():
        assert kept[name].tolist() == pytest.approx(values.tolist(), abs=1e-3)
        assert kept[name].tolist() != pytest.approx(scores(bench, request.start, examples)[name].tolist(), abs=1e-3)


# --------------------------------------------------------------------------------------------------- checkpoints


def parameters() -> dict[str, torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.nn.Parameter(torch.randn(3, generator=generator)) for name in ("a.b", "c")}


def adam(of: dict[str, torch.nn.Parameter], steps: int) -> torch.optim.AdamW:
    optimizer = torch.optim.AdamW(of.values(), lr=0.1, fused=True)
    for number in range(steps):
        optimizer.zero_grad()
        sum((parameter.sin() * (number + 1)).sum() for parameter in of.values()).backward()
        optimizer.step()
    return optimizer


def test_a_checkpoint_restores_weights_and_optimiser_bit_for_bit(tmp_path: Path) -> None:
    one = parameters()
    save_checkpoint(tmp_path, 3, [{"loss": 0.1 + 0.2}], optimizer_tensors(one, adam(one, 3)))
    found = latest_checkpoint(tmp_path)
    assert found is not None
    state, step, metrics = found
    assert (step, metrics) == (3, [{"loss": 0.1 + 0.2}])
    other = parameters()
    optimizer = torch.optim.AdamW(other.values(), lr=0.1, fused=True)
    restore(state, other, optimizer)
    expected = optimizer_tensors(one, adam(parameters(), 0)) | load_file(state)
    restored = optimizer_tensors(other, optimizer)
    assert restored.keys() == expected.keys()
    assert all(torch.equal(restored[name], expected[name]) for name in expected)
    assert {name.split("/")[0] for name in restored} == {"weights", "step", "exp_avg", "exp_avg_sq"}


def test_only_the_newest_checkpoint_is_kept(tmp_path: Path) -> None:
    of = parameters()
    for step in (2, 4, 10):
        save_checkpoint(tmp_path, step, [], optimizer_tensors(of, adam(of, 1)))
    assert [folder.name for folder in tmp_path.iterdir()] == ["checkpoint-00000010"]


def test_a_half_written_checkpoint_is_not_read(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    (tmp_path / "checkpoint-writing").mkdir()
    (tmp_path / "checkpoint-writing" / "state.safetensors").write_bytes(b"half")
    assert latest_checkpoint(tmp_path) is None
    of = parameters()
    save_checkpoint(tmp_path, 1, [], optimizer_tensors(of, adam(of, 1)))
    assert latest_checkpoint(tmp_path) is not None


# ----------------------------------------------------------------------------------- what an objective remembers


def coupled(request: TrainRequest) -> TrainRequest:
    """The same request for an objective with running statistics, of the whole step, and random numbers."""
    objective = find_objective("beta_dpo", "here")
    return replace(request, objective=objective, hyper=objective.options().model_dump())


@pytest.mark.parametrize(("what", "done"), [("train", 3), ("train", 4), ("score with ref", 7)])
def test_a_killed_step_of_an_objective_with_a_state_goes_on_to_the_same_bytes(
    request_for: RequestFor, bench: Workbench, tmp_path: Path, what: str, done: int
) -> None:
    whole = train(coupled(request_for("whole")), bench, tmp_path / "whole", silent)
    request = coupled(request_for("killed"))
    with pytest.raises(KeyboardInterrupt):
        train(request, bench, tmp_path / "killed", killed_at(what, done))
    assert train(request, bench, tmp_path / "killed", silent) == whole
    assert weights_file(tmp_path / "killed") == weights_file(tmp_path / "whole")


def test_a_state_is_kept_in_the_checkpoint_and_has_an_effect(
    request_for: RequestFor, bench: Workbench, tmp_path: Path
) -> None:
    """Without its kept state, training that goes on would go elsewhere."""
    whole = train(coupled(request_for("whole")), bench, tmp_path / "whole", silent)
    request = coupled(request_for("killed"))
    with pytest.raises(KeyboardInterrupt):
        train(request, bench, tmp_path / "killed", killed_at("train", 3))
    found = latest_checkpoint(request.scratch)
    assert found is not None
    tensors = load_file(found[0])
    assert {name for name in tensors if name.startswith("objective/")} == {"objective/mean", "objective/std"}
    save_file({**tensors, "objective/mean": tensors["objective/mean"] + 1}, found[0])
    assert train(request, bench, tmp_path / "killed", silent) != whole


def test_statistics_are_restored_in_their_own_types(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Moments:
        count: int
        mean: float
        each: torch.Tensor

        @classmethod
        def initial(cls, hyper: Mapping[str, Any]) -> "Moments":
            del hyper
            return cls(0, 0.0, torch.zeros(2, dtype=torch.float64))

        def updated(self) -> "Moments":
            return self

    kept = Moments(3, 0.1 + 0.2, torch.tensor([0.1, 0.7]).double())
    save_file(state_tensors(kept), tmp_path / "state.safetensors")
    found = restored_state(tmp_path / "state.safetensors", Moments.initial({}))
    assert isinstance(found, Moments)
    assert (found.count, found.mean, found.each.tolist()) == (kept.count, kept.mean, kept.each.tolist())
    assert type(found.count) is int


def test_scores_of_tokens_are_kept_as_they_are(
    request_for: RequestFor, bench: Workbench, examples: list[TokenExample], tmp_path: Path
) -> None:
    objective = find_objective("wpo", "here")
    request = replace(request_for("run"), objective=objective, hyper=objective.options().model_dump())
    with pytest.raises(KeyboardInterrupt):
        train(request, bench, tmp_path / "out", killed_at("train", 1))
    kept = asked(request, bench)
    for example, values in zip(examples, kept["chosen_token_logps"], strict=True):
        assert len(values) == len(example.rows["chosen"].answer_ids)
    other = replace(request_for("other"), objective=objective, hyper=request.hyper)
    whole = train(other, bench, tmp_path / "whole", silent)
    assert train(request, bench, tmp_path / "out", silent) == whole


# ----------------------------------------------------------------------------------------------------- soft labels


def softened(request: TrainRequest, probability: float) -> TrainRequest:
    examples = [replace(one, numbers={"prob_chosen_wins": probability}) for one in request.examples]
    return replace(request, examples=examples, settings=request.settings.model_copy(update={"soft_labels": True}))


def test_soft_labels_stop_at_the_margin_that_they_say(
    request_for: RequestFor, bench: Workbench, tmp_path: Path
) -> None:
    """With p = 0.6 the loss ends above the entropy of the labels; with hard ones it goes on falling."""
    hard = train(request_for("hard"), bench, tmp_path / "hard", silent)
    soft = train(softened(request_for("soft"), 0.6), bench, tmp_path / "soft", silent)
    entropy = -(0.6 * math.log(0.6) + 0.4 * math.log(0.4))
    mean_weight = sum(1.0 + number % 3 for number in range(7)) / 7
    assert soft[0]["loss"] == pytest.approx(hard[0]["loss"], rel=1e-6)
    assert sum(line["loss"] * line["examples"] for line in soft[-2:]) / 7 > entropy * mean_weight
    assert soft[-1]["loss"] > hard[-1]["loss"]


def test_soft_labels_without_effect_are_an_error(request_for: RequestFor, bench: Workbench, tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        train(softened(request_for("hard"), 1.0), bench, tmp_path / "out", silent)
    assert str(raised.value) == (
        "soft_labels has no effect: in all 7 examples the chosen answer wins for certain. "
        "Remove it, or give data with prob_chosen_wins."
    )


# ---------------------------------------------------------------------------------- numbers that are not finite


def broken_in(request: TrainRequest, steps: set[int]) -> TrainRequest:
    """The objective gives no number in some steps, counted from 1."""
    calls: list[int] = []

    def function(**values: Any) -> torch.Tensor:
        calls.append(1)
        losses = request.objective.function(**values)
        return losses * (torch.nan if len(calls) in steps else 1)

    broken = replace(request.objective, function=function, couples_batch=True)  # called once a step
    return replace(request, objective=broken, references={})


def sft_request(request_for: RequestFor, name: str) -> TrainRequest:
    sft = find_objective("sft", "here")
    return replace(request_for(name), objective=sft, hyper=sft.options().model_dump(), references={})


def test_a_step_that_is_not_finite_is_skipped_kept_and_said(
    request_for: RequestFor, bench: Workbench, examples: list[TokenExample], tmp_path: Path
) -> None:
    said: list[str] = []
    request = broken_in(sft_request(request_for, "broken"), {2})
    metrics = train(request, bench, tmp_path / "out" / "model", silent, said.append)

    assert [line.get("skipped") for line in metrics] == [None, 1, None, None]
    assert metrics[1] == {"step": 2, "skipped": 1, "learning_rate": metrics[1]["learning_rate"], "examples": 3}
    assert said == ["training: the loss or its gradient is not finite in step 2, which is skipped"]
    kept = json.loads((tmp_path / "out" / "skipped-step-000002.json").read_text(encoding="utf-8"))
    plan = step_plan(7, 4, 2, seed=11)
    assert {one["example_id"] for one in kept["examples"]} == {examples[index].example_id for index in plan[1]}
    by_id = {one.example_id: one for one in examples}
    for one in kept["examples"]:
        assert one["loss"] == "nan"
        assert float(one["chosen_logps"]) < 0
        assert tuple(one["answer_ids"]["chosen"]) == by_id[one["example_id"]].rows["chosen"].answer_ids


def test_a_skipped_step_changes_no_weight(request_for: RequestFor, bench: Workbench, tmp_path: Path) -> None:
    """The first three of four steps are taken by one run, and the last of them skipped by another."""
    whole = replace(sft_request(request_for, "whole"), checkpoint_steps=1)
    broken = replace(broken_in(sft_request(request_for, "broken"), {3}), checkpoint_steps=1)
    for request in (whole, broken):
        with pytest.raises(KeyboardInterrupt):
            train(request, bench, tmp_path / "out", killed_at("train", 4 if request is broken else 3))
    (after_two,) = (load_file(path) for path in whole.scratch.glob("checkpoint-*2/state.safetensors"))
    (after_skip,) = (load_file(path) for path in broken.scratch.glob("checkpoint-*3/state.safetensors"))
    assert after_two.keys() == after_skip.keys()
    assert all(torch.equal(after_two[name], after_skip[name]) for name in after_two if name != "margins")


def test_three_in_a_row_stop_the_run(request_for: RequestFor, bench: Workbench, tmp_path: Path) -> None:
    request = broken_in(sft_request(request_for, "broken"), {1, 2, 3})
    with pytest.raises(CheckFailedError) as raised:
        train(request, bench, tmp_path / "out", silent)
    file = request.scratch / "skipped-step-000003.json"
    assert str(raised.value) == (
        "training: the loss or its gradient was not finite in 3 steps in a row, up to step 3; no weight was changed by "
        f"them. {file} has the examples of the last one. Look at them, or lower policy.learning_rate."
    )
    assert file.is_file()


def test_three_that_are_not_in_a_row_do_not(request_for: RequestFor, bench: Workbench, tmp_path: Path) -> None:
    request = broken_in(sft_request(request_for, "broken"), {1, 2, 4})
    assert [line.get("skipped") for line in train(request, bench, tmp_path / "out", silent)] == [1, 1, None, 1]

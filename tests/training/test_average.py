"""A moving average of the weights: its closed form, where it begins, and that being killed changes no byte of it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from prefloop.config import LoraConfig
from prefloop.policy import PolicyFiles, Workbench
from prefloop.training import EMA, TrainRequest, train
from prefloop.training.checkpoint import STATE

RequestFor = Callable[..., TrainRequest]
Weights = dict[str, torch.Tensor]
LORA = LoraConfig(r=4, alpha=8)
BOTH = pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
STEPS = 4


def silent(_what: str, _done: int, _count: int) -> None:
    pass


def averaging(request: TrainRequest, decay: float, **changed: Any) -> TrainRequest:
    return replace(request, settings=request.settings.model_copy(update={"ema_decay": decay, **changed}))


def weights_of(directory: Path) -> Weights:
    (file,) = directory.glob("*model.safetensors")
    return load_file(file)


def average_of(out: Path) -> Path:
    return out.parent / EMA / out.name


def policy_at(directory: Path, base: Path, lora: LoraConfig | None) -> PolicyFiles:
    name = directory.as_posix()
    return PolicyFiles(name, directory) if lora is None else PolicyFiles(name, base, directory)


def in_checkpoints(folder: Path, kind: str) -> list[Weights]:
    """Tensors of a kind after each step that a checkpoint was saved of, by the names in which they are exported."""
    states = [load_file(file) for file in sorted(folder.glob(f"checkpoint-*/{STATE}"))]
    return [
        {
            name.removeprefix(f"{kind}/").replace(".default", ""): tensor
            for name, tensor in state.items()
            if name.startswith(f"{kind}/")
        }
        for state in states
    ]


@BOTH
def test_the_average_has_its_closed_form_after_every_step(
    request_for: RequestFor, bench: Workbench, tmp_path: Path, lora: LoraConfig | None
) -> None:
    request = request_for("a", lora=lora, checkpoint_steps=1, keep_last=STEPS)
    begun = tmp_path / "frozen" / "model"
    train(averaging(request_for("frozen", lora=lora), 1.0), bench, begun, silent)
    first, decay = weights_of(average_of(begun)), 0.75
    out = tmp_path / "a" / "model"
    lines = train(averaging(request, decay), bench, out, silent)
    steps = [*in_checkpoints(request.scratch, "weights"), weights_of(out)]
    held = [*in_checkpoints(request.scratch, "average"), weights_of(average_of(out))]
    assert len(steps) == len(held) == len(lines) == STEPS
    for count, average in enumerate(held, start=1):
        assert average.keys() == first.keys()
        gap = 0.0
        for name, weight in average.items():
            shares = [(1 - decay) * decay ** (count - 1 - step) for step in range(count)]
            expected = decay**count * first[name].double() + sum(
                share * after[name].double() for share, after in zip(shares, steps, strict=False)
            )
            torch.testing.assert_close(weight.double(), expected, rtol=1e-6, atol=1e-7)  # float32, one rounding a step
            gap += float((steps[count - 1][name].double() - expected).square().sum())
        assert lines[count - 1]["ema_distance"] == pytest.approx(gap**0.5, rel=1e-4)


@BOTH
def test_at_decay_0_it_is_the_policy_and_at_1_it_stays_where_it_began(
    request_for: RequestFor, bench: Workbench, tmp_path: Path, lora: LoraConfig | None
) -> None:
    out = tmp_path / "zero" / "model"
    train(averaging(request_for("zero", lora=lora), 0.0), bench, out, silent)
    names = sorted(file.name for file in out.iterdir())
    assert names == sorted(file.name for file in average_of(out).iterdir())
    assert all((out / name).read_bytes() == (average_of(out) / name).read_bytes() for name in names)
    one = tmp_path / "one" / "model"
    train(averaging(request_for("one", lora=lora, learning_rate=1e-3), 1.0), bench, one, silent)
    again = tmp_path / "again" / "model"
    train(averaging(request_for("again", lora=lora, learning_rate=1e-2), 1.0), bench, again, silent)
    first, second = weights_of(average_of(one)), weights_of(average_of(again))
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())
    assert any(not torch.equal(weight, first[name]) for name, weight in weights_of(one).items())


@BOTH
def test_training_changes_nothing_by_keeping_an_average(
    request_for: RequestFor, bench: Workbench, tmp_path: Path, lora: LoraConfig | None
) -> None:
    plain, with_average = tmp_path / "p" / "model", tmp_path / "w" / "model"
    train(request_for("p", lora=lora), bench, plain, silent)
    train(averaging(request_for("w", lora=lora), 0.9), bench, with_average, silent)
    assert all(torch.equal(one, weights_of(with_average)[name]) for name, one in weights_of(plain).items())
    assert not average_of(plain).exists()


@BOTH
def test_it_goes_on_from_the_average_that_the_start_policy_kept(
    request_for: RequestFor, bench: Workbench, tmp_path: Path, lora: LoraConfig | None
) -> None:
    first = tmp_path / "first" / "model"
    train(averaging(request_for("first", lora=lora), 0.5), bench, first, silent)
    base = request_for("base").start.directory
    start, average = policy_at(first, base, lora), policy_at(average_of(first), base, lora)
    out = tmp_path / "second" / "model"
    request = request_for("second", lora=lora, start=start, references={"ref": average})
    train(averaging(replace(request, average=average), 1.0), bench, out, silent)
    kept = weights_of(average_of(first))
    assert all(torch.equal(weight, kept[name]) for name, weight in weights_of(average_of(out)).items())
    moved = tmp_path / "third" / "model"
    request = replace(request_for("third", lora=lora, start=start, references={"ref": average}), average=average)
    train(averaging(request, 0.5), bench, moved, silent)
    found = weights_of(average_of(moved))
    assert any(not torch.equal(weight, kept[name]) for name, weight in found.items())


@BOTH
@pytest.mark.parametrize("step", [1, 2, 3])
def test_being_killed_changes_no_byte_of_it(
    request_for: RequestFor, bench: Workbench, tmp_path: Path, lora: LoraConfig | None, step: int
) -> None:
    whole, killed = tmp_path / "whole" / "model", tmp_path / "killed" / "model"
    train(averaging(request_for("w", lora=lora), 0.8), bench, whole, silent)
    request = averaging(request_for("k", lora=lora, checkpoint_steps=2), 0.8)

    def stop(what: str, done: int, _count: int) -> None:
        if (what, done) == ("train", step):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(request, bench, killed, stop)
    train(request, bench, killed, silent)
    for name in (file.name for file in average_of(whole).iterdir()):
        assert (average_of(whole) / name).read_bytes() == (average_of(killed) / name).read_bytes()


def test_where_a_step_is_best_the_average_is_of_the_steps_up_to_it(
    request_for: RequestFor, bench: Workbench, tmp_path: Path
) -> None:
    request = request_for("a", keep_last=STEPS, checkpoint_steps=1, learning_rate=1e-2)
    turned = [
        replace(one, rows={"chosen": one.rows["rejected"], "rejected": one.rows["chosen"]}) for one in request.examples
    ]
    asked = replace(averaging(request, 0.6, eval_steps=1, metric_for_best_model="eval_loss"), validation=turned)
    out = tmp_path / "a" / "model"
    lines = train(asked, bench, out, silent)
    assert min(range(STEPS), key=lambda step: lines[step]["eval_loss"]) == 0
    first = in_checkpoints(request.scratch, "average")[0]
    assert all(torch.equal(weight, first[name]) for name, weight in weights_of(average_of(out)).items())

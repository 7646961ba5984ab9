"""What an adapter can be told, and layers that are computed again, in a train step from start to end."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from prefloop.config import LoraConfig
from prefloop.policy import PolicyFiles, Workbench, response_logps
from prefloop.training import ROWS, TREES, Budget, Layout, TrainRequest, train

RequestFor = Callable[..., TrainRequest]
BOTH = pytest.mark.parametrize("layout", [ROWS, TREES], ids=["rows", "trees"])
DROPPING = LoraConfig(r=4, alpha=8, dropout=0.3)


def silent(_what: str, _done: int, _count: int) -> None:
    pass


def killed_at(step: int) -> Callable[[str, int, int], None]:
    def progress(what: str, done: int, _count: int) -> None:
        if (what, done) == ("train", step):
            raise KeyboardInterrupt

    return progress


def weights(folder: Path) -> bytes:
    (file,) = folder.glob("*model.safetensors")
    return file.read_bytes()


def chosen(model: Any, request: TrainRequest) -> torch.Tensor:
    return response_logps(model, [one.rows["chosen"] for one in request.examples])


@BOTH
@pytest.mark.parametrize(
    "lora",
    [DROPPING, pytest.param(DROPPING.model_copy(update={"use_dora": True}), marks=pytest.mark.slow)],
    ids=["lora", "dora"],
)
def test_dropout_is_drawn_by_step_so_that_a_killed_step_goes_on_to_the_same_bytes(
    request_for: RequestFor, bench: Workbench, tmp_path: Path, layout: Layout, lora: LoraConfig
) -> None:
    whole = train(request_for("whole", lora=lora, layout=layout), bench, tmp_path / "whole" / "out", silent)
    for step in (1, 2, 3):
        request = request_for(f"cut{step}", lora=lora, layout=layout, checkpoint_steps=1)
        out = tmp_path / f"cut{step}" / "out"
        with pytest.raises(KeyboardInterrupt):
            train(request, bench, out, killed_at(step))
        torch.manual_seed(step)  # whatever else draws random numbers
        assert train(request, bench, out, silent) == whole
        assert weights(out) == weights(tmp_path / "whole" / "out")


def test_dropout_has_an_effect_and_the_start_is_checked_without_it(
    request_for: RequestFor, bench: Workbench, tmp_path: Path
) -> None:
    first, _ = (
        train(request_for(name, lora=DROPPING.model_copy(update={"dropout": share})), bench, tmp_path / name, silent)
        for name, share in (("with", 0.3), ("without", 0.0))
    )
    assert first[0]["rewards/margins"] == pytest.approx(0, abs=1e-6)  # an adapter that does nothing yet drops nothing
    assert weights(tmp_path / "with") != weights(tmp_path / "without")
    trained = PolicyFiles("trained", request_for("x").start.directory, tmp_path / "with")
    request = request_for("on", lora=DROPPING, start=trained, references={"ref": trained}, seed=12)
    metrics = train(request, bench, tmp_path / "on", silent)  # the start equals its reference, or this would stop
    assert abs(metrics[0]["rewards/margins"]) > 1e-4  # in the step itself something is dropped


def test_other_steps_seeds_and_micro_batches_drop_something_else(
    request_for: RequestFor, bench: Workbench, tmp_path: Path
) -> None:
    trained = PolicyFiles("trained", request_for("x").start.directory, tmp_path / "trained")
    train(request_for("first", lora=DROPPING, learning_rate=0.01), bench, tmp_path / "trained", silent)
    changed = {"same": {}, "seed": {"seed": 5}, "micro-batches": {"budget": Budget(1000)}}
    losses: dict[str, list[float]] = {}
    for name, settings in changed.items():
        asked = {"lora": DROPPING, "start": trained, "references": {"ref": trained}, "learning_rate": 1e-12, **settings}
        request = request_for(name, **asked)
        losses[name] = [line["loss"] for line in train(request, bench, tmp_path / name, silent)]
    same = losses["same"]
    assert abs(same[0] - same[2]) > 1e-4  # nearly the same weights, and other zeros in the second epoch
    assert abs(same[0] - losses["seed"][0]) > 1e-4
    assert abs(same[0] - losses["micro-batches"][0]) > 1e-4


def test_answers_that_pass_twice_drop_the_same_twice(request_for: RequestFor, bench: Workbench, tmp_path: Path) -> None:
    """An objective that couples its examples passes them twice: as DPO in the same micro-batches, which pass once."""
    once = request_for("once", lora=DROPPING)
    twice = request_for("twice", lora=DROPPING)
    twice = replace(twice, objective=replace(twice.objective, couples_batch=True))
    one, other = (train(request, bench, tmp_path / request.scratch.parent.name, silent) for request in (once, twice))
    for line, again in zip(one, other, strict=True):
        assert again["loss"] == pytest.approx(line["loss"], rel=1e-5)
        assert again["tokens"] == 2 * line["tokens"]


def test_validation_drops_nothing(bench: Workbench, request_for: RequestFor) -> None:
    start = request_for("x").start
    request = request_for("y")
    with bench.for_training(start, DROPPING, seed=0) as trainable, torch.no_grad():
        for name, weight in trainable.parameters().items():
            weight.fill_(0.02 if "lora_B" in name else 0.1)
        scores = [chosen(trainable.model, request) for _ in range(2)]
        with trainable.dropout(3):
            dropped = [chosen(trainable.model, request)]
        with trainable.dropout(3):
            dropped.append(chosen(trainable.model, request))
        scores.append(chosen(trainable.model, request))
    assert torch.equal(scores[0], scores[1])
    assert torch.equal(scores[0], scores[2])
    assert torch.equal(dropped[0], dropped[1])
    assert float((dropped[0] - scores[0]).abs().min()) > 1e-4


def test_nobody_elses_random_numbers_are_changed(bench: Workbench, request_for: RequestFor) -> None:
    with bench.for_training(request_for("x").start, DROPPING, seed=0) as trainable:
        before = torch.get_rng_state()
        with trainable.dropout(3):
            torch.rand(3)
        assert torch.equal(torch.get_rng_state(), before)
        assert not any(module.training for module in trainable.model.modules())


@pytest.mark.long
@BOTH
@pytest.mark.parametrize("lora", [None, LoraConfig(r=4, alpha=8), DROPPING], ids=["full", "lora", "dropout"])
def test_with_layers_computed_again_every_byte_is_the_same(
    request_for: RequestFor, bench: Workbench, tmp_path: Path, layout: Layout, lora: LoraConfig | None
) -> None:
    asked = {"lora": lora, "layout": layout}
    plain = train(request_for("plain", **asked), bench, tmp_path / "plain" / "out", silent)
    again = train(request_for("again", **asked, recompute=True), bench, tmp_path / "again" / "out", silent)
    assert plain == again
    assert weights(tmp_path / "plain" / "out") == weights(tmp_path / "again" / "out")


@pytest.mark.parametrize("changed", [{"use_dora": True}, {"use_rslora": True}, {"dropout": 0.5}], ids=str)
def test_an_adapter_is_saved_as_it_was_asked_for(
    changed: dict[str, object], request_for: RequestFor, bench: Workbench, tmp_path: Path
) -> None:
    plain = LoraConfig(r=4, alpha=8)
    lora = plain.model_copy(update=changed)
    for name, asked in (("plain", plain), ("changed", lora)):
        train(request_for(name, lora=asked), bench, tmp_path / name / "out", silent)
    assert weights(tmp_path / "plain" / "out") != weights(tmp_path / "changed" / "out")
    policy = PolicyFiles("changed", request_for("x").start.directory, tmp_path / "changed" / "out")
    with bench.for_scoring(policy) as model:
        config = model.peft_config["default"]
        found = {"use_dora": config.use_dora, "use_rslora": config.use_rslora, "dropout": config.lora_dropout}
        assert found == lora.model_dump(include=set(found))
        scored = chosen(model, request_for("x"))
    merged = chosen(bench.for_sampling(policy), request_for("x"))
    torch.testing.assert_close(merged, scored, rtol=1e-5, atol=1e-4)

"""The dry pass does what training does, at its largest, and leaves no trace."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from prefloop.config import LoraConfig, TrainStep
from prefloop.policy import ModelSource, TokenRow, Workbench, model_facts
from prefloop.training import (
    ROWS,
    Budget,
    TokenExample,
    TrainRequest,
    dry_pass,
    is_out_of_memory,
    largest_pass,
    train,
)

RequestFor = Callable[..., TrainRequest]
ADAPTERS = [None, LoraConfig(r=4, alpha=8)]


def answers(examples: Sequence[TokenExample]) -> list[TokenRow]:
    return [row for one in examples for row in one.rows.values()]


def traces(bench: Workbench, source: ModelSource) -> dict[str, object]:
    """Everything that a dry pass could leave changed."""
    model = bench.base(source.directory)
    return {
        "weights": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "gradients": [name for name, parameter in model.named_parameters() if parameter.grad is not None],
        "trained": [name for name, parameter in model.named_parameters() if parameter.requires_grad],
        "training mode": [name for name, module in model.named_modules() if module.training],
        "modules": [(name, type(module)) for name, module in model.named_modules()],
        "torch": torch.get_rng_state(),
        "numpy": repr(np.random.get_state()),
    }


@pytest.mark.parametrize("lora", ADAPTERS)
def test_nothing_is_left_changed(
    lora: LoraConfig | None, bench: Workbench, source: ModelSource, request_for: RequestFor
) -> None:
    request = request_for("dry", lora=lora)
    before = traces(bench, source)

    dry_pass(answers(request.examples), request.objective, request.settings, bench, request.start)

    after = traces(bench, source)
    for name in ("weights", "torch"):
        torch.testing.assert_close(after.pop(name), before.pop(name), rtol=0, atol=0)
    assert after == before


PYTHONS_OWN = """
import random
import torch
from prefloop.config import LoraConfig, ObjectiveConfig, TrainStep
from prefloop.policy import ChatCodec, PolicyFiles, TokenRow, Workbench, resolve_model
from prefloop.training import dry_pass

source = resolve_model("builtin:tiny")
bench = Workbench(source, ChatCodec.load(source.directory, {}), torch.device("cpu"))
row = TokenRow((20, 21, 22), (23, 24), (True, True))
for lora in (None, LoraConfig(r=4)):
    settings = TrainStep(type="train", objective=ObjectiveConfig(name="dpo"), lora=lora)
    before = random.getstate()
    dry_pass([row, row], find_objective("dpo", "here"), settings, bench, PolicyFiles("x", source.directory))
    assert random.getstate() == before
"""


@pytest.mark.slow
def test_pythons_own_random_numbers_stay_where_they_are() -> None:
    """In a process of its own: the run-time type checks of tests draw from them."""
    subprocess.run([sys.executable, "-c", PYTHONS_OWN], check=True)


@pytest.mark.parametrize("lora", ADAPTERS)
def test_training_after_it_writes_the_same_bytes(
    lora: LoraConfig | None, source: ModelSource, bench: Workbench, request_for: RequestFor, tmp_path: Path
) -> None:
    for name in ("with", "without"):
        request = request_for(name, lora=lora)
        fresh = Workbench(source, bench.codec, torch.device("cpu"))
        if name == "with":
            dry_pass(answers(request.examples), request.objective, request.settings, fresh, request.start)
        train(request, fresh, tmp_path / name / "model", lambda *_: None)

    files = [file.name for file in (tmp_path / "with" / "model").iterdir()]
    assert any(name.endswith(".safetensors") for name in files)
    for name in files:
        assert (tmp_path / "with" / "model" / name).read_bytes() == (tmp_path / "without" / "model" / name).read_bytes()


def test_it_really_goes_backward_through_the_adapter(
    bench: Workbench, request_for: RequestFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every trained weight gets a gradient, which is gone afterwards."""
    request = request_for("dry", lora=LoraConfig(r=4, alpha=8))
    seen: list[tuple[int, int]] = []
    real = torch.autograd.backward

    def watched(*args: object, **kwargs: object) -> None:
        real(*args, **kwargs)
        parameters = [p for p in bench.base(request.start.directory).parameters() if p.requires_grad]
        seen.append((len(parameters), sum(parameter.grad is not None for parameter in parameters)))

    monkeypatch.setattr("torch.autograd.backward", watched)
    dry_pass(answers(request.examples), request.objective, request.settings, bench, request.start)

    assert seen == [(14, 14)]


@pytest.mark.parametrize(("optimizer", "moments"), [("adamw", 2), ("rmsprop", 1)])
def test_it_holds_the_moments_of_the_optimiser(
    optimizer: str, moments: int, bench: Workbench, request_for: RequestFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_for("dry", lora=LoraConfig(r=4, alpha=8))
    told = TrainStep.model_validate({**request.settings.model_dump(), "optimizer": optimizer, "weight_decay": 0.0})
    held: list[int] = []
    real = torch.full_like
    monkeypatch.setattr("torch.full_like", lambda *args: held.append(args[0].numel()) or real(*args))

    dry_pass(answers(request.examples), request.objective, told, bench, request.start)

    assert sum(held) == moments * model_facts(request.start.directory, told.lora).num_trained


def test_the_largest_pass_has_the_longest_answers(source: ModelSource, examples: list[TokenExample]) -> None:
    facts = model_facts(source.directory, None)
    (longest,) = (one for one in examples if one.longest == max(example.longest for example in examples))

    def largest(budget: Budget) -> list[TokenRow]:
        return largest_pass(examples, ("chosen", "rejected"), 4, budget, facts)

    assert largest(Budget(1)) == answers([longest])
    assert largest(Budget(1, splits_examples=True)) == [max(answers([longest]), key=len)]
    four = sorted(examples, key=lambda one: one.longest)[-4:]
    assert sorted(largest(Budget(10_000)), key=str) == sorted(answers(four), key=str)
    assert ROWS.shape(largest(Budget(10_000)), facts).attended == 8 * longest.longest


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
            True,
        ),
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_exhausted_memory_is_known_by_all_its_names(error: Exception, is_memory: bool) -> None:
    assert is_out_of_memory(error) is is_memory


def test_memory_that_is_not_there_is_an_error_of_that_name() -> None:
    with pytest.raises((RuntimeError, MemoryError)) as error:
        torch.empty(2**46)

    assert is_out_of_memory(error.value)

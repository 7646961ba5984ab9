"""The engine on a GPU against the same steps in float64, row by row, on the processor."""

from contextlib import nullcontext
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from prefloop.objectives import find_objective
from prefloop.policy import Trainable
from prefloop.policy.checkpointing import recomputed_layers
from prefloop.policy.precision import layers_in
from prefloop.training import (
    ROWS,
    TREES,
    Budget,
    Engine,
    Layout,
    LossOfPlan,
    TokenExample,
    data_columns,
    frozen_scores,
)
from prefloop.training.columns import column

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("masks_without_checks")]

STEPS, RATE, EVERYTHING = 3, 1e-3, 100_000


def model_on(device: str, dtype: torch.dtype, *, lora: bool) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=5_000,
                hidden_size=64,
                intermediate_size=96,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=512,
            )
        )
        if lora:
            targets = ["q_proj", "v_proj", "down_proj"]
            model = get_peft_model(model, LoraConfig(r=4, target_modules=targets, init_lora_weights=False))
    return model.to(device, dtype).eval()


def losses_of(model: Any, examples: list[TokenExample], layout: Layout, tokens: int, *, within: Any = None) -> Any:
    """Losses of some steps, each on all examples, from the reference on; and the gradient of the last."""
    dpo, plan = find_objective("dpo", "objective"), [list(range(len(examples)))]
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    with within(base) if within else nullcontext():
        ref: dict[str, list[float]] = {f"{role}_logps": [0.0] * len(examples) for role in dpo.roles}
        for batch, values in frozen_scores(model, examples, dpo.roles, plan, tokens, layout=layout):
            for name, of_batch in values.items():
                for index, value in zip(batch, of_batch, strict=True):
                    ref[name][index] = value
        frozen = {"ref": {name: column(values) for name, values in ref.items()}}
        loss = LossOfPlan(dpo, {"beta": 0.5}, data_columns(examples, dpo), frozen)
        trainable = Trainable(model, None, Path(), {})
        optimizer = torch.optim.SGD(trainable.parameters().values(), lr=RATE)
        engine = Engine(trainable, loss, examples, optimizer, 1e9, Budget(tokens), layout)
        losses = [engine.step(plan[0], 100 * RATE, number)["loss"] for number in range(STEPS)]
    flat = [one.grad.double().cpu().flatten() for one in trainable.parameters().values() if one.grad is not None]
    return losses, torch.cat(flat)


@pytest.mark.parametrize("layout", [TREES, ROWS], ids=["trees", "rows"])
@pytest.mark.parametrize("lora", [False, True], ids=["all weights", "lora"])
@pytest.mark.parametrize("tokens", [EVERYTHING, 60], ids=["one pass", "several"])
@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
def test_steps_in_float32_are_those_of_the_processor_in_float64(
    examples: list[TokenExample],
    layout: Layout,
    tokens: int,
    lora: bool,
    recompute: bool,
) -> None:
    expected, gradient = losses_of(model_on("cpu", torch.float64, lora=lora), examples, ROWS, EVERYTHING)
    within = recomputed_layers if recompute else None
    model = model_on("cuda", torch.float32, lora=lora)
    losses, found = losses_of(model, examples, layout, tokens, within=within)
    assert abs(losses[0] - expected[0]) < 1e-6  # policy = reference
    assert losses == pytest.approx(expected, abs=2e-5)
    assert expected[-1] < expected[0] - 1e-3
    assert (found - gradient).norm() < 2e-5 * gradient.norm()


@pytest.mark.parametrize("layout", [TREES, ROWS], ids=["trees", "rows"])
@pytest.mark.parametrize("lora", [False, True], ids=["all weights", "lora"])
def test_bfloat16_begins_at_the_reference_and_learns_the_same(
    examples: list[TokenExample],
    layout: Layout,
    lora: bool,
) -> None:
    """bfloat16 has 8 bits: a gradient of it is off by some 2^-8, a few of which add up over two layers."""
    expected, gradient = losses_of(model_on("cpu", torch.float64, lora=lora), examples, ROWS, EVERYTHING)
    model = model_on("cuda", torch.float32, lora=lora)
    losses, found = losses_of(model, examples, layout, EVERYTHING, within=lambda base: layers_in(base, "bfloat16"))
    weights = sum(1.0 + number % 3 for number in range(len(examples))) / len(examples)
    assert losses[0] == pytest.approx(weights * log(2), abs=1e-9)
    assert losses == pytest.approx(expected, abs=5e-3)
    assert (found - gradient).norm() < 0.03 * gradient.norm()
    assert torch.backends.cuda.matmul.fp32_precision != "tf32"  # after it

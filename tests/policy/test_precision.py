"""How precisely numbers are computed."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, Gemma2Config, PreTrainedModel, Qwen3Config

from prefloop.config import LoraConfig
from prefloop.policy import (
    PolicyFiles,
    RowScores,
    TokenRow,
    TreeScores,
    Workbench,
    response_logps,
)
from prefloop.policy.precision import layers_in
from prefloop.sampling import Draw, LocalSampler, SamplingSettings

LORA = LoraConfig(r=4, alpha=8)


def ids(seed: int, length: int) -> tuple[int, ...]:
    return tuple(torch.randint(10, 800, (length,), generator=torch.Generator().manual_seed(seed)).tolist())


ROWS = [
    TokenRow((*ids(1, 30), *ids(2, 8)), ids(3, 12), (True,) * 12),
    TokenRow((*ids(1, 30), *ids(2, 8)), ids(4, 5), (True,) * 5),
    TokenRow((*ids(1, 30), *ids(5, 3)), ids(6, 20), (True,) * 11 + (False,) * 9),
    TokenRow(ids(7, 9), ids(8, 1), (True,)),
]


class NoFloat64(TorchDispatchMode):
    """A device that knows no float64, as Apple's; what comes from numpy is still on the host."""

    def __torch_dispatch__(
        self, function: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made) if function is not torch.ops.aten.lift_fresh.default else ():
            assert not isinstance(tensor, torch.Tensor) or tensor.dtype != torch.float64, function
        return made


def of_trees(model: PreTrainedModel) -> torch.Tensor:
    passed = TreeScores.of(model, ROWS)
    return passed.token_logps().sum(1) + passed.token_log_sum_sq().sum(1)


def of_rows(model: PreTrainedModel) -> torch.Tensor:
    passed = RowScores.of(model, ROWS)
    return passed.logps() + passed.token_log_sum_sq().sum(1)


@pytest.mark.parametrize("scores", [of_trees, of_rows])
def test_a_device_without_float64_says_the_same_to_float32_rounding(
    bench: Workbench, start: PolicyFiles, scores: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bench.for_training(start, LORA, seed=0) as trainable:
        expected = scores(trainable.model).detach()
        with pytest.raises(AssertionError), NoFloat64():
            scores(trainable.model)
        monkeypatch.setattr("prefloop.policy.precision.WITHOUT_FLOAT64", {"cpu"})
        with NoFloat64():
            found = scores(trainable.model)
            found.sum().backward()
    assert (found.dtype, expected.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)


def test_it_samples_too(bench: Workbench, start: PolicyFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = LocalSampler(bench.for_sampling(start), frozenset({bench.codec.eos_id}))
    draws = [Draw("prompt", index, index, ids(1, 9)) for index in range(3)]
    settings = SamplingSettings(max_new_tokens=6, temperature=0.8, top_p=0.9)
    expected = {one.draw.index: one for one in sampler.sample(draws, settings)}
    monkeypatch.setattr("prefloop.policy.precision.WITHOUT_FLOAT64", {"cpu"})
    with NoFloat64():
        found = list(sampler.sample(draws, settings))
    for one in found:
        assert one.token_ids == expected[one.draw.index].token_ids
        assert one.sum_logp == pytest.approx(expected[one.draw.index].sum_logp, rel=1e-5)


# ----------------------------------------------------------------------------------------------- bfloat16 in the layers


def watched(model: Any) -> tuple[list[torch.dtype], list[tuple[torch.dtype, torch.dtype, bool]]]:
    """Precisions in which a layer's products come out, and in which the head reads and writes."""
    products: list[torch.dtype] = []
    head: list[tuple[torch.dtype, torch.dtype, bool]] = []
    for name, module in model.named_modules():
        if name.endswith("down_proj"):
            module.register_forward_hook(lambda _module, _given, made: products.append(made.dtype))
        if name.endswith("lm_head"):
            module.register_forward_hook(
                lambda _module, given, made: head.append((given[0].dtype, made.dtype, torch.is_autocast_enabled("cpu")))
            )
    return products, head


@pytest.mark.parametrize("scores", [of_trees, of_rows])
@pytest.mark.parametrize("lora", [LORA, None])
def test_layers_are_bfloat16_and_weights_gradients_head_and_log_probabilities_are_not(
    lora: LoraConfig | None, scores: Any, bench: Workbench, start: PolicyFiles
) -> None:
    with bench.for_training(start, lora, 0, "bfloat16") as trainable:
        products, head = watched(trainable.model)
        found = scores(trainable.model)
        found.sum().backward()
        assert set(products) == {torch.bfloat16}
        assert set(head) == {(torch.float32, torch.float32, False)}
        assert found.dtype == torch.float64
        moved = [weight.dtype for weight in trainable.model.parameters() if weight.dtype != torch.float32]
        assert bool(moved) == (lora is not None)  # frozen ones, which lose nothing
        trained = trainable.parameters().values()
        assert {weight.grad.dtype for weight in trained} == {torch.float32}
        gradient = {name: weight.grad for name, weight in trainable.parameters().items()}
    with bench.for_training(start, lora, 0) as trainable:
        exact = scores(trainable.model)
        exact.sum().backward()
        away = (found - exact).abs().max()
        assert 1e-4 < away < 0.5  # nats: bfloat16 has 8 bits, of answers of up to 20 tokens
        for name, weight in trainable.parameters().items():
            assert float((gradient[name] - weight.grad).norm()) <= 0.1 * float(weight.grad.norm()), name


def test_afterwards_the_model_is_float32_again(bench: Workbench, start: PolicyFiles) -> None:
    base = bench.base(start.directory)
    expected = response_logps(base, ROWS)
    with bench.for_scoring(start, "bfloat16") as model:
        assert not torch.equal(response_logps(model, ROWS), expected)
    with suppress(KeyError), bench.for_training(start, LORA, 0, "bfloat16"):
        raise KeyError
    assert torch.equal(response_logps(base, ROWS), expected)
    assert "forward" not in vars(base.base_model)


def test_norms_that_leave_float32_take_trees_too() -> None:
    """Qwen-3 norms queries and keys, not values; Gemma-2 caps scores."""
    small: dict[str, Any] = {
        "vocab_size": 900, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.1,
    }  # fmt: skip
    for config in (Qwen3Config(**small), Gemma2Config(**small, attn_logit_softcapping=2.0, sliding_window=9)):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model: PreTrainedModel = AutoModelForCausalLM.from_config(config).eval()
        exact = TreeScores.of(model, ROWS).token_logps().sum(1).detach()
        with layers_in(model, "bfloat16"):
            trees = TreeScores.of(model, ROWS).token_logps().sum(1)
            trees.sum().backward()
            rows = response_logps(model, ROWS)
        assert 0 < float((trees - exact).detach().abs().max()) < 0.5
        torch.testing.assert_close(trees, rows, rtol=0, atol=0.5)
        assert all(bool(weight.grad.isfinite().all()) for weight in model.parameters() if weight.grad is not None)


@pytest.mark.parametrize("lora", [LORA, LORA.model_copy(update={"use_dora": True})], ids=["lora", "dora"])
def test_frozen_weights_that_are_bfloat16_already_are_held_so_and_no_number_changes(
    lora: LoraConfig, bench: Workbench, start: PolicyFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained() -> tuple[list[torch.dtype], list[torch.Tensor]]:
        with bench.for_training(start, lora, 0, "bfloat16") as trainable:
            for weight in trainable.parameters().values():  # B begins at 0, and A would have no gradient
                weight.data += 0.01
            held = [layer.base_layer.weight.dtype for _, layer in adapted(trainable.model)]
            found = of_trees(trainable.model)
            found.sum().backward()
            gradients = [weight.grad for weight in trainable.parameters().values()]
        return held, [found.detach(), *gradients]

    base = bench.base(start.directory)
    for name, layer in base.named_modules():
        if name.endswith("v_proj"):
            layer.weight.data *= 1.001
    before = {name: weight.clone() for name, weight in base.named_parameters()}
    held, found = trained()
    assert set(held) == {torch.float32, torch.bfloat16}  # what would lose by it stays as it is
    assert {name: weight.dtype for name, weight in base.named_parameters()} == dict.fromkeys(before, torch.float32)
    assert all(torch.equal(weight, before[name]) for name, weight in base.named_parameters())
    monkeypatch.setattr("prefloop.policy.precision._is_rounded", lambda _weight: False)
    held, expected = trained()
    assert set(held) == {torch.float32}
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def adapted(model: Any) -> list[tuple[str, Any]]:
    return [(name, module) for name, module in model.named_modules() if hasattr(module, "lora_A")]

"""Products by oneDNN are those of torch, and are gone afterwards without a trace."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear as AdaptedLinear
from torch import nn
from torch.nn.functional import linear
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from prefloop.config import Precision
from prefloop.loop.needs import sampling_need
from prefloop.policy import ModelFacts, Part, added_gradients, linear_layers, model_facts
from prefloop.policy.checkpointing import recomputed_layers
from prefloop.policy.head import HeadOptions, head_of, token_logps
from prefloop.policy.linear_layers import _AdaptedProduct, differentiable_products, packed_weights
from prefloop.policy.precision import layers_in

SMALL: dict[str, Any] = {
    "vocab_size": 211,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
MODELS: dict[str, tuple[type[PreTrainedModel], Any]] = {
    "Llama, tied": (LlamaForCausalLM, LlamaConfig(**SMALL, num_key_value_heads=2, tie_word_embeddings=True)),
    "Llama": (LlamaForCausalLM, LlamaConfig(**SMALL, num_key_value_heads=2, tie_word_embeddings=False)),
    "Qwen2, with biases": (Qwen2ForCausalLM, Qwen2Config(**SMALL, num_key_value_heads=2)),
    "GPT-NeoX, with biases": (GPTNeoXForCausalLM, GPTNeoXConfig(**SMALL)),
}
WITHIN = 2e-6
"""Of logits of size 1: sums of at most 80 products, added up in another order, through some ten layers."""


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    torch.manual_seed(1)
    kind, config = MODELS[request.param]
    made = kind(config).eval()
    for name, parameter in made.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.1)  # transformers begins with zeros, which would hide a lost bias
    return made.requires_grad_(False)


@pytest.mark.parametrize("rows", [1, 3, 16, 130])
def test_a_packed_model_says_what_it_says(model: PreTrainedModel, rows: int) -> None:
    ids = torch.arange(rows * 5).reshape(rows, 5) % 211
    plain = model(input_ids=ids).logits

    with packed_weights(model), torch.inference_mode():
        packed = model(input_ids=ids).logits

    assert (packed - plain).abs().max() <= WITHIN * plain.abs().max()


@pytest.mark.parametrize("trained", [False, True])
def test_gradients_are_those_of_torch(model: PreTrainedModel, trained: bool) -> None:
    """Of all weights and biases, or of what passes through frozen ones."""
    model.requires_grad_(trained)
    embedded = model.get_input_embeddings()(torch.arange(21).reshape(3, 7)).detach().requires_grad_(True)
    wanted = [embedded, *(one for one in model.parameters() if one.requires_grad)]

    def gradients() -> list[torch.Tensor]:
        loss = model(inputs_embeds=embedded).logits.square().sum()
        return [one for one in torch.autograd.grad(loss, wanted, allow_unused=True) if one is not None]

    expected = gradients()
    with differentiable_products(model):
        found = gradients()

    assert len(found) == len(expected) >= (10 if trained else 1)
    assert all(
        (one - other).abs().max() <= 1e-5 * other.abs().max() for one, other in zip(found, expected, strict=True)
    )
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize(("inputs", "outputs"), [(1025, 8), (8, 1025)])
def test_sums_of_many_numbers_are_those_of_torch_to_the_bit(inputs: int, outputs: int) -> None:
    """oneDNN adds up one number behind the other and is further off: of an output, or of the gradient of an input."""
    torch.manual_seed(2)
    layer, rows = nn.Linear(inputs, outputs), torch.randn(30, inputs, requires_grad=True)

    def found() -> tuple[torch.Tensor, torch.Tensor]:
        said = layer(rows)
        return said.detach(), torch.autograd.grad(said.sin().sum(), rows)[0]

    (expected, slope), long = found(), 0 if inputs > outputs else 1
    with differentiable_products(layer):
        ours = found()

    assert torch.equal(ours[long], (expected, slope)[long])


ADAPTERS: dict[str, tuple[dict[str, Any], bool]] = {
    "plain": ({}, True),
    "rank-stabilised": ({"use_rslora": True}, True),
    "DoRA": ({"use_dora": True}, False),
    "dropout": ({"lora_dropout": 0.5}, False),
}


@pytest.mark.parametrize("settings", ADAPTERS)
def test_an_adapters_products_are_added_to_those_of_its_layer(model: PreTrainedModel, settings: str) -> None:
    """Gradients are peft's, also where layers are computed again; what is no plain LoRA stays peft's own to the bit
    but for the products."""
    how, plain = ADAPTERS[settings]
    targets: Any = {"target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=6, **targets, **how))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)  # peft begins with zeros, which would hide the gradients of the others
    ids = torch.arange(18).reshape(2, 9)

    def learn() -> dict[str, torch.Tensor]:
        adapted.zero_grad()
        torch.manual_seed(3)  # of dropout
        adapted(input_ids=ids).logits.square().sum().backward()
        return {name: one.grad.clone() for name, one in adapted.named_parameters() if one.grad is not None}

    adapted.train()
    expected = learn()
    with pytest.MonkeyPatch.context() as patched, differentiable_products(adapted):
        assert_same(learn(), expected)
        with recomputed_layers(adapted.get_base_model()):
            assert_same(learn(), expected)
        with adapted.disable_adapter(), torch.no_grad():
            off = adapted(input_ids=ids).logits
        used: list[str] = []
        original = AdaptedLinear.forward
        patched.setattr(AdaptedLinear, "forward", lambda *given: used.append("peft's") or original(*given))
        learn()
    assert bool(used) == (not plain)
    assert (off - model(input_ids=ids).logits).abs().max() > 0.1
    with adapted.disable_adapter():
        assert (off - adapted(input_ids=ids).logits).abs().max() <= WITHIN * off.abs().max()
    assert not any("forward" in vars(module) for module in adapted.modules())


def test_an_adapters_gradients_are_exact_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the formula itself, by finite differences; oneDNN has no float64."""
    monkeypatch.setattr(linear_layers, "_product", linear)
    numbers = torch.Generator().manual_seed(1)
    rows, weight, bias, inner, outer = (
        torch.randn(*shape, dtype=torch.float64, generator=numbers)
        for shape in ((2, 3, 5), (7, 5), (7,), (2, 5), (7, 2))
    )
    trained = [one.requires_grad_() for one in (rows, inner, outer)]
    assert torch.autograd.gradcheck(
        lambda rows, inner, outer: _AdaptedProduct.apply(rows, weight, bias, inner, outer, 1.5), trained
    )
    expected = linear(rows, weight, bias) + 1.5 * linear(linear(rows, inner), outer)
    found = _AdaptedProduct.apply(rows, weight, bias, inner, outer, 1.5)
    assert torch.allclose(found, expected, rtol=1e-13, atol=1e-13)


def test_gradients_added_where_they_stand_are_those_of_torch(model: PreTrainedModel) -> None:
    """Two passes; the second adds to the first. No gradient of a weight is left to autograd but those of norms."""
    model.requires_grad_(True)
    model.get_input_embeddings().padding_idx = 3
    passes = [torch.tensor([[1, 2, 3, 2, 210]]), torch.tensor([[7, 2, 5]])]

    def learn() -> dict[str, torch.Tensor]:
        model.zero_grad()
        for ids in passes:
            hidden = model.base_model(input_ids=ids).last_hidden_state[0]
            weights = [model.get_output_embeddings().weight]
            how: HeadOptions = {"at_once": 2, "weights": weights}
            token_logps(head_of(model), hidden[:-1], ids[0, 1:], how, keep=True).sum().backward()
        return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}

    expected = learn()
    handed: list[torch.Tensor | None] = []
    with differentiable_products(model):
        assert_same(learn(), expected)
        for weight in (weight for weight in model.parameters() if weight.dim() == 2):
            weight.register_hook(handed.append)
        with added_gradients():
            assert_same(learn(), expected)
            with recomputed_layers(model):
                assert_same(learn(), expected)
    assert handed
    assert all(gradient is None for gradient in handed)


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        assert (gradient - expected[name]).abs().max() <= 1e-5 * expected[name].abs().max(), name


def test_bfloat16_is_that_of_autocast_and_the_head_stays_float32(model: PreTrainedModel) -> None:
    """Rounded alike: each product is a rounded sum of the same rounded numbers, added up in another order."""
    ids, head = torch.arange(45).reshape(3, 15), model.get_output_embeddings()
    plain = model(input_ids=ids).logits
    with layers_in(model, "bfloat16"):
        autocast = model(input_ids=ids).logits
    with packed_weights(model, "bfloat16"), torch.inference_mode():
        packed = model(input_ids=ids).logits
        assert head(torch.ones(1, 48)).dtype == packed.dtype == torch.float32
    away = (autocast - plain).abs().mean()
    assert away > 1e-4
    assert (packed - autocast).abs().mean() < 0.3 * away


def test_no_row_at_all_is_no_error(model: PreTrainedModel) -> None:
    head = model.requires_grad_(True).get_output_embeddings()
    with differentiable_products(model):
        head(torch.empty(0, 48, requires_grad=True)).sum().backward()
    assert torch.equal(head.weight.grad, torch.zeros(211, 48))
    with packed_weights(model), torch.inference_mode():
        assert head(torch.empty(0, 48)).shape == (0, 211)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_afterwards_everything_is_as_before_also_behind_an_error(
    model: PreTrainedModel, precision: Precision, exact: bool
) -> None:
    """Also of weights that lose nothing in bfloat16, which then stand nowhere in float32."""
    if exact:
        for parameter in model.parameters():
            parameter.data = parameter.bfloat16().float()
    before, held = deepcopy(model.state_dict()), {name: id(one) for name, one in model.named_parameters()}

    stopped = pytest.raises(RuntimeError, match="stopped")
    with stopped, packed_weights(model, precision), differentiable_products(model):
        raise RuntimeError("stopped")

    after = model.state_dict()
    assert {name: id(one) for name, one in model.named_parameters()} == held
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(after[name].stride() == before[name].stride() for name in before)
    assert not any("forward" in vars(module) for module in model.modules())
    model.requires_grad_(True)(input_ids=torch.tensor([[1, 2]])).logits.sum().backward()


def test_blocks_stand_instead_of_the_weights_that_are_not_shared(model: PreTrainedModel) -> None:
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    with packed_weights(model):
        others = [layer for layer in model.modules() if isinstance(layer, nn.Linear) and layer is not head]
        assert others
        assert all(layer.weight.numel() == 0 for layer in others)
        assert (head.weight.numel() == 0) == (head.weight is not embedding.weight)
        assert embedding.weight.numel() == 211 * 48


def test_what_is_packed_already_stays_so(model: PreTrainedModel) -> None:
    ids = torch.tensor([[3, 4, 5]])
    with packed_weights(model), torch.inference_mode():
        outer = model(input_ids=ids).logits
        with packed_weights(model):
            inner = model(input_ids=ids).logits
        assert torch.equal(inner, outer)
        assert torch.equal(model(input_ids=ids).logits, outer)


def test_other_precisions_and_other_kinds_of_layer_are_left_alone() -> None:
    class Doubled(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(input)

    for layer in (nn.Linear(4, 3).double(), nn.Linear(4, 3).bfloat16(), Doubled(4, 3)):
        model = LlamaForCausalLM(MODELS["Llama"][1])
        model.model.layers[0].mlp.up_proj = layer
        with packed_weights(model):
            assert layer.weight.numel() == 12
            assert "forward" not in vars(layer)


@pytest.mark.parametrize("tied", [False, True])
def test_what_sampling_needs_has_a_tied_head_twice_on_a_cpu_alone(tied: bool, tmp_path: Path) -> None:
    LlamaForCausalLM(LlamaConfig(**SMALL, tie_word_embeddings=tied)).save_pretrained(tmp_path)
    facts = model_facts(tmp_path, None)

    def packed(facts: ModelFacts) -> list[int]:
        need = sampling_need(
            facts, Part("program", 0, ""), copies=1, rows=4, prompts=1, samples=4, prompt_tokens=9, new_tokens=9
        )
        return [part.bytes for part in need.parts if part.name == "packed head"]

    assert packed(facts) == ([211 * 48 * 4] if tied else [])
    assert not packed(replace(facts, on_cuda=True))

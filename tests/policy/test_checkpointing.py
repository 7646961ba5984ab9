"""Layers that are computed again going backward: the same numbers, and less that is kept."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3Config,
)

from prefloop.errors import ModelError
from prefloop.policy import TokenRow, TreeScores, response_logps
from prefloop.policy.checkpointing import recomputed_layers
from prefloop.policy.precision import layers_in

EXACT = 1e-12
SMALL: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.4,
}
FAMILIES: dict[str, Callable[[], PretrainedConfig]] = {
    "llama": lambda: LlamaConfig(**SMALL),
    "qwen-3": lambda: Qwen3Config(**SMALL, head_dim=8),
    "windows": lambda: MistralConfig(**SMALL, sliding_window=9),
    "gemma-2": lambda: Gemma2Config(**SMALL, head_dim=8, sliding_window=9, attn_logit_softcapping=2.0),
    "gpt-2": lambda: GPT2Config(vocab_size=40, n_positions=256, n_embd=16, n_layer=3, n_head=2),
    "experts": lambda: MixtralConfig(**SMALL, num_local_experts=4, num_experts_per_tok=2),
}


def ids(seed: int, length: int) -> tuple[int, ...]:
    return tuple(torch.randint(3, 40, (length,), generator=torch.Generator().manual_seed(seed)).tolist())


SYSTEM = ids(1, 70)
ROWS = [
    TokenRow((*SYSTEM, *ids(2, 8)), ids(3, 6), (True,) * 6),
    TokenRow((*SYSTEM, *ids(2, 8)), ids(4, 9), (True,) * 9),
    TokenRow((*SYSTEM, *ids(5, 3)), ids(6, 14), (True,) * 5 + (False,) * 9),
]
"""What they begin with is long enough to pass once in rows too, through a cache that layers write into."""


def of_rows(model: Any) -> Tensor:
    return response_logps(model, ROWS)


def of_trees(model: Any) -> Tensor:
    return TreeScores.of(model, ROWS).token_logps().sum(1)


def model_of(family: str, *, lora: bool, double: bool = True) -> tuple[PreTrainedModel, Any]:
    """A model, and what is trained: itself, or an adapter on it that does something."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        base: PreTrainedModel = AutoModelForCausalLM.from_config(FAMILIES[family](), experts_implementation="eager")
        base = base.double() if double else base
        adapted: Any = base
        if lora:
            targets = ["c_attn"] if family == "gpt-2" else ["q_proj", "v_proj"]
            adapter = LoraConfig(r=2, target_modules=targets, init_lora_weights=False, fan_in_fan_out=family == "gpt-2")
            adapted = get_peft_model(base.requires_grad_(False), adapter)
        return base, (adapted.double() if double else adapted).eval()


def numbers(scores: Callable[[Any], Tensor], model: Any) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad(set_to_none=True)
    found = scores(model)
    (found * torch.tensor([1.0, -2.0, 0.5])).sum().backward()
    return found.detach(), {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("scores", [of_rows, of_trees])
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_and_gradients_stay_what_they_are(family: str, scores: Callable[[Any], Tensor], lora: bool) -> None:
    # transformers masks the eager attention that Gemma-2 asks for with numbers that only float32 holds
    base, model = model_of(family, lora=lora, double=family != "gemma-2")
    expected, gradient = numbers(scores, model)
    passes: list[nn.Module] = []
    layer = base.base_model.get_submodule("h" if family == "gpt-2" else "layers")[1]
    with recomputed_layers(base):
        inner = next(iter(layer.children()))
        hook = inner.register_forward_pre_hook(lambda module, _: passes.append(module))
        found, again = numbers(scores, model)
        hook.remove()
    times = 2 if scores is of_rows and family not in {"windows", "gemma-2"} else 1  # the beginning, and the rest
    assert len(passes) == 2 * times
    torch.testing.assert_close(found, expected, rtol=0, atol=EXACT)
    assert again.keys() == gradient.keys()
    for name, own in gradient.items():
        torch.testing.assert_close(again[name], own, rtol=0, atol=EXACT * max(1.0, float(own.abs().max())))


@pytest.mark.parametrize("scores", [of_rows, of_trees])
def test_in_bfloat16_too(scores: Callable[[Any], Tensor]) -> None:
    base, model = model_of("qwen-3", lora=True, double=False)
    with layers_in(base, "bfloat16"):
        expected, gradient = numbers(scores, model)
        with recomputed_layers(base):
            found, again = numbers(scores, model)
    assert torch.equal(found, expected)
    assert all(torch.equal(again[name], own) for name, own in gradient.items())


def test_less_is_kept() -> None:
    """Of three layers only what each read: 16 numbers a token, where a layer alone keeps more than 200."""
    base, model = model_of("llama", lora=False)

    def kept() -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            sizes[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            hidden = base.base_model(torch.tensor([ids(1, 64)]), use_cache=False).last_hidden_state
        weights = {one.untyped_storage()._cdata for one in model.parameters()}
        del hidden
        return sum(size for storage, size in sizes.items() if storage not in weights) // (8 * 64)

    all_of_it = kept()
    with recomputed_layers(base):
        assert kept() < 150
    assert all_of_it > 600


def test_without_gradients_nothing_is_computed_twice() -> None:
    base, model = model_of("llama", lora=False)
    passes: list[int] = []
    base.base_model.get_submodule("layers")[1].mlp.register_forward_hook(lambda *_: passes.append(1))
    with recomputed_layers(base), torch.no_grad():
        of_trees(model)
    assert len(passes) == 1


def test_afterwards_layers_are_what_they_were_also_after_an_error() -> None:
    base, _ = model_of("llama", lora=False)
    with pytest.raises(KeyError), recomputed_layers(base):
        raise KeyError
    assert not any("forward" in vars(module) for module in base.modules())


def test_a_model_without_such_layers_is_an_error() -> None:
    model = AutoModelForCausalLM.from_config(BloomConfig(vocab_size=40, hidden_size=16, n_layer=1, n_head=2))
    model.transformer.h = nn.ModuleList([nn.Linear(16, 16)])
    with pytest.raises(ModelError) as raised, recomputed_layers(model):
        pass
    assert str(raised.value) == (
        "machine.gradient_checkpointing: transformers marks no layers of BloomForCausalLM that could be computed "
        "again. Set it to false and lower machine.tokens_per_batch."
    )

"""Norms and gates that keep less say and learn what the model's own do."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GraniteConfig,
    LlamaConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
)

from prefloop.policy.lean_layers import _Gate, _Norm, is_gated, is_norm, lean_layers

SMALL: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "initializer_range": 0.2,
}
KNOWN: dict[str, tuple[PreTrainedConfig, int, int]] = {
    "Llama": (LlamaConfig(**SMALL), 5, 2),
    "Qwen3, with norms of queries and keys": (Qwen3Config(**SMALL, head_dim=8), 9, 2),
    "Granite": (GraniteConfig(**SMALL), 5, 2),
    "Phi3, whose gate is one product with what it opens": (Phi3Config(**SMALL), 5, 0),
    "Cohere, with norms of another kind": (CohereConfig(**SMALL), 0, 2),
    "Gemma2, whose norms begin at one and whose gate is no SiLU": (Gemma2Config(**SMALL, head_dim=8), 0, 0),
}
"""Configurations, and how many norms and gates of each are lean."""


@pytest.fixture(params=KNOWN)
def known(request: pytest.FixtureRequest) -> tuple[PreTrainedModel, int, int]:
    config, norms, gates = KNOWN[request.param]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for name, weight in model.named_parameters():
        if "norm" in name:
            nn.init.uniform_(weight, 0.5, 1.5)
    return model, norms, gates


def test_which_are_lean_is_known_without_weights(known: tuple[PreTrainedModel, int, int]) -> None:
    model, norms, gates = known
    for one in (model, model.to("meta")):
        assert sum(map(is_norm, one.modules())) == norms
        assert sum(map(is_gated, one.modules())) == gates


def test_they_say_the_same_bit_for_bit_and_their_gradients_are_those_of_autograd(
    known: tuple[PreTrainedModel, int, int],
) -> None:
    model, norms, gates = known
    ids = torch.arange(18).reshape(2, 9)

    def said() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        model.zero_grad()
        logits = model(input_ids=ids).logits
        logits.square().sum().backward()
        return logits.detach(), {
            name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None
        }

    expected, gradients = said()
    with lean_layers(model):
        assert sum("forward" in vars(module) for module in model.modules()) == norms + gates
        found, lean = said()

    assert torch.equal(found, expected)
    assert lean.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert (lean[name] - gradient).abs().max() <= 2e-5 * gradient.abs().max(), name
    assert not any("forward" in vars(module) for module in model.modules())


def test_gradients_are_exact_in_float64() -> None:
    """Those of the formulas themselves, by finite differences."""
    numbers = torch.Generator().manual_seed(1)
    given, other = (torch.randn(2, 3, 5, dtype=torch.float64, generator=numbers).requires_grad_() for _ in range(2))
    weight = torch.randn(5, dtype=torch.float64, generator=numbers).requires_grad_()
    assert torch.autograd.gradcheck(lambda *of: _Norm.apply(*of, 1e-5), (given, weight))
    assert torch.autograd.gradcheck(_Gate.apply, (given, other))


def test_an_rms_norm_that_does_something_else_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    class ShiftedRMSNorm(nn.Module):
        variance_epsilon = 1e-6

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))

        def forward(self, states: torch.Tensor) -> torch.Tensor:
            states = states - states.mean(-1, keepdim=True)
            return self.weight * states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)

    assert not is_norm(ShiftedRMSNorm())
    monkeypatch.setattr(ShiftedRMSNorm, "forward", lambda _self, states: states.no_such_thing)
    assert not is_norm(ShiftedRMSNorm())

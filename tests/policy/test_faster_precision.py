"""The trial of both precisions."""

from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from prefloop.policy import faster_precision as trial
from prefloop.policy.faster_precision import Trial, faster_precision


def test_bfloat16_has_to_be_a_quarter_faster() -> None:
    assert Trial(1.26, 1.0).precision == "bfloat16"
    assert Trial(1.25, 1.0).precision == "float32"
    assert str(Trial(0.9, 1.8)) == "float32: products in bfloat16 are 0.50 times as fast here, 1.25 are worth it"


def test_every_layer_counts_as_often_as_a_model_has_it_and_the_head_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4 layers of 48 x 48 (queries and outputs), 2 of 24 x 48 twice (keys, values), gate and up, down."""
    config = LlamaConfig(
        vocab_size=211,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    monkeypatch.setattr(trial, "SECONDS", 0.0)
    monkeypatch.setattr(
        trial, "_seconds", lambda layers, precision: _weight(layers[0]) * (1 if precision[0] == "f" else 2)
    )

    found = faster_precision(tmp_path, torch.device("cpu"))

    assert found == Trial(4.0 * 48 * 48 + 4 * 24 * 48 + 4 * 80 * 48 + 2 * 48 * 80, 2 * found.float32)


def _weight(layer: torch.nn.Linear) -> float:
    assert bool((layer(torch.ones(1, layer.in_features)) == layer.in_features).all())  # it can be asked, of ones
    return float(layer.in_features * layer.out_features)


def test_a_model_without_linear_layers_stays_float32(tmp_path: Path) -> None:
    GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2)).save_pretrained(tmp_path)
    assert faster_precision(tmp_path, torch.device("cpu")) == Trial(0.0, 0.0)
    assert Trial(0.0, 0.0).precision == "float32"


def test_real_layers_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64)).save_pretrained(tmp_path)
    monkeypatch.setattr(trial, "SECONDS", 0.01)
    found = faster_precision(tmp_path, torch.device("cpu"))
    assert 0 < found.float32 < 10
    assert 0 < found.bfloat16 < 10

"""A base in 4 bits. What needs a GPU is marked so; here stands what can be known without one."""

from pathlib import Path

import pytest
import torch

from prefloop.config import LoraConfig, load_recipe
from prefloop.errors import ModelError
from prefloop.loop import Progress, run_recipe
from prefloop.policy import ChatCodec, PolicyFiles, TokenRow, Workbench, model_facts, resolve_model, response_logps
from prefloop.policy.memory import quantized_weights
from prefloop.policy.quantized import quantization, require_quantizer

LORA = LoraConfig(r=4, alpha=8, quantize="nf4")
NO_GPU = (
    "policy.lora.quantize is nf4, which needs a CUDA GPU, but models are held on cpu. Leave quantize out, or run where "
    "there is one."
)
NOT_INSTALLED = (
    "policy.lora.quantize is nf4, but bitsandbytes is not installed. Install prefloop[qlora], or leave quantize out."
)
ROWS = [TokenRow((20, 40, 60, 31), (80, 100, 120), (True,) * 3), TokenRow((25,), (30, 35), (True,) * 2)]


@pytest.mark.parametrize(("installed", "message"), [(False, NOT_INSTALLED), (True, NO_GPU)])
def test_what_is_missing_is_said_before_anything_is_made(
    installed: bool, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prefloop.policy.quantized.find_spec", lambda _name: object() if installed else None)
    loaded = load_recipe("loop.tiny", ["policy.lora={r: 4, quantize: nf4}", "machine.device=cpu"])
    with pytest.raises(ModelError) as raised:
        run_recipe(loaded, tmp_path / "run", Progress())
    assert str(raised.value) == message
    assert not (tmp_path / "run").exists()
    source = resolve_model("builtin:tiny")
    bench = Workbench(source, ChatCodec.load(source.directory, {}), torch.device("cpu"))
    with pytest.raises(ModelError) as refused, bench.for_training(PolicyFiles("s", source.directory), LORA, seed=0):
        pass
    assert str(refused.value) == message


def test_on_a_gpu_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefloop.policy.quantized.find_spec", lambda _name: object())
    require_quantizer("cuda")


def test_products_are_computed_in_the_precision_of_the_layers() -> None:
    found = quantization("bfloat16")
    assert (found.bnb_4bit_quant_type, found.bnb_4bit_use_double_quant) == ("nf4", True)
    assert found.bnb_4bit_compute_dtype == torch.bfloat16
    assert quantization("float32").bnb_4bit_compute_dtype == torch.float32


def test_only_linear_layers_are_in_4_bits_and_the_head_is_not() -> None:
    """Of builtin:tiny: four squares of 96, three of 96 x 64; the embedding, the head and the norms stay."""
    directory = resolve_model("builtin:tiny").directory
    facts = model_facts(directory, LORA)
    assert facts.in_4_bits == 4 * 96**2 + 3 * 96 * 64
    assert model_facts(directory, LoraConfig(r=4)).in_4_bits == 0
    whole = 4 * facts.num_weights
    assert quantized_weights(facts).bytes == whole - 4 * facts.in_4_bits + int(4.127 / 8 * facts.in_4_bits)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_adapter_is_trained_on_a_base_in_4_bits_and_starts_at_its_reference(precision: str, tmp_path: Path) -> None:
    source = resolve_model("builtin:tiny")
    bench = Workbench(source, ChatCodec.load(source.directory, {}), torch.device("cuda"))
    start = PolicyFiles("start", source.directory)
    with bench.for_scoring(start, precision, "nf4") as model, torch.no_grad():
        reference = response_logps(model, ROWS)
    with bench.for_training(start, LORA, 0, precision) as trainable:
        assert {weight.dtype for weight in trainable.parameters().values()} == {torch.float32}
        held = [weight for weight in trainable.model.parameters() if weight.dtype == torch.uint8]
        assert 2 * sum(weight.numel() for weight in held) == model_facts(source.directory, LORA).in_4_bits
        before = [weight.clone() for weight in held]
        optimizer = torch.optim.AdamW(trainable.parameters().values(), lr=1e-3)
        scores = response_logps(trainable.model, ROWS)
        torch.testing.assert_close(scores.detach(), reference, rtol=0, atol=1e-6 if precision == "float32" else 1e-2)
        for _ in range(5):
            optimizer.zero_grad()
            (-response_logps(trainable.model, ROWS).sum()).backward()
            optimizer.step()
        assert float(response_logps(trainable.model, ROWS).sum()) > float(scores.sum())
        assert all(torch.equal(weight, old) for weight, old in zip(held, before, strict=True))
        trainable.save(tmp_path)
    exact = response_logps(bench.base(source.directory), ROWS)
    assert 0 < float((exact - reference).abs().max()) < 5

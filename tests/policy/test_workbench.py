"""Models on loan: adapters, merging, and a base that is given back as it was."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from prefloop.config import LoraConfig
from prefloop.errors import ModelError
from prefloop.policy import PolicyFiles, Trainable, Workbench

LORA = LoraConfig(r=4, alpha=8)
IDS = torch.tensor([[3, 14, 15, 92, 65, 35], [8, 97, 93, 23, 84, 6]])


@torch.no_grad()
def logits(model: torch.nn.Module) -> Tensor:
    return model(input_ids=IDS).logits


def disturb(parameters: Mapping[str, torch.nn.Parameter], seed: int) -> None:
    """What training does to them, as far as anyone else can tell."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def trained_adapter(bench: Workbench, start: PolicyFiles, out: Path, seed: int = 0) -> tuple[PolicyFiles, Tensor]:
    """An adapter with effect, saved, and the logits that it had while it was trained."""
    with bench.for_training(start, LORA, seed) as trainable:
        disturb(trainable.parameters(), seed)
        trainable.save(out)
        return PolicyFiles(f"adapter-{seed}", start.directory, out), logits(trainable.model)


def weights(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_base_is_loaded_once_in_float32_frozen_and_without_dropout(bench: Workbench, start: PolicyFiles) -> None:
    base = bench.base(start.directory)
    assert bench.base(start.directory) is base
    assert bench.for_sampling(start) is base
    assert (base.dtype, base.training) == (torch.float32, False)
    assert not any(parameter.requires_grad for parameter in base.parameters())


def test_a_fresh_adapter_changes_nothing_yet(bench: Workbench, start: PolicyFiles) -> None:
    with bench.for_scoring(start) as model:
        before = logits(model)
    with bench.for_training(start, LORA, seed=0) as trainable:
        assert torch.equal(logits(trainable.model), before)


def test_with_the_adapter_off_the_model_is_its_base(bench: Workbench, start: PolicyFiles) -> None:
    with bench.for_scoring(start) as model:
        before = logits(model)
    with bench.for_training(start, LORA, seed=0) as trainable:
        disturb(trainable.parameters(), 0)
        assert not torch.allclose(logits(trainable.model), before, atol=1e-2)
        with trainable.model.disable_adapter():
            assert torch.equal(logits(trainable.model), before)


def test_only_the_adapter_is_trained(bench: Workbench, start: PolicyFiles) -> None:
    with bench.for_training(start, LORA, seed=0) as trainable:
        names = list(trainable.parameters())
        assert all("lora_A" in name or "lora_B" in name for name in names)
        assert {tensor.shape[0 if "lora_A" in name else 1] for name, tensor in trainable.parameters().items()} == {4}


def test_after_training_an_adapter_the_base_is_bitwise_what_it_was(
    bench: Workbench, start: PolicyFiles, tmp_path: Path
) -> None:
    base = bench.base(start.directory)
    before, names = weights(base), [name for name, _ in base.named_modules()]
    trained_adapter(bench, start, tmp_path)
    assert bench.base(start.directory) is base
    assert same(weights(base), before)
    assert [name for name, _ in base.named_modules()] == names
    assert not any(parameter.requires_grad for parameter in base.parameters())


def test_an_adapter_is_taken_off_also_when_training_fails(bench: Workbench, start: PolicyFiles) -> None:
    before = weights(bench.base(start.directory))
    with suppress(KeyboardInterrupt), bench.for_training(start, LORA, seed=0) as trainable:
        disturb(trainable.parameters(), 0)
        raise KeyboardInterrupt
    assert same(weights(bench.base(start.directory)), before)


def test_scoring_reads_the_saved_adapter_as_it_was_trained(
    bench: Workbench, start: PolicyFiles, tmp_path: Path
) -> None:
    policy, trained = trained_adapter(bench, start, tmp_path)
    with bench.for_scoring(policy) as model:
        assert torch.equal(logits(model), trained)
        assert not any(parameter.requires_grad for parameter in model.parameters())
    with bench.for_scoring(start) as model:
        assert not torch.allclose(logits(model), trained, atol=1e-2)


def test_the_merged_model_that_samples_says_the_same_to_float32_rounding(
    bench: Workbench, start: PolicyFiles, tmp_path: Path
) -> None:
    policy, trained = trained_adapter(bench, start, tmp_path)
    before = weights(bench.base(start.directory))
    merged = bench.for_sampling(policy)
    torch.testing.assert_close(logits(merged), trained, rtol=1e-5, atol=1e-5)
    assert not any("lora" in name for name in merged.state_dict())
    assert bench.for_sampling(policy) is merged
    assert same(weights(bench.base(start.directory)), before)


def test_each_policy_samples_from_its_own_merged_weights(bench: Workbench, start: PolicyFiles, tmp_path: Path) -> None:
    one, of_one = trained_adapter(bench, start, tmp_path / "one", seed=1)
    two, of_two = trained_adapter(bench, start, tmp_path / "two", seed=2)
    for policy, expected in ((one, of_one), (two, of_two), (one, of_one)):
        torch.testing.assert_close(logits(bench.for_sampling(policy)), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(logits(bench.for_sampling(start)), logits(bench.base(start.directory)))


def test_continuing_trains_the_same_adapter_on(bench: Workbench, start: PolicyFiles, tmp_path: Path) -> None:
    first, trained = trained_adapter(bench, start, tmp_path / "first")
    saved = load_file(tmp_path / "first" / "adapter_model.safetensors")
    with bench.for_training(first, LORA, seed=9) as trainable:
        assert torch.equal(logits(trainable.model), trained)
        assert {tuple(tensor.shape) for tensor in trainable.parameters().values()} == {
            tuple(tensor.shape) for tensor in saved.values()
        }
        disturb(trainable.parameters(), 9)
        trainable.save(tmp_path / "second")
        further = logits(trainable.model)
    again = load_file(tmp_path / "second" / "adapter_model.safetensors")
    assert again.keys() == saved.keys()
    assert not any(torch.equal(again[name], saved[name]) for name in saved)
    with bench.for_scoring(PolicyFiles("second", start.directory, tmp_path / "second")) as model:
        assert torch.equal(logits(model), further)
    with bench.for_scoring(first) as model:
        assert torch.equal(logits(model), trained)


def test_a_trained_adapter_drops_what_the_recipe_says_now(bench: Workbench, start: PolicyFiles, tmp_path: Path) -> None:
    policy, _ = trained_adapter(bench, start, tmp_path)
    with bench.for_training(policy, LORA.model_copy(update={"dropout": 0.5}), seed=0) as trainable, torch.no_grad():
        still = logits(trainable.model)
        with trainable.dropout(0):
            assert not torch.allclose(logits(trainable.model), still, atol=1e-2)
        assert torch.equal(logits(trainable.model), still)


def test_rank_stabilised_the_update_is_larger_by_the_root_of_the_rank(bench: Workbench, start: PolicyFiles) -> None:
    for lora, scale in ((LORA, 8 / 4), (LORA.model_copy(update={"use_rslora": True}), 8 / 4**0.5)):
        with bench.for_training(start, lora, seed=0) as trainable:
            layers = [module for module in trainable.model.modules() if isinstance(module, LoraLayer)]
            assert {layer.scaling["default"] for layer in layers} == {scale}


def test_the_seed_alone_decides_a_fresh_adapter(bench: Workbench, start: PolicyFiles) -> None:
    def fresh(seed: int) -> dict[str, Tensor]:
        with bench.for_training(start, LORA, seed) as trainable:
            return {name: parameter.detach().clone() for name, parameter in trainable.parameters().items()}

    state = torch.random.get_rng_state()
    one, again, other = fresh(3), fresh(3), fresh(4)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert same(one, again)
    assert not same(one, other)


def test_full_training_has_weights_of_its_own(bench: Workbench, start: PolicyFiles, tmp_path: Path) -> None:
    before = weights(bench.base(start.directory))
    with bench.for_training(start, None, seed=0) as trainable:
        assert len(trainable.parameters()) == len(list(bench.base(start.directory).named_parameters()))
        disturb(trainable.parameters(), 0)
        trainable.save(tmp_path)
        trained = logits(trainable.model)
    assert same(weights(bench.base(start.directory)), before)
    with bench.for_scoring(PolicyFiles("full", tmp_path)) as model:
        assert torch.equal(logits(model), trained)


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_what_is_saved_can_be_talked_to_and_names_no_place(
    bench: Workbench, start: PolicyFiles, tmp_path: Path, lora: LoraConfig | None
) -> None:
    with bench.for_training(start, lora, seed=0) as trainable:
        trainable.save(tmp_path / "once")
    policy = PolicyFiles("once", start.directory, tmp_path / "once") if lora else PolicyFiles("once", tmp_path / "once")
    with bench.for_training(policy, lora, seed=0) as trainable:
        trainable.save(tmp_path / "twice")
    for directory in (tmp_path / "once", tmp_path / "twice"):
        for file in directory.rglob("*"):
            for place in (start.directory, tmp_path, Path.home()):
                assert str(place).encode() not in file.read_bytes(), file.name
        assert not (directory / "README.md").exists()
        for name in ("tokenizer.json", "generation_config.json"):
            assert (directory / name).read_bytes() == (start.directory / name).read_bytes()
        assert AutoTokenizer.from_pretrained(directory).chat_template


def test_an_adapter_names_the_base_as_the_recipe_does(bench: Workbench, start: PolicyFiles, tmp_path: Path) -> None:
    trained_adapter(bench, start, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == "builtin:tiny"
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (4, 8.0, 0.0)


def test_a_saved_full_model_is_an_ordinary_directory(bench: Workbench, start: PolicyFiles, tmp_path: Path) -> None:
    with bench.for_training(start, None, seed=0) as trainable:
        trainable.save(tmp_path)
    found = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(logits(found), logits(bench.base(start.directory)))


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        (
            None,
            "policy: full fine-tuning cannot start from a LoRA adapter. Set policy.lora, or start from a merged model.",
        ),
        (
            LoraConfig(r=8, alpha=8),
            "policy.lora has r 8 and alpha 8, but the adapter that is trained on has r 4 and alpha 8. "
            "An adapter keeps its shape over the rounds.",
        ),
        (
            LoraConfig(r=4, alpha=16),
            "policy.lora has r 4 and alpha 16, but the adapter that is trained on has r 4 and alpha 8. "
            "An adapter keeps its shape over the rounds.",
        ),
        (
            LoraConfig(r=4, alpha=8, use_dora=True),
            "policy.lora has use_dora True and use_rslora False, but the adapter that is trained on has use_dora False "
            "and use_rslora False. An adapter keeps its shape over the rounds.",
        ),
        (
            LoraConfig(r=4, alpha=8, targets=("q_proj",)),
            "policy.lora.targets differs from the layers of the adapter that is trained on. "
            "An adapter keeps its shape over the rounds.",
        ),
    ],
)
def test_an_adapter_that_cannot_be_trained_on_is_an_error_and_leaves_the_base_alone(
    bench: Workbench, start: PolicyFiles, tmp_path: Path, lora: LoraConfig | None, message: str
) -> None:
    policy, _ = trained_adapter(bench, start, tmp_path)
    before = weights(bench.base(start.directory))
    with pytest.raises(ModelError) as raised, bench.for_training(policy, lora, seed=0):
        pass
    assert str(raised.value) == message
    assert same(weights(bench.base(start.directory)), before)


def test_trainable_parameters_come_in_the_order_of_the_model(bench: Workbench, start: PolicyFiles) -> None:
    with bench.for_training(start, None, seed=0) as trainable:
        assert isinstance(trainable, Trainable)
        assert list(trainable.parameters()) == [name for name, _ in trainable.model.named_parameters()]

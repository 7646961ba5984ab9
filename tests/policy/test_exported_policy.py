"""A policy for other tools: as it lies, with a base that they find, or merged."""

import json
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from prefloop.config import LoraConfig
from prefloop.errors import DataError, ModelError
from prefloop.policy import ChatCodec, ModelSource, PolicyFiles, TokenRow, Workbench, resolve_model, response_logps
from prefloop.policy.exported_policy import Exported, export_policy
from prefloop.policy.linear_layers import differentiable_products
from prefloop.records import Message, Prompt

KINDS = {
    "lora": LoraConfig(r=4, alpha=8),
    "dora": LoraConfig(r=4, alpha=8, use_dora=True),
    "rank-stabilised": LoraConfig(r=4, alpha=8, use_rslora=True, targets=("q_proj", "down_proj")),
}
MERGING = 1e-6
"""Relative: float32 weights are added before they are multiplied, where an adapter is multiplied first (4e-7 seen)."""
ROWS = [TokenRow((20, 40, 60, 31), (80, 100, 120), (True,) * 3), TokenRow((25,), (30, 35), (True,) * 2)]
QUESTION = Prompt.of((Message(role="user", content="How are you?"),))


def trained(bench: Workbench, lora: LoraConfig | None, out: Path) -> list[float]:
    """A policy with effect, saved as a run saves it; what it says of the rows."""
    start = PolicyFiles("start", bench.source.directory)
    numbers = torch.Generator().manual_seed(0)
    with bench.for_training(start, lora, seed=0) as trainable, torch.no_grad():
        for weight in trainable.parameters().values():
            weight.add_(0.2 * torch.randn(weight.shape, generator=numbers))
        trainable.save(out)
        return response_logps(trainable.model, ROWS).tolist()


def said_by(model) -> list[float]:
    """What a model says whose products are those of training, so that nothing but the weights can differ."""
    with torch.no_grad(), differentiable_products(model):
        return response_logps(model.eval(), ROWS).tolist()


@pytest.mark.parametrize("lora", KINDS.values(), ids=KINDS)
def test_merged_it_loads_as_it_is_and_says_what_the_adapter_says(
    lora: LoraConfig, bench: Workbench, source: ModelSource, tmp_path: Path
) -> None:
    expected = trained(bench, lora, tmp_path / "policy")
    of_base = said_by(bench.base(source.directory))
    assert max(abs(one - other) for one, other in zip(expected, of_base, strict=True)) > 0.1
    assert export_policy(tmp_path / "policy", tmp_path / "out", merged=True, base="builtin:tiny") == Exported(
        "merged", None
    )
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert model.dtype == torch.float32
    assert said_by(model) == pytest.approx(expected, rel=MERGING)
    assert not list((tmp_path / "out").glob("adapter*"))
    for name in ("tokenizer.json", "generation_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (source.directory / name).read_bytes()
    assert ChatCodec.load(tmp_path / "out", {}).prompt_ids(QUESTION) == bench.codec.prompt_ids(QUESTION)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template
    assert GenerationConfig.from_pretrained(tmp_path / "out").eos_token_id is not None


def test_an_adapter_finds_its_base_in_peft_and_in_transformers(bench: Workbench, tmp_path: Path) -> None:
    expected = trained(bench, KINDS["lora"], tmp_path / "policy")
    before = {file.name: file.read_bytes() for file in (tmp_path / "policy").iterdir()}
    written = export_policy(tmp_path / "policy", tmp_path / "out")
    assert written == Exported("adapter", str(resolve_model("builtin:tiny").directory))
    assert said_by(AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out")) == pytest.approx(expected, abs=1e-6)
    assert said_by(AutoModelForCausalLM.from_pretrained(tmp_path / "out")) == pytest.approx(expected, abs=1e-6)
    assert {file.name: file.read_bytes() for file in (tmp_path / "policy").iterdir()} == before
    changed = [file.name for file in (tmp_path / "out").iterdir() if file.read_bytes() != before[file.name]]
    assert changed == ["adapter_config.json"]
    again = export_policy(tmp_path / "out", tmp_path / "merged", merged=True)  # what was exported can be merged later
    assert again.kind == "merged"
    assert said_by(AutoModelForCausalLM.from_pretrained(tmp_path / "merged")) == pytest.approx(expected, rel=MERGING)


def test_a_base_on_the_hub_keeps_its_name_and_its_commit(
    bench: Workbench, source: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(bench, KINDS["lora"], tmp_path / "policy")
    asked: list[str] = []

    def on_the_hub(spec: str) -> ModelSource:
        asked.append(spec)
        return ModelSource("org/name@abc", source.directory, source.identity, "abc")

    monkeypatch.setattr("prefloop.policy.exported_policy.resolve_model", on_the_hub)
    assert export_policy(tmp_path / "policy", tmp_path / "out", base="org/name@main").base == "org/name"
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/name", "abc")
    export_policy(tmp_path / "out", tmp_path / "again")
    assert asked == ["org/name@main", "org/name@abc"]


def test_a_whole_model_is_copied(bench: Workbench, tmp_path: Path) -> None:
    expected = trained(bench, None, tmp_path / "policy")
    assert export_policy(tmp_path / "policy", tmp_path / "out") == Exported("full", None)
    assert said_by(AutoModelForCausalLM.from_pretrained(tmp_path / "out")) == pytest.approx(expected, abs=1e-6)


def test_what_cannot_be_exported_is_one_line_and_nothing_is_left(bench: Workbench, tmp_path: Path) -> None:
    trained(bench, KINDS["lora"], tmp_path / "policy")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(DataError) as raised:
        export_policy(tmp_path / "policy", tmp_path / "full")
    assert str(raised.value) == f"{tmp_path / 'full'}: is there already. Name a directory that is new or empty."
    with pytest.raises(DataError) as raised:
        export_policy(tmp_path / "full", tmp_path / "out")
    assert str(raised.value) == f"{tmp_path / 'full'}: no policy, it has neither adapter_config.json nor config.json."
    with pytest.raises(ModelError, match="builtin:tinny: there is no builtin model 'tinny'"):
        export_policy(tmp_path / "policy", tmp_path / "out", base="builtin:tinny")
    assert not (tmp_path / "out").exists()
    (tmp_path / "empty").mkdir()
    assert export_policy(tmp_path / "policy", tmp_path / "empty").kind == "adapter"

"""What training in float32 loses against float64, by the script that writes benchmarks/results/float32.md."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from prefloop.policy import ChatCodec, ModelSource, Workbench, resolve_model
from prefloop.training import ROWS, TREES, Layout

ROOT = Path(__file__).parents[2]
HARMLESS = ROOT.parent / "shared" / "data" / "hh_harmless_test.jsonl.gz"
EACH = pytest.mark.parametrize("layout", [ROWS, TREES], ids=["rows", "trees"])


@pytest.fixture
def float32(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    __import__("float32")
    return sys.modules["float32"]


@pytest.fixture(scope="module")
def random_model(source: ModelSource, tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    """Four layers of 64 with the tokenizer of the tiny model, whose own weights let most of a gradient vanish."""
    directory = tmp_path_factory.mktemp("random")
    codec = ChatCodec.load(source.directory, {})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(codec.tokenizer),
                hidden_size=64,
                intermediate_size=160,
                num_hidden_layers=4,
                num_attention_heads=4,
                num_key_value_heads=2,
                initializer_range=0.1,
                max_position_embeddings=1024,
                tie_word_embeddings=True,
            )
        ).save_pretrained(directory)
    codec.tokenizer.save_pretrained(directory)
    return replace(source, directory=directory, identity="random")


@EACH
def test_the_gradient_is_within_5e_6_of_float64(layout: Layout, float32: ModuleType, random_model: ModelSource) -> None:
    """Float32 rounds by 6e-8 of each number; through four layers and back that adds up to some 3e-7 of the norm. With
    sums of log-probabilities in float32 it would be no better than 6.6e-5 on a large vocabulary."""
    bench = Workbench(random_model, ChatCodec.load(random_model.directory, {}), torch.device("cpu"))
    task = float32.Task(pairs=4)
    _, examples = float32.drawn(task, bench.codec)
    exact = float32.exact_gradient(random_model.directory, examples)
    assert float32.off(float32.our_gradient(bench, examples, layout), exact) < 5e-6


def losses(steps: list[Mapping[str, float]]) -> list[float]:
    return [one["loss"] for one in steps]


def test_five_steps_of_the_fast_way_are_those_of_the_plain_way(float32: ModuleType, source: ModelSource) -> None:
    """`builtin:tiny` at a rate of 1e-3, in nats: from 0.69 to below 0.5."""
    bench = Workbench(source, ChatCodec.load(source.directory, {}), torch.device("cpu"))
    task = float32.Task(pairs=20, epochs=1)
    _, examples = float32.drawn(task, bench.codec)
    plain, fast = (losses(float32.stepped(task, examples, layout)) for layout in (ROWS, TREES))
    assert len(plain) == 5
    assert min(plain) < 0.6
    assert fast == pytest.approx(plain, abs=1e-5)


@pytest.mark.slow
@EACH
def test_the_gradient_of_smollm2_is_within_5e_6_of_float64(layout: Layout, float32: ModuleType) -> None:
    source = resolve_model("builtin:smollm2-135m-instruct")
    bench = Workbench(source, ChatCodec.load(source.directory, {}), torch.device("cpu"))
    data = str(HARMLESS) if HARMLESS.is_file() else float32.Task.data
    _, examples = float32.drawn(float32.Task(data=data, pairs=4), bench.codec)
    exact = float32.exact_gradient(source.directory, examples)
    assert float32.off(float32.our_gradient(bench, examples, layout), exact) < 5e-6

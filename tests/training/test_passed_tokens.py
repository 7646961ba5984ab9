"""How many tokens really pass through the layers in an optimiser step: as reported, and hardly more than there are."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from prefloop.data import Reading, find_source
from prefloop.objectives import find_objective
from prefloop.pairing import find_rule
from prefloop.policy import ChatCodec, EncodingSettings, ModelSource, Trainable, Workbench, model_facts, resolve_model
from prefloop.records import Example, Group
from prefloop.training import (
    ROWS,
    TREES,
    Budget,
    Engine,
    Layout,
    LossOfPlan,
    TokenExample,
    TrainRequest,
    data_columns,
    step_plan,
    tokenised,
    train,
)

HARMLESS = Path(__file__).parents[2].parent / "shared" / "data" / "hh_harmless_test.jsonl.gz"
AT_MOST = 1.2
"""Times the shared minimum, in which every beginning of a step passes once, however short it is."""


@contextmanager
def seen_by_layers(model: Any) -> Iterator[list[int]]:
    """What enters the first layer, padding included, pass by pass."""
    counts: list[int] = []
    layer = model.get_decoder().layers[0]
    hook = layer.register_forward_pre_hook(lambda _layer, given: counts.append(given[0].shape[:-1].numel()))
    yield counts
    hook.remove()


def llama(vocab: int) -> LlamaForCausalLM:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=vocab,
                hidden_size=8,
                intermediate_size=8,
                num_hidden_layers=1,
                num_attention_heads=1,
                num_key_value_heads=1,
                max_position_embeddings=1024,
            )
        ).eval()


def pairs_of(data: str, codec: ChatCodec, count: int, max_length: int = 1024) -> list[TokenExample]:
    rule, examples = find_rule("given", "rule"), list[Example]()
    for given, _ in zip(Reading(find_source(data)), range(count), strict=False):
        group = Group((given.prompt,), given.responses, given.judgments)
        examples += [one for one in rule.apply(group, rule.checked({}, "rule")) if isinstance(one, Example)]
    return tokenised(examples, codec, EncodingSettings(max_length, "drop"))[0]


def engine_on(examples: Sequence[TokenExample], vocab: int, budget: int, layout: Layout) -> Engine:
    cpo = find_objective("cpo", "here")
    model = llama(vocab)
    loss = LossOfPlan(cpo, cpo.options().model_dump(), data_columns(examples, cpo), {})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    return Engine(Trainable(model, None, Path(), {}), loss, examples, optimizer, 1.0, Budget(budget), layout)


def least(examples: Sequence[TokenExample]) -> int:
    """Distinct beginnings of all rows of a step."""
    return len(
        {
            (*row.prompt_ids, *row.answer_ids)[:end]
            for one in examples
            for row in one.rows.values()
            for end in range(1, len(row) + 1)
        }
    )


def steps_of(engine: Engine, batch_size: int, count: int) -> Iterator[tuple[list[TokenExample], list[int], int]]:
    """Of some steps the examples, what entered the first layer pass by pass, and the tokens reported."""
    for indices in step_plan(len(engine.examples), batch_size, 1, seed=0)[:count]:
        with seen_by_layers(engine.trainable.model) as counts:
            reported = engine.step(indices, 0.0)["tokens"]
        yield [engine.examples[index] for index in indices], counts, int(reported)


@pytest.mark.parametrize("budget", [256, 2048])
def test_of_short_pairs_as_many_pass_as_reported_and_hardly_more_than_there_are(
    budget: int, source: ModelSource, codec: ChatCodec
) -> None:
    """Of `everyday_pairs`, which begin alike for a turn: what each forest has, at most 1.2 times the least."""
    examples = pairs_of("everyday_pairs", codec, 48)
    engine = engine_on(examples, len(codec.tokenizer), budget, TREES)
    facts = model_facts(source.directory, None)
    for of_step, counts, reported in steps_of(engine, 16, 3):
        assert sum(counts) == reported
        batches = TREES.cut(dict(enumerate(of_step)), budget)
        planned = [
            TREES.shape([row for index in batch for row in of_step[index].rows.values()], facts).tokens
            for batch in batches
        ]
        assert counts == planned
        assert least(of_step) <= reported <= AT_MOST * least(of_step)


def test_rows_pass_more_and_that_is_reported(codec: ChatCodec) -> None:
    engine = engine_on(pairs_of("everyday_pairs", codec, 48), len(codec.tokenizer), 2048, ROWS)
    for of_step, counts, reported in steps_of(engine, 16, 1):
        assert sum(counts) == reported > AT_MOST * least(of_step)


@pytest.mark.slow
@pytest.mark.skipif(not HARMLESS.is_file(), reason="no HH pairs here")
@pytest.mark.parametrize(("batch_size", "budget"), [(4, 2048), (16, 2048), (64, 2048), (64, 8192)])
def test_of_real_pairs_hardly_more_pass_than_there_are(batch_size: int, budget: int) -> None:
    codec = ChatCodec.load(resolve_model("builtin:smollm2-135m-instruct").directory, {})
    examples = pairs_of(str(HARMLESS), codec, 256)
    engine = engine_on(examples, len(codec.tokenizer), budget, TREES)
    for of_step, counts, reported in steps_of(engine, batch_size, 4):
        assert sum(counts) == reported
        assert least(of_step) <= reported <= AT_MOST * least(of_step)


def test_a_second_and_a_third_epoch_cost_the_reference_nothing(
    request_for: Callable[..., TrainRequest], bench: Workbench, tmp_path: Path
) -> None:
    """Tokens that pass through the layers while references are scored."""

    def scored(epochs: int) -> int:
        request = request_for(f"scored-{epochs}")
        settings = request.settings.model_copy(update={"epochs": epochs})
        counts: list[int] = []

        def see(module: torch.nn.Module, given: tuple[Any, ...]) -> None:
            if isinstance(module, LlamaDecoderLayer):
                counts.append(given[0].shape[:-1].numel() if torch.is_inference_mode_enabled() else 0)

        hook = torch.nn.modules.module.register_module_forward_pre_hook(see)
        train(replace(request, settings=settings), bench, tmp_path / f"out-{epochs}" / "model", lambda *_: None)
        hook.remove()
        return sum(counts)

    assert scored(1) == scored(2) == scored(3) > 0

"""The memory formulas against what a model really holds: counted byte by byte, on builtin:tiny."""

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, LlamaConfig

from prefloop.config import LoraConfig
from prefloop.policy import (
    BatchShape,
    Forest,
    Growing,
    ModelSource,
    PassedPrompts,
    PolicyFiles,
    TokenRow,
    TreeScores,
    Workbench,
    model_facts,
    response_logps,
)
from prefloop.policy.checkpointing import recomputed_layers
from prefloop.policy.memory import (
    LOGIT_COPIES_TRAINING,
    activations,
    adapter,
    batch_logits,
    bfloat16_copies,
    gradients,
    grown_keys,
    grown_scores,
    inner_values,
    kv_cache,
    live_reference,
    logits,
    micro_batch,
    optimizer_state,
    rounded_weights,
    weights,
)
from prefloop.policy.precision import layers_in
from prefloop.policy.workbench import adapter_config
from prefloop.sampling import PASSED_AT_ONCE, LocalSampler, SamplingSettings, columns_of, draws_for
from prefloop.sampling.cache import RoomyLayer, roomy_cache

ADAPTERS = [None, LoraConfig(r=8)]
OPTIONS = [
    LoraConfig(r=8, use_dora=True),
    LoraConfig(r=8, dropout=0.2),
    LoraConfig(r=8, use_dora=True, dropout=0.2),
]


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of every storage that operations make, while it is held; those of a model do not count."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.held = [tensor.untyped_storage() for tensor in (*model.parameters(), *model.buffers())]
        self.counted = {storage._cdata: 0 for storage in self.held}
        self.live = self.peak = 0

    def __enter__(self) -> "LiveBytes":
        super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)

    def __torch_dispatch__(
        self, function: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self.counted:
                storage = tensor.untyped_storage()
                self.counted[storage._cdata] = storage.nbytes()
                self.live += storage.nbytes()
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._gone, storage._cdata)
        return made

    def _gone(self, address: int) -> None:
        self.live -= self.counted.pop(address)


@dataclass(frozen=True)
class Padded:
    """Rows of equal length but for the first."""

    rows: int
    longest: int
    answer: int
    shared: int = 0

    @property
    def shape(self) -> BatchShape:
        return BatchShape.of_rows(self.rows, self.longest, self.answer, self.shared)


def rows_of(shape: Padded) -> list[TokenRow]:
    """Rows that are padded, as rows in training are: the first is a few tokens shorter."""
    numbers = torch.Generator().manual_seed(0)

    def row(prompt: int) -> TokenRow:
        ids = torch.randint(10, 800, (prompt + shape.answer,), generator=numbers).tolist()
        return TokenRow(tuple(ids[:prompt]), tuple(ids[prompt:]), (True,) * shape.answer)

    prompt = shape.longest - shape.answer
    return [row(prompt - 5), *(row(prompt) for _ in range(shape.rows - 1))]


@pytest.mark.parametrize("lora", ADAPTERS)
@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("rmsprop", torch.optim.RMSprop)])
def test_weights_adapter_gradients_and_moments_are_exact(
    lora: LoraConfig | None, bench: Workbench, source: ModelSource, name: str, kind: type[torch.optim.Optimizer]
) -> None:
    facts = model_facts(source.directory, lora)

    with bench.for_training(PolicyFiles("start", source.directory), lora, seed=0) as trainable:
        everything = sum(parameter.nbytes for parameter in trainable.model.parameters())
        trained = list(trainable.parameters().values())
        optimizer = kind(trained)
        response_logps(trainable.model, rows_of(Padded(4, 30, 10))).sum().backward()
        optimizer.step()

        own_weights = everything - (adapter(facts).bytes if lora else 0)
        assert weights(facts, 1, "").bytes == own_weights
        assert gradients(facts).bytes == sum(parameter.grad.nbytes for parameter in trained)
        moments = [value for state in optimizer.state.values() for key, value in state.items() if key != "step"]
        assert optimizer_state(facts, name).bytes == sum(moment.nbytes for moment in moments)


@pytest.mark.parametrize("lora", ADAPTERS)
@pytest.mark.parametrize("shape", [Padded(16, 125, 48), Padded(6, 300, 30), Padded(24, 80, 60)], ids=str)
def test_the_peak_of_a_backward_pass_is_within_a_tenth(
    lora: LoraConfig | None, shape: Padded, bench: Workbench, source: ModelSource
) -> None:
    """A tenth: gradients that are there already when the head's go are not in these two parts."""
    facts = model_facts(source.directory, lora)
    predicted = activations(facts, shape.shape).bytes + batch_logits(facts, shape.shape, LOGIT_COPIES_TRAINING).bytes

    with (
        bench.for_training(PolicyFiles("start", source.directory), lora, seed=0) as trainable,
        LiveBytes(trainable.model) as measured,
    ):
        response_logps(trainable.model, rows_of(shape)).sum().backward()

    assert predicted == pytest.approx(measured.peak, rel=0.1)


@pytest.mark.parametrize("lora", ADAPTERS)
@pytest.mark.parametrize("pairs", [[(100, 48)] * 4, [(20, 60)] * 6, [(300, 30), (40, 200)]], ids=str)
def test_the_peak_of_trees_is_within_a_tenth(
    lora: LoraConfig | None, pairs: list[tuple[int, int]], bench: Workbench, source: ModelSource
) -> None:
    facts = model_facts(source.directory, lora)
    numbers = torch.Generator().manual_seed(0)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(10, 800, (length,), generator=numbers).tolist())

    rows = [
        TokenRow(prompt, ids(answer), (True,) * answer)
        for length, answer in pairs
        for prompt in [ids(length)]
        for _ in range(2)
    ]
    forest = Forest.of([(*row.prompt_ids, *row.answer_ids) for row in rows])
    shape = BatchShape.of_forest(forest, answers=sum(len(row.answer_ids) for row in rows), facts=facts)
    copies = shape.logit_copies - 1  # those inside logsumexp are no tensor that an operation returns
    predicted = activations(facts, shape).bytes + batch_logits(facts, shape, copies).bytes

    with (
        bench.for_training(PolicyFiles("start", source.directory), lora, seed=0) as trainable,
        LiveBytes(trainable.model) as measured,
    ):
        TreeScores.of(trainable.model, rows).token_logps().sum().backward()

    assert predicted == pytest.approx(measured.peak, rel=0.1)
    assert facts.trees


WIDE = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 4, "num_key_value_heads": 2}
DEEP = {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 6, "num_key_value_heads": 4}


@pytest.mark.long
@pytest.mark.parametrize("lora", ADAPTERS)
@pytest.mark.parametrize("dimensions", [WIDE, DEEP], ids=["wide", "deep"])
@pytest.mark.parametrize("shape", [Padded(6, 300, 30), Padded(16, 125, 48, shared=60), None], ids=str)
def test_the_peak_where_layers_are_computed_again_is_within_a_tenth(
    shape: Padded | None, dimensions: Mapping[str, int], lora: LoraConfig | None, tmp_path: Path
) -> None:
    """Without LoRA the gradients of layers that have been passed come to it."""
    config = LlamaConfig(vocab_size=821, num_attention_heads=4, **dimensions)
    config.save_pretrained(tmp_path)
    facts = model_facts(tmp_path, lora)
    base: Any = AutoModelForCausalLM.from_config(config).eval()
    model: Any = base if lora is None else get_peft_model(base.requires_grad_(False), adapter_config(lora)).eval()
    rows = rows_of(shape or Padded(12, 130, 60))
    if shape is None or shape.shared:  # whole prompts, or what all begin with
        alike = 60 if shape else 65
        begun = rows[0].prompt_ids[:alike]
        rows = [TokenRow(begun + row.prompt_ids[alike:], row.answer_ids, row.counted) for row in rows]
    forest = Forest.of([(*row.prompt_ids, *row.answer_ids) for row in rows])
    batch = shape.shape if shape else BatchShape.of_forest(forest, sum(len(row.answer_ids) for row in rows), facts)
    predicted = sum(part.bytes for part in micro_batch(facts, batch, recompute=True))
    with recomputed_layers(base), LiveBytes(model) as measured:
        scores = response_logps(model, rows) if shape else TreeScores.of(model, rows).token_logps()
        scores.sum().backward()
    most = 1.1 * predicted + (0 if lora else gradients(facts).bytes)
    assert 0.9 * predicted < measured.peak < most
    assert predicted < 0.8 * sum(part.bytes for part in micro_batch(facts, batch))


@pytest.mark.parametrize("lora", OPTIONS, ids=["dora", "dropout", "both"])
@pytest.mark.parametrize("shape", [Padded(16, 125, 48), Padded(6, 300, 30)], ids=str)
def test_options_of_the_adapter_are_in_it(
    lora: LoraConfig, shape: Padded, bench: Workbench, source: ModelSource
) -> None:
    facts = model_facts(source.directory, lora)
    predicted = sum(part.bytes for part in micro_batch(facts, shape.shape))
    with (
        bench.for_training(PolicyFiles("start", source.directory), lora, seed=0) as trainable,
        LiveBytes(trainable.model) as measured,
        trainable.dropout(0),
    ):
        response_logps(trainable.model, rows_of(shape)).sum().backward()
        assert adapter(facts).bytes == sum(weight.nbytes for weight in trainable.parameters().values())
    assert predicted == pytest.approx(measured.peak, rel=0.1)


@pytest.mark.parametrize("lora", ADAPTERS)
@pytest.mark.parametrize("shape", [Padded(16, 125, 48), Padded(6, 300, 30)], ids=str)
def test_with_bfloat16_layers_the_peak_is_a_bound(
    lora: LoraConfig | None, shape: Padded, bench: Workbench, source: ModelSource
) -> None:
    facts = model_facts(source.directory, lora)
    parts = (
        activations(facts, shape.shape),
        batch_logits(facts, shape.shape, LOGIT_COPIES_TRAINING),
        bfloat16_copies(facts),
    )
    with (
        bench.for_training(PolicyFiles("start", source.directory), lora, 0, "bfloat16") as trainable,
        LiveBytes(trainable.model) as measured,
    ):
        response_logps(trainable.model, rows_of(shape)).sum().backward()
    assert 0.7 < measured.peak / sum(part.bytes for part in parts) < 1


def test_a_frozen_base_that_was_published_in_bfloat16_is_counted_as_it_is_held(tmp_path: Path) -> None:
    lora = LoraConfig(r=8)
    config = LlamaConfig(vocab_size=500, hidden_size=32, intermediate_size=48, num_hidden_layers=2)
    for dtype in (torch.float32, torch.bfloat16):
        AutoModelForCausalLM.from_config(config).to(dtype).save_pretrained(tmp_path / str(dtype))
    assert not model_facts(tmp_path / "torch.float32", lora).in_bfloat16
    assert not model_facts(tmp_path / "torch.bfloat16", None).in_bfloat16
    facts = model_facts(tmp_path / "torch.bfloat16", lora)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "torch.bfloat16", dtype=torch.float32)
    with layers_in(model.requires_grad_(False), "bfloat16"):
        assert sum(weight.nbytes for weight in model.parameters()) == rounded_weights(facts).bytes
    assert bfloat16_copies(facts).bytes == 2 * (facts.num_weights - facts.in_bfloat16)


@pytest.mark.parametrize("lora", ADAPTERS)
@pytest.mark.parametrize("answer", [30, 90])
def test_the_peak_beside_a_live_reference_is_within_a_tenth(
    lora: LoraConfig | None, answer: int, bench: Workbench, source: ModelSource
) -> None:
    facts, start = model_facts(source.directory, lora), PolicyFiles("start", source.directory)
    rows = [TokenRow(tuple(range(20, 120)), tuple(range(n, n + answer)), (True,) * answer) for n in range(200, 208)]
    forest = Forest.of([(*row.prompt_ids, *row.answer_ids) for row in rows])
    shape = BatchShape.of_forest(forest, answers=8 * answer, facts=facts)
    parts = activations(facts, shape), batch_logits(facts, shape, shape.logit_copies), live_reference(facts, shape)

    with (
        bench.for_training(start, lora, seed=0, live=start) as trainable,
        LiveBytes(trainable.model) as measured,
    ):
        passed = TreeScores.of(trainable.model, rows)
        assert trainable.live is not None
        (passed.logps().sum() + passed.seq_kl(trainable.live).sum()).backward()

    assert sum(part.bytes for part in parts) == pytest.approx(measured.peak, rel=0.1)


def test_a_shared_beginning_passes_once(bench: Workbench, source: ModelSource) -> None:
    facts = model_facts(source.directory, LoraConfig(r=8))
    shape = Padded(16, 125, 48, shared=60)
    beginning = tuple(range(20, 80))
    rows = [TokenRow(beginning + row.prompt_ids[60:], row.answer_ids, row.counted) for row in rows_of(shape)]
    rows[1] = TokenRow((*beginning, 5, *rows[1].prompt_ids[61:]), rows[1].answer_ids, rows[1].counted)
    predicted = activations(facts, shape.shape).bytes + batch_logits(facts, shape.shape, LOGIT_COPIES_TRAINING).bytes

    with (
        bench.for_training(PolicyFiles("start", source.directory), LoraConfig(r=8), seed=0) as trainable,
        LiveBytes(trainable.model) as measured,
    ):
        response_logps(trainable.model, rows).sum().backward()

    assert predicted == pytest.approx(measured.peak, rel=0.1)
    assert facts.shares_beginnings
    assert shape.shape.tokens == 60 + 16 * 65


@pytest.mark.parametrize(("prompt", "new"), [(20, 1), (20, 2), (20, 66), (20, 67), (7, 140)])
def test_the_kv_cache_is_exact(prompt: int, new: int, bench: Workbench, source: ModelSource) -> None:
    model = bench.base(source.directory)
    cache = roomy_cache(model.config)

    with torch.inference_mode():
        model(input_ids=torch.full((3, prompt), 20), past_key_values=cache, use_cache=True)
        for _ in range(new - 1):
            model(input_ids=torch.full((3, 1), 20), past_key_values=cache, use_cache=True)

    held = 0
    for layer in cache.layers:
        assert isinstance(layer, RoomyLayer)
        held += layer.keys.untyped_storage().nbytes() + layer.values.untyped_storage().nbytes()
    assert kv_cache(model_facts(source.directory, None), 3, columns_of(prompt, new)).bytes == held


@pytest.mark.parametrize(("prompt", "new", "prompts", "samples"), [(20, 2, 1, 3), (7, 40, 8, 2), (30, 1, 5, 1)])
def test_the_keys_of_growing_answers_are_exact(
    prompt: int, new: int, prompts: int, samples: int, bench: Workbench, source: ModelSource
) -> None:
    model, rows = bench.base(source.directory), prompts * samples
    growing = Growing(model, rows, new, shared=0)

    with torch.inference_mode():
        passed = PassedPrompts.of(model, [(20 + number,) * prompt for number in range(prompts)])
        for number in range(prompts):
            growing.enter(passed, number, samples)
        growing.advance(torch.full((rows,), 20))

    rooms = (*growing.prompts.layers, *growing.answers.layers, *passed.layers)
    held = sum(states.untyped_storage().nbytes() for layer in rooms for states in layer)
    facts = model_facts(source.directory, None)
    predicted = grown_keys(
        facts, rows=rows, new_tokens=new, prompts=prompts, prompt_tokens=prompt, passed=prompts * prompt
    )
    assert predicted.bytes == held


@pytest.mark.parametrize(
    "settings",
    [SamplingSettings(1.0, 1.0, 60), SamplingSettings(1.0, 0.9, 60, top_k=400, min_p=0.01, repetition_penalty=1.2)],
    ids=["plain", "every setting"],
)
@pytest.mark.parametrize(("prompt", "samples"), [(40, 4), (200, 4), (200, 1)])
def test_what_sampling_needs_is_enough_and_not_much_more(
    prompt: int, samples: int, settings: SamplingSettings, bench: Workbench, source: ModelSource
) -> None:
    """More where prompts leave before others enter, and where a setting makes fewer copies than the most."""
    model, rows, facts = bench.base(source.directory), 64, model_facts(source.directory, None)
    draws = [
        draw
        for number in range(2 * rows // samples)
        for draw in draws_for(
            f"p{number}", (20 + number,) * prompt, num_samples=samples, recipe_seed=0, step="s", round_number=0, block=0
        )
    ]
    sampler = LocalSampler(model, bench.codec.eos_ids, rows)
    with LiveBytes(model) as measured:
        assert len(list(sampler.sample(draws, settings))) == len(draws)
    passed = prompt + max(PASSED_AT_ONCE, 2 * prompt)
    parts = (
        grown_keys(
            facts,
            rows=rows,
            new_tokens=settings.max_new_tokens,
            prompts=min(2 * rows // samples, rows - samples + 1),
            prompt_tokens=prompt,
            passed=passed,
        ),
        grown_scores(facts, rows, prompt + settings.max_new_tokens),
        inner_values(facts, passed),
        logits(facts, rows, 3, "rows"),
    )
    assert measured.peak <= sum(part.bytes for part in parts) <= 1.4 * measured.peak


def test_facts_need_no_weights(source: ModelSource, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((source.directory / "config.json").read_bytes())

    facts = model_facts(tmp_path, LoraConfig(r=4))

    assert (facts.num_weights, facts.layers, facts.vocab, facts.adapter_width) == (213_216, 1, 821, 28)

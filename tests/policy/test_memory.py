"""The memory formulas against what a model really holds: counted byte by byte, on builtin:tiny."""

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from prefloop.config import LoraConfig
from prefloop.policy import (
    BatchShape,
    ChatCodec,
    Forest,
    ModelSource,
    PolicyFiles,
    TokenRow,
    TreeScores,
    Workbench,
    model_facts,
    resolve_model,
    response_logps,
)
from prefloop.policy.memory import (
    LOGIT_COPIES_TRAINING,
    activations,
    adapter,
    batch_logits,
    gradients,
    kv_cache,
    live_reference,
    optimizer_state,
    weights,
)
from prefloop.sampling import columns_of
from prefloop.sampling.cache import RoomyLayer, roomy_cache

ADAPTERS = [None, LoraConfig(r=8)]


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


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFLOOP_CACHE", str(tmp_path_factory.mktemp("cache")))
        return resolve_model("builtin:tiny")


@pytest.fixture
def bench(source: ModelSource) -> Workbench:
    return Workbench(source, ChatCodec.load(source.directory, {}), torch.device("cpu"))


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
def test_weights_adapter_gradients_and_moments_are_exact(
    lora: LoraConfig | None, bench: Workbench, source: ModelSource
) -> None:
    facts = model_facts(source.directory, lora)

    with bench.for_training(PolicyFiles("start", source.directory), lora, seed=0) as trainable:
        everything = sum(parameter.nbytes for parameter in trainable.model.parameters())
        trained = list(trainable.parameters().values())
        optimizer = torch.optim.AdamW(trained)
        response_logps(trainable.model, rows_of(Padded(4, 30, 10))).sum().backward()
        optimizer.step()

        own_weights = everything - (adapter(facts).bytes if lora else 0)
        assert weights(facts, 1, "").bytes == own_weights
        assert gradients(facts).bytes == sum(parameter.grad.nbytes for parameter in trained)
        moments = [value for state in optimizer.state.values() for key, value in state.items() if key != "step"]
        assert optimizer_state(facts).bytes == sum(moment.nbytes for moment in moments)


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
    predicted = activations(facts, shape).bytes + batch_logits(facts, shape, LOGIT_COPIES_TRAINING).bytes

    with (
        bench.for_training(PolicyFiles("start", source.directory), lora, seed=0) as trainable,
        LiveBytes(trainable.model) as measured,
    ):
        TreeScores.of(trainable.model, rows).token_logps().sum().backward()

    assert predicted == pytest.approx(measured.peak, rel=0.1)
    assert facts.trees


@pytest.mark.parametrize("lora", ADAPTERS)
@pytest.mark.parametrize("answer", [30, 90])
def test_the_peak_beside_a_live_reference_is_within_a_tenth(
    lora: LoraConfig | None, answer: int, bench: Workbench, source: ModelSource
) -> None:
    facts, start = model_facts(source.directory, lora), PolicyFiles("start", source.directory)
    rows = [TokenRow(tuple(range(20, 120)), tuple(range(n, n + answer)), (True,) * answer) for n in range(200, 208)]
    forest = Forest.of([(*row.prompt_ids, *row.answer_ids) for row in rows])
    shape = BatchShape.of_forest(forest, answers=8 * answer, facts=facts)
    parts = activations(facts, shape), batch_logits(facts, shape, LOGIT_COPIES_TRAINING), live_reference(facts, shape)

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


def test_facts_need_no_weights(source: ModelSource, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((source.directory / "config.json").read_bytes())

    facts = model_facts(tmp_path, LoraConfig(r=4))

    assert (facts.num_weights, facts.layers, facts.vocab, facts.adapter_width) == (213_216, 1, 821, 28)

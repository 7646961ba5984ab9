"""How precisely numbers are computed."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from prefloop.config import LoraConfig
from prefloop.policy import (
    ChatCodec,
    ModelSource,
    PolicyFiles,
    TokenRow,
    TreeScores,
    Workbench,
    resolve_model,
    response_logps,
    response_token_scores,
)
from prefloop.sampling import Draw, LocalSampler, SamplingSettings

LORA = LoraConfig(r=4, alpha=8)


def ids(seed: int, length: int) -> tuple[int, ...]:
    return tuple(torch.randint(10, 800, (length,), generator=torch.Generator().manual_seed(seed)).tolist())


ROWS = [
    TokenRow((*ids(1, 30), *ids(2, 8)), ids(3, 12), (True,) * 12),
    TokenRow((*ids(1, 30), *ids(2, 8)), ids(4, 5), (True,) * 5),
    TokenRow((*ids(1, 30), *ids(5, 3)), ids(6, 20), (True,) * 11 + (False,) * 9),
    TokenRow(ids(7, 9), ids(8, 1), (True,)),
]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFLOOP_CACHE", str(tmp_path_factory.mktemp("cache")))
        return resolve_model("builtin:tiny")


@pytest.fixture
def bench(source: ModelSource) -> Workbench:
    return Workbench(source, ChatCodec.load(source.directory, {}), torch.device("cpu"))


@pytest.fixture
def start(source: ModelSource) -> PolicyFiles:
    return PolicyFiles(identity="start", directory=source.directory)


class NoFloat64(TorchDispatchMode):
    """A device that knows no float64, as Apple's; what comes from numpy is still on the host."""

    def __torch_dispatch__(
        self, function: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made) if function is not torch.ops.aten.lift_fresh.default else ():
            assert not isinstance(tensor, torch.Tensor) or tensor.dtype != torch.float64, function
        return made


def of_trees(model: PreTrainedModel) -> torch.Tensor:
    passed = TreeScores.of(model, ROWS)
    return passed.token_logps().sum(1) + passed.token_log_sum_sq().sum(1)


def of_rows(model: PreTrainedModel) -> torch.Tensor:
    tokens = response_token_scores(model, ROWS)
    return response_logps(model, ROWS) + tokens.log_sum_sq.sum(1)


@pytest.mark.parametrize("scores", [of_trees, of_rows])
def test_a_device_without_float64_says_the_same_to_float32_rounding(
    bench: Workbench, start: PolicyFiles, scores: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bench.for_training(start, LORA, seed=0) as trainable:
        expected = scores(trainable.model).detach()
        with pytest.raises(AssertionError), NoFloat64():
            scores(trainable.model)
        monkeypatch.setattr("prefloop.policy.precision.WITHOUT_FLOAT64", {"cpu"})
        with NoFloat64():
            found = scores(trainable.model)
            found.sum().backward()
    assert (found.dtype, expected.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)


def test_it_samples_too(bench: Workbench, start: PolicyFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = LocalSampler(bench.for_sampling(start), frozenset({bench.codec.eos_id}))
    draws = [Draw("prompt", index, index, ids(1, 9)) for index in range(3)]
    settings = SamplingSettings(max_new_tokens=6, temperature=0.8, top_p=0.9)
    expected = {one.draw.index: one for one in sampler.sample(draws, settings)}
    monkeypatch.setattr("prefloop.policy.precision.WITHOUT_FLOAT64", {"cpu"})
    with NoFloat64():
        found = list(sampler.sample(draws, settings))
    for one in found:
        assert one.token_ids == expected[one.draw.index].token_ids
        assert one.sum_logp == pytest.approx(expected[one.draw.index].sum_logp, rel=1e-5)

"""Token-level DPO from start to end: a reference that stays loaded beside the policy, or in the same weights."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import logsigmoid

from prefloop.config import LoraConfig
from prefloop.objectives import find_objective
from prefloop.policy import PolicyFiles, Workbench
from prefloop.training import ROWS, TREES, Layout, TokenExample, TrainRequest, step_plan, train

LORA = LoraConfig(r=4, alpha=8.0)
BOTH = pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
RequestFor = Callable[..., TrainRequest]


def silent(_what: str, _done: int, _count: int) -> None:
    pass


def tdpo(request: TrainRequest, form: str = "tdpo2", layout: Layout = TREES, **hyper: float) -> TrainRequest:
    objective = find_objective(form, "here")
    options: dict[str, Any] = {**objective.options().model_dump(), **hyper}
    return replace(request, objective=objective, hyper=options, layout=layout)


def adapter(bench: Workbench, request_for: RequestFor, out: Path, seed: int) -> PolicyFiles:
    """A trained one."""
    request = request_for(f"adapter-{seed}", lora=LORA, seed=seed, learning_rate=0.02)
    train(request, bench, out, silent)
    return PolicyFiles(f"adapter-{seed}", request.start.directory, out)


def divergence(bench: Workbench, policy: PolicyFiles, ref: PolicyFiles, examples: Sequence[TokenExample]) -> Any:
    """KL(ref || policy) and log-ratio of every answer by role, each sequence alone, one model after the other."""
    said: list[list[torch.Tensor]] = []
    for files in (policy, ref):
        with bench.for_scoring(files) as model, torch.no_grad():
            said.append(
                [
                    model(input_ids=torch.tensor([[*row.prompt_ids, *row.answer_ids]]))
                    .logits[0, len(row.prompt_ids) - 1 : -1]
                    .double()
                    .log_softmax(1)
                    for example in examples
                    for row in example.rows.values()
                ]
            )
    found: list[tuple[float, float]] = []
    rows = [row for example in examples for row in example.rows.values()]
    for row, log_p, log_q in zip(rows, *said, strict=True):
        counted = torch.tensor(row.counted)
        ids = torch.tensor(row.answer_ids)[:, None]
        kl = ((log_q.exp() * (log_q - log_p)).sum(1) * counted).sum()
        found.append((float(kl), float(((log_p - log_q).gather(1, ids)[:, 0] * counted).sum())))
    return torch.tensor(found, dtype=torch.float64).view(len(examples), 2, 2)


@pytest.mark.long
@BOTH
@pytest.mark.parametrize("form", ["tdpo1", "tdpo2"])
def test_it_starts_as_dpo_and_goes_its_own_way(
    request_for: RequestFor, bench: Workbench, tmp_path: Path, lora: LoraConfig | None, form: str
) -> None:
    plain = train(replace(request_for("dpo", lora=lora), layout=TREES), bench, tmp_path / "dpo" / "out", silent)
    found = train(tdpo(request_for("own", lora=lora), form), bench, tmp_path / "own" / "out", silent)
    first, of_dpo = ({name: one[0][name] for name in one[0] if name != "tokens"} for one in (found, plain))
    assert first == pytest.approx(of_dpo, rel=1e-4, abs=1e-6)
    assert abs(found[-1]["loss"] - plain[-1]["loss"]) > 1e-6 * abs(plain[-1]["loss"])
    files = [sorted(file.name for file in (tmp_path / run / "out").iterdir()) for run in ("dpo", "own")]
    assert files[0] == files[1]


@BOTH
def test_without_weight_of_the_divergence_it_is_dpo(
    request_for: RequestFor, bench: Workbench, tmp_path: Path, lora: LoraConfig | None
) -> None:
    plain = train(replace(request_for("dpo", lora=lora), layout=TREES), bench, tmp_path / "dpo" / "out", silent)
    found = train(tdpo(request_for("own", lora=lora), alpha=0.0), bench, tmp_path / "own" / "out", silent)
    for one, other in zip(plain, found, strict=True):
        assert other.pop("tokens") == one.pop("tokens") * (1 if lora is None else 2)  # the same model is its reference
        assert other == pytest.approx(one, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("layout", [ROWS, TREES], ids=["rows", "trees"])
@pytest.mark.parametrize("reference", ["off", "frozen adapter"])
def test_one_copy_of_the_weights_holds_policy_and_reference(
    request_for: RequestFor,
    bench: Workbench,
    examples: list[TokenExample],
    tmp_path: Path,
    reference: str,
    layout: Layout,
) -> None:
    """An adapter is trained on against another, or none; the first loss is that of two models loaded in turn."""
    start = adapter(bench, request_for, tmp_path / "a" / "model", 1)
    initial = PolicyFiles("initial", start.directory)
    ref = initial if reference == "off" else adapter(bench, request_for, tmp_path / "b" / "model", 2)
    request = tdpo(request_for("own", lora=LORA, start=start, references={"ref": ref}), layout=layout)
    metrics = train(request, bench, tmp_path / "own" / "out", silent)
    first = step_plan(len(examples), 4, 2, request.seed)[0]
    of_first = [examples[index] for index in first]
    kl, rho = divergence(bench, start, ref, of_first).unbind(2)
    losses = -logsigmoid(0.1 * (rho[:, 0] - rho[:, 1] - 0.5 * (kl[:, 1] - kl[:, 0])))
    weights = torch.tensor([one.weight for one in of_first], dtype=torch.float64)
    assert kl.min() > 1e-3
    assert metrics[0]["loss"] == pytest.approx(float((losses * weights).mean()), rel=1e-5)
    with bench.for_training(start, LORA, 0, live=ref) as trainable:
        assert trainable.live is not None
        assert trainable.live.model is trainable.model
        assert not [name for name in trainable.parameters() if "reference" in name]


def test_a_frozen_adapter_that_is_the_start_gives_log_2(
    request_for: RequestFor, bench: Workbench, examples: list[TokenExample], tmp_path: Path
) -> None:
    start = adapter(bench, request_for, tmp_path / "a" / "model", 1)
    request = tdpo(request_for("own", lora=LORA, start=start, references={"ref": start}))
    metrics = train(request, bench, tmp_path / "own" / "out", silent)
    first = step_plan(len(examples), 4, 2, request.seed)[0]
    weight = sum(examples[index].weight for index in first) / 4
    assert metrics[0]["loss"] == pytest.approx(weight * math.log(2), abs=1e-5)

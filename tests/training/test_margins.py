"""Margins before and after a train step, worked out again from the policies on disk."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from prefloop.config import LoraConfig, TrainStep
from prefloop.objectives import find_objective
from prefloop.policy import PolicyFiles, Workbench
from prefloop.training import ROWS, Margin, TokenExample, TrainRequest, read_margins, train

RequestFor = Callable[..., TrainRequest]
LORA = LoraConfig(r=4, alpha=8)


def silent(_what: str, _done: int, _count: int) -> None:
    pass


def told(request: TrainRequest, **changed: Any) -> TrainRequest:
    return replace(request, settings=TrainStep.model_validate({**request.settings.model_dump(), **changed}))


def ahead(bench: Workbench, policy: PolicyFiles, examples: Sequence[TokenExample]) -> list[float]:
    with bench.for_scoring(policy) as model, torch.no_grad():
        scores = ROWS.scores(model, examples, ("chosen", "rejected"), ())
    return (scores["chosen_logps"] - scores["rejected_logps"]).tolist()


def less(one: list[float], other: list[float]) -> list[float]:
    return [a - b for a, b in zip(one, other, strict=True)]


def written(folder: Path, examples: Sequence[TokenExample]) -> list[Margin]:
    found = {one.example_id: one for one in read_margins(folder)}
    return [found[one.example_id] for one in examples]


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_after_is_what_the_written_policy_says_and_before_nothing_where_the_start_is_the_reference(
    request_for: RequestFor,
    bench: Workbench,
    examples: list[TokenExample],
    tmp_path: Path,
    lora: LoraConfig | None,
) -> None:
    request = request_for("run", lora=lora)
    train(request, bench, tmp_path / "run" / "model", silent)

    found = written(tmp_path / "run", examples)
    out = tmp_path / "run" / "model"
    end = PolicyFiles("end", request.start.directory, out) if lora else PolicyFiles("end", out)
    expected = less(ahead(bench, end, examples), ahead(bench, request.start, examples))
    assert [one.after for one in found] == pytest.approx(expected, abs=1e-3)
    assert [one.before for one in found] == [0.0] * 7
    assert [one.margin for one in found] != pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("reference", ["another policy", "none"])
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_before_is_what_the_start_says_where_it_is_no_reference(
    request_for: RequestFor,
    bench: Workbench,
    examples: list[TokenExample],
    tmp_path: Path,
    lora: LoraConfig | None,
    reference: str,
) -> None:
    """A second round: it starts where the first ended."""
    first = request_for("first", lora=lora)
    train(first, bench, tmp_path / "first" / "model", silent)
    out = tmp_path / "first" / "model"
    start = PolicyFiles("start-2", first.start.directory, out) if lora else PolicyFiles("start-2", out)
    request = request_for("second", lora=lora, start=start, references={"ref": first.start})
    if reference == "none":
        simpo = find_objective("simpo", "here")
        request = replace(request, objective=simpo, hyper=simpo.options().model_dump(), references={})
    train(request, bench, tmp_path / "second" / "model", silent)

    found = written(tmp_path / "second", examples)
    out = tmp_path / "second" / "model"
    end = PolicyFiles("end", first.start.directory, out) if lora else PolicyFiles("end", out)
    of_ref = [0.0] * 7 if reference == "none" else ahead(bench, first.start, examples)
    before, after = (less(ahead(bench, policy, examples), of_ref) for policy in (start, end))
    assert [one.before for one in found] == pytest.approx(before, abs=1e-3)
    assert [one.after for one in found] == pytest.approx(after, abs=1e-3)
    assert before != pytest.approx(after, abs=1e-2)


@pytest.mark.parametrize("count", [0, 3, 7])
def test_those_that_were_least_ahead_are_measured_and_training_does_not_notice(
    request_for: RequestFor, bench: Workbench, tmp_path: Path, count: int
) -> None:
    request = told(request_for("run"), measured_margins=count)
    train(request, bench, tmp_path / "run" / "model", silent)
    train(request_for("plain"), bench, tmp_path / "plain" / "model", silent)

    lines = [json.loads(line) for line in (tmp_path / "run" / "margins.jsonl").read_text().splitlines()]
    assert len(lines) == 7
    measured = {line["example_id"] for line in lines if "after" in line}
    worst = sorted(lines, key=lambda line: line["margin"])[:count]
    assert measured == {line["example_id"] for line in worst} == {one["example_id"] for one in lines if "before" in one}
    file = "model/model.safetensors"
    assert (tmp_path / "run" / file).read_bytes() == (tmp_path / "plain" / file).read_bytes()


def test_of_the_best_step_after_is_what_its_policy_says_and_unseen_pairs_have_no_margin(
    request_for: RequestFor, bench: Workbench, examples: list[TokenExample], tmp_path: Path
) -> None:
    """Two pairs a step on turned validation pairs: best after the first step, given up after the second."""
    turned = [replace(one, rows={"chosen": one.rows["rejected"], "rejected": one.rows["chosen"]}) for one in examples]
    early = {"eval_steps": 1, "metric_for_best_model": "eval_loss", "early_stopping_patience": 1}
    request = replace(told(request_for("run", batch_size=2), **early), validation=turned)
    assert len(train(request, bench, tmp_path / "run" / "model", silent)) == 2

    found = written(tmp_path / "run", examples)
    assert sum(one.margin is None for one in found) == 3
    end = PolicyFiles("end", tmp_path / "run" / "model")
    expected = less(ahead(bench, end, examples), ahead(bench, request.start, examples))
    assert [one.after for one in found] == pytest.approx(expected, abs=1e-3)


def test_without_pairs_there_is_no_file(
    request_for: RequestFor, bench: Workbench, examples: list[TokenExample], tmp_path: Path
) -> None:
    sft = find_objective("sft", "here")
    rows = [replace(one, rows={role: one.rows["chosen"] for role in sft.roles}) for one in examples]
    request = replace(request_for("run"), objective=sft, hyper={}, references={}, examples=rows)
    train(request, bench, tmp_path / "run" / "model", silent)
    assert not (tmp_path / "run" / "margins.jsonl").exists()


def test_measured_pairs_are_ranked_by_what_the_policy_says_now() -> None:
    pairs = [
        Margin(example_id="never trained on"),
        Margin(example_id="not measured", margin=-9.0),
        Margin(example_id="learnt", margin=-3.0, before=-3.0, after=2.0),
        Margin(example_id="unlearnt", margin=-1.0, before=1.0, after=-2.0),
    ]
    ranked = [one.example_id for one in sorted(pairs, key=lambda one: one.rank)]
    assert ranked == ["unlearnt", "learnt", "not measured", "never trained on"]

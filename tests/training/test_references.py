"""Scores of references by content: what is found is what would be computed, and nothing else is ever found."""

import os
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from prefloop.config import LoraConfig
from prefloop.errors import DataError
from prefloop.objectives import find_objective
from prefloop.policy import ChatCodec, ModelSource, PolicyFiles, Workbench
from prefloop.training import (
    ROWS,
    TREES,
    Budget,
    Layout,
    TokenExample,
    TrainRequest,
    frozen_scores,
    step_plan,
    train,
)
from prefloop.training.columns import picked
from prefloop.training.loss import Scores
from prefloop.training.references import reference_scores, weights_of
from prefloop.training.score_cache import ScoreCache

RequestFor = Callable[..., TrainRequest]
PASSES = 7
"""In which seven pairs pass, at 100 tokens a pass."""


def silent(_what: str, _done: int, _count: int) -> None:
    pass


def keys_in(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as connection:
        return [key for (key,) in connection.execute("select key from scores")]


def asked(request: TrainRequest, bench: Workbench, scored: list[int] | None = None) -> Scores:
    """What the reference of a request says; `scored` gets how many examples were done after each pass that was made."""
    settings, (policy,) = request.settings, request.references.values()
    epoch = step_plan(len(request.examples), settings.batch_size, 1, request.seed)
    made = [] if scored is None else scored
    return reference_scores(
        "ref",
        policy,
        weights_of(policy),
        request,
        request.examples,
        epoch,
        bench,
        lambda _what, done, _count: made.append(done),
    )


def bits(scores: Scores) -> dict[str, bytes]:
    return {
        name: b"".join(one.numpy().tobytes() for one in ([of] if isinstance(of, torch.Tensor) else of))
        for name, of in scores.items()
    }


@pytest.fixture
def moved(source: ModelSource, tmp_path: Path) -> PolicyFiles:
    """A policy of other weights than the source's."""
    directory = tmp_path / "moved"
    shutil.copytree(source.directory, directory)
    change_weights(directory, 1.01)
    return PolicyFiles("moved", directory)


def change_weights(directory: Path, factor: float) -> None:
    """Under the same name, with the same size and time stamps."""
    (file,) = directory.glob("model*.safetensors")
    stat, tensors = file.stat(), load_file(file)
    save_file({name: tensor * factor for name, tensor in tensors.items()}, file, {"format": "pt"})
    assert file.stat().st_size == stat.st_size
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_training_with_another_beta_loads_no_reference_and_gives_the_bytes_of_training_without_cache(
    request_for: RequestFor, bench: Workbench, moved: PolicyFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Path] = []
    load = Workbench._load

    def counted(self: Workbench, directory: Path, *how: Any) -> Any:
        loaded.append(directory)
        return load(self, directory, *how)

    monkeypatch.setattr(Workbench, "_load", counted)
    first = request_for("first", references={"ref": moved})
    train(first, bench, tmp_path / "first" / "out", silent)
    assert moved.directory in loaded

    settings = first.settings.model_copy(update={"epochs": 3, "learning_rate": 2e-3})
    again = replace(request_for("again"), references={"ref": moved}, hyper={"beta": 0.4}, settings=settings)
    fresh = replace(again, scratch=tmp_path / "fresh", score_cache=tmp_path / "fresh.sqlite")
    loaded.clear()
    said: list[str] = []
    bench.base(first.start.directory)
    out = [tmp_path / name / "out" for name in ("again", "fresh")]
    metrics = train(
        replace(again, score_cache=first.score_cache), bench, out[0], lambda what, _done, _count: said.append(what)
    )

    assert moved.directory not in loaded
    assert set(said) == {"train"}
    fresh.scratch.mkdir()
    assert train(fresh, bench, out[1], silent) == metrics
    assert moved.directory in loaded
    one, other = ((folder / "model.safetensors").read_bytes() for folder in out)
    assert one == other


def test_a_loss_of_the_same_quantities_and_validation_find_what_was_scored(
    request_for: RequestFor, bench: Workbench, tmp_path: Path
) -> None:
    request = replace(request_for("run"), validation=request_for("run").examples[:3])
    train(request, bench, tmp_path / "out", silent)
    before = sorted(keys_in(request.score_cache))
    ipo = find_objective("ipo", "here")
    other = replace(
        request_for("other"), validation=request.validation, objective=ipo, hyper=ipo.options().model_dump()
    )
    said: list[str] = []
    train(
        replace(other, score_cache=request.score_cache),
        bench,
        tmp_path / "other" / "out",
        lambda what, _done, _count: said.append(what),
    )
    assert set(said) == {"train"}
    assert sorted(keys_in(request.score_cache)) == before


def test_new_weights_under_the_same_path_and_time_stamp_are_scored(
    request_for: RequestFor, source: ModelSource, codec: ChatCodec, moved: PolicyFiles
) -> None:
    request = request_for("run", references={"ref": moved})
    before = asked(request, Workbench(source, codec, torch.device("cpu")))
    change_weights(moved.directory, 1.01)

    scored: list[int] = []
    after = asked(request, Workbench(source, codec, torch.device("cpu")), scored)

    assert len(scored) == PASSES
    assert (after["chosen_logps"] != before["chosen_logps"]).all()


def test_another_adapter_on_the_same_weights_is_scored(
    request_for: RequestFor, bench: Workbench, tmp_path: Path
) -> None:
    request = request_for("run", lora=LoraConfig(r=4, alpha=8.0), learning_rate=3e-2)
    train(request, bench, tmp_path / "out", silent)
    adapted = replace(request, references={"ref": replace(request.start, adapter=tmp_path / "out")})
    scored: list[int] = []
    assert bits(asked(adapted, bench, scored)) != bits(asked(request, bench))
    assert len(scored) == PASSES


@pytest.mark.parametrize("what", ["token", "counted", "role"])
def test_only_the_pass_with_a_changed_example_is_scored_again(
    request_for: RequestFor, bench: Workbench, examples: list[TokenExample], what: str
) -> None:
    request = request_for("run", batch_size=1)
    before = asked(request, bench)
    row = examples[2].rows["chosen"]
    changed = {
        "token": {"chosen": replace(row, answer_ids=(row.answer_ids[0] + 1, *row.answer_ids[1:]))},
        "counted": {"chosen": replace(row, counted=(False, *row.counted[1:]))},
        "role": {"chosen": examples[2].rows["rejected"], "rejected": row},
    }[what]
    other = [replace(one, rows={**one.rows, **changed}) if one is examples[2] else one for one in examples]

    scored: list[int] = []
    after = asked(replace(request, examples=other), bench, scored)

    assert scored == [len(examples)]
    moved = (after["chosen_logps"] != before["chosen_logps"]).nonzero().flatten().tolist()
    assert moved == [2]


@pytest.mark.parametrize("what", ["layout", "precision", "functionals", "budget", "seed", "threads", "version"])
def test_what_decides_how_scores_are_rounded_is_part_of_their_key(
    request_for: RequestFor, bench: Workbench, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is found besides is bit for bit what a run with an empty cache computes."""
    request = request_for("run", budget=Budget(200))
    asked(request, bench)
    before = keys_in(request.score_cache)
    wpo = find_objective("wpo", "here")
    other = {
        "layout": replace(request, layout=TREES),
        "precision": replace(request, settings=request.settings.model_copy(update={"precision": "bfloat16"})),
        "functionals": replace(request, objective=wpo),
        "budget": replace(request, budget=Budget(400)),
        "seed": replace(request, seed=12),
    }.get(what, request)
    if what == "threads":
        monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    if what == "version":
        monkeypatch.setattr("prefloop.training.references.version", lambda _package: "77")

    scored: list[int] = []
    found = asked(other, bench, scored)

    assert scored
    assert len(keys_in(request.score_cache)) == len(before) + len(scored)
    empty = request.score_cache.with_name("empty.sqlite")
    assert bits(found) == bits(asked(replace(other, score_cache=empty), bench))


@pytest.mark.parametrize("layout", [ROWS, TREES], ids=lambda one: one.name)
def test_scores_are_those_of_the_first_epochs_passes_in_one_go(
    request_for: RequestFor, bench: Workbench, examples: list[TokenExample], layout: Layout
) -> None:
    """Also where a part of them was there before."""
    request = request_for("run", layout=layout, budget=Budget(200))
    asked(request, bench)
    with closing(sqlite3.connect(request.score_cache, isolation_level=None)) as connection:
        connection.execute("delete from scores where key = (select min(key) from scores)")
    found = asked(request, bench)
    plan = step_plan(7, 4, 1, request.seed)
    with bench.for_scoring(request.start) as model:
        for batch, values in frozen_scores(model, examples, ("chosen", "rejected"), plan, 200, (), layout):
            for name, of_batch in values.items():
                assert picked(found[name], batch).tolist() == of_batch


def test_a_killed_scoring_costs_the_pass_that_it_was_in(
    request_for: RequestFor, bench: Workbench, tmp_path: Path
) -> None:
    request = request_for("run")
    done: list[int] = []

    def killed(what: str, number: int, _count: int) -> None:
        assert what == "score with ref"
        done.append(number)
        if len(done) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(request, bench, tmp_path / "out", killed)
    scored: list[int] = []
    found = asked(request, bench, scored)
    assert len(scored) == PASSES - 2
    assert scored[-1] == len(request.examples)
    assert bits(found) == bits(asked(replace(request, score_cache=tmp_path / "empty.sqlite"), bench))


def test_damaged_scores_are_computed_again_and_a_damaged_file_is_named(
    request_for: RequestFor, bench: Workbench
) -> None:
    request = request_for("run")
    before = bits(asked(request, bench))
    with closing(sqlite3.connect(request.score_cache, isolation_level=None)) as connection:
        connection.execute("update scores set scores = replace(scores, '1', '2')")
    scored: list[int] = []
    assert bits(asked(request, bench, scored)) == before
    assert len(scored) == PASSES

    request.score_cache.write_bytes(b"no database" * 1000)
    with pytest.raises(DataError, match=r"scores\.sqlite: cannot be used \(file is not a database\)\. Remove it"):
        asked(request, bench)


def test_numbers_are_kept_bit_for_bit(tmp_path: Path) -> None:
    values: Sequence[float] = [0.1 + 0.2, -1e-320, -0.0, float("inf"), float("nan"), 123456.789e30]
    with ScoreCache.at(tmp_path / "cache") as cache:
        cache.keep("key", {"a_logps": list(values)})
    with ScoreCache.at(tmp_path / "cache") as cache:
        found = cache.find("key")
        assert found is not None
        assert np.array(found["a_logps"]).tobytes() == np.array(values).tobytes()
        assert cache.find("other") is None


def test_what_a_base_in_4_bits_says_is_not_what_the_whole_one_said(
    request_for: RequestFor, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its passes are asked for again; the quantiser itself needs a GPU."""
    lora = LoraConfig(r=4, alpha=8.0)
    request = request_for("run", lora=lora)
    asked(request, bench)
    whole, seen = bench.for_scoring, list[Any]()

    def noted(policy: PolicyFiles, precision: Any, quantize: Any) -> Any:
        seen.append(quantize)
        return whole(policy, precision)

    monkeypatch.setattr(bench, "for_scoring", noted)
    four_bits = request.settings.model_copy(update={"lora": lora.model_copy(update={"quantize": "nf4"})})
    scored: list[int] = []
    asked(replace(request, settings=four_bits), bench, scored)
    assert (seen, len(scored)) == (["nf4"], PASSES)

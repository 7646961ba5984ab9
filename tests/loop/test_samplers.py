"""Sample steps of real runs on builtin:tiny: what they can be told, and answers that were sampled before."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefloop.errors import DataError
from prefloop.loop import RunResult

from .conftest import stable_files

SmallRun = Callable[..., RunResult]
SAMPLES = "round-00/samples/part-00000.jsonl"


def responses(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / SAMPLES).read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("setting", "value"),
    [("top_k", 2), ("min_p", 0.5), ("repetition_penalty", 2.0), ("stop", [" the"]), ("stop_ids", [300])],
)
def test_a_setting_reaches_the_sampler_and_is_recorded(small_run: SmallRun, setting: str, value: object) -> None:
    plain = responses(small_run(name="plain", until="samples").run)
    told = responses(small_run(f"samples.{setting}={value}", name="told", until="samples").run)

    assert [one["settings"] for one in plain] == [{"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 24}] * 18
    assert [one["settings"][setting] for one in told] == [value] * 18
    assert [one["seed"] for one in told] == [one["seed"] for one in plain]
    if setting != "stop_ids":
        assert [one["token_ids"] for one in told] != [one["token_ids"] for one in plain]


def test_replayed_samples_give_the_same_run_byte_by_byte(small_run: SmallRun, tmp_path: Path) -> None:
    first = small_run(name="first")
    kept = tmp_path / "kept"
    shutil.copytree(first.run / "round-00" / "samples", kept)

    again = small_run(f"samples.sampler={{type: replay, file: {kept}}}", name="again")

    before, after = stable_files(first.run), stable_files(again.run)
    naming_policies = ("round-00/evaluation-samples", "round-00/evaluation-judgments", "round-00/summary.json")
    same = {name for name in before if not name.startswith((*naming_policies, "round-00/policy/policy.json"))}
    assert after.keys() == before.keys()
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    assert {SAMPLES, "round-00/policy/training.jsonl", "round-00/evaluation.json"} < same


def test_another_content_of_the_replayed_file_runs_again_and_another_place_does_not(
    small_run: SmallRun, tmp_path: Path
) -> None:
    first = small_run(name="first", until="samples")
    for name in ("kept", "moved"):
        shutil.copytree(first.run / "round-00" / "samples", tmp_path / name)
    replayed = small_run(f"samples.sampler={{type: replay, file: {tmp_path / 'kept'}}}", name="again", until="samples")
    assert replayed.made[-1] == "round-00/samples"

    moved = f"samples.sampler={{type: replay, file: {tmp_path / 'moved'}}}"
    assert small_run(moved, name="again", until="samples").made == ()
    file = tmp_path / "moved" / "part-00000.jsonl"
    file.write_text(file.read_text(encoding="utf-8").replace('"index": 2', '"index": 7'), encoding="utf-8")
    with pytest.raises(DataError, match=r"has 3 answers to prompt \w+ \(.*\), expected 3, index 0 and up"):
        small_run(moved, name="again", until="samples")


def test_a_file_that_is_not_there_is_said_before_the_run(small_run: SmallRun, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"loop.tiny: samples: sampler.file nowhere: there is no such file"):
        small_run("samples.sampler={type: replay, file: nowhere}")
    assert not (tmp_path / "run").exists()

"""What gc removes, what it leaves, and that a run goes on afterwards as if nothing had been removed."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from prefloop.cli.gc import gc_command
from prefloop.errors import DataError, RunLockedError
from prefloop.loop import RunResult
from prefloop.loop.stage import locked
from prefloop.report import read_comparison, read_run

from .conftest import stable_files

pytestmark = pytest.mark.long

SmallRun = Callable[..., RunResult]
SCORES = {".scores.sqlite": "scores that only training again would read"}
ROLLED_BACK = ("gate={require: better, by: judge, action: roll_back}", "policy.learning_rate=1e-9")


def items(found: Mapping[str, object]) -> dict[str, str]:
    return {item["path"]: item["why"] for item in found["items"]}


def decision(run: Path, round_name: str) -> str:
    return json.loads((run / round_name / "summary.json").read_text())["decision"]


def test_a_run_without_waste_loses_only_scores_that_training_again_would_read(small_run: SmallRun) -> None:
    run = small_run().run
    before = stable_files(run)
    size = (run / ".scores.sqlite").stat().st_size

    found = gc_command(run, yes=True)

    assert (items(found), found["bytes"]) == (SCORES, size)
    assert not (run / ".scores.sqlite").exists()
    assert gc_command(run, yes=True) == {"run": str(run), "removed": False, "bytes": 0, "items": []}
    assert small_run().made == ()
    assert small_run("policy.learning_rate=2e-3", until="policy").made == ("round-00/policy",)
    assert small_run(until="policy").made == ()
    assert stable_files(run).items() >= {name: of for name, of in before.items() if "/policy/" in name}.items()


def test_scores_stay_while_training_is_under_way(small_run: SmallRun) -> None:
    run = small_run(until="policy").run
    (run / ".scratch" / "1111111111111111").mkdir(parents=True)

    assert items(gc_command(run, yes=True)) == {}
    assert (run / ".scores.sqlite").is_file()


def test_without_a_terminal_and_yes_it_only_shows(small_run: SmallRun, capsys: pytest.CaptureFixture[str]) -> None:
    small_run(until="samples")
    run = small_run("samples.temperature=0.5", until="samples").run
    before = {file: file.stat().st_size for file in run.rglob("*")}
    size = sum(file.stat().st_size for file in (run / "superseded").rglob("*") if file.is_file())

    found = gc_command(run, yes=False)

    assert not found["removed"]
    assert found["bytes"] == size
    assert list(items(found).values()) == ["replaced by a changed recipe"]
    assert "would be removed; nothing was. Give --yes to remove them." in capsys.readouterr().out
    assert {file: file.stat().st_size for file in run.rglob("*")} == before


def test_a_removed_superseded_artifact_is_made_again_when_its_value_is_set_back(small_run: SmallRun) -> None:
    before = stable_files(small_run(until="samples").run)
    run = small_run("samples.temperature=0.5", until="samples").run
    gc_command(run, yes=True)

    back = small_run(until="samples")

    assert back.made == ("round-00/samples",)
    assert stable_files(run) == before


def test_weights_of_a_rolled_back_round_go_and_nothing_misses_them(small_run: SmallRun) -> None:
    whole = small_run(*ROLLED_BACK, "rounds=3", name="whole").run
    run = small_run(*ROLLED_BACK, "rounds=2").run
    assert decision(run, "round-00") == "rolled_back"
    shown = read_run(run)

    found = gc_command(run, yes=True)

    assert items(found) == {
        "round-00/policy/model": "weights of a round that was rolled back",
        "round-01/policy/model": "weights of a round that was rolled back",
        **SCORES,
    }
    assert not (run / "round-00" / "policy" / "model").exists()
    assert read_run(run) == shown
    assert read_comparison([run, whole])
    assert small_run(*ROLLED_BACK, "rounds=2").made == ()
    assert {path.split("/")[0] for path in small_run(*ROLLED_BACK, "rounds=3").made} == {"round-02"}
    removed = ("round-00/policy/model", "round-01/policy/model")
    expected = {name: content for name, content in stable_files(whole).items() if not name.startswith(removed)}
    assert stable_files(run) == expected


def test_removed_weights_come_back_with_the_same_bytes_when_they_are_read(small_run: SmallRun) -> None:
    run = small_run(*ROLLED_BACK).run
    before = stable_files(run)
    gc_command(run, yes=True)

    again = small_run(*ROLLED_BACK, "evaluation.max_new_tokens=20")

    assert "round-00/policy" in again.made
    weights = {name: content for name, content in before.items() if name.startswith("round-00/policy/")}
    assert {name: content for name, content in stable_files(run).items() if name in weights} == weights


def test_weights_of_accepted_rounds_stay_and_states_between_blocks_go(small_run: SmallRun) -> None:
    run = small_run("blocks=2", "rounds=2", until="round-01/policy").run
    before = stable_files(run)
    assert decision(run, "round-00") == "accepted"
    (state,) = (run / "round-00" / "block-00" / "policy").glob("checkpoint-*")

    found = gc_command(run, yes=True)

    name = state.relative_to(run).as_posix()
    assert items(found) == {name: "optimiser state of a closed round", **SCORES}
    after = stable_files(run)
    assert {kept for kept in before if not kept.startswith(name)} == after.keys()
    assert all(path.startswith("round-01/") for path in small_run("blocks=2", "rounds=2").made)


def test_what_crashes_left_goes_but_the_step_that_was_begun_last_stays(small_run: SmallRun) -> None:
    run = small_run(until="samples").run
    for name in (".making/0000000000000000", ".scratch/1111111111111111", ".scratch/2222222222222222"):
        (run / name).mkdir(parents=True)
        (run / name / "wave").write_text("begun")

    found = gc_command(run, yes=True)

    assert items(found) == {
        ".making/0000000000000000": "left by a crash",
        ".scratch/1111111111111111": "left by a crash",
    }
    assert (run / ".scratch" / "2222222222222222" / "wave").is_file()


def test_a_run_that_somebody_writes_and_a_folder_that_is_no_run_are_refused(
    small_run: SmallRun, tmp_path: Path
) -> None:
    run = small_run(until="prompts").run

    with locked(run), pytest.raises(RunLockedError, match="is writing this run"):
        gc_command(run, yes=True)
    with pytest.raises(DataError, match=r"not a run folder, it has no journal\.sqlite\. Name the folder"):
        gc_command(tmp_path, yes=True)
    assert not (tmp_path / ".lock").exists()

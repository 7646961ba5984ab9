"""Real runs on builtin:tiny: what is made again, what is not, and that bytes do not change."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from prefloop.errors import RunLockedError
from prefloop.loop import Progress, RunResult
from prefloop.loop.stage import Stage

from .conftest import stable_files

pytestmark = pytest.mark.long

SmallRun = Callable[..., RunResult]


def test_the_same_command_again_makes_nothing(small_run: SmallRun) -> None:
    first = small_run()
    before = stable_files(first.run)

    again = small_run()

    assert len(first.made) == 13
    assert again.made == ()
    assert stable_files(again.run) == before


def test_two_runs_of_one_recipe_are_equal_byte_by_byte(small_run: SmallRun) -> None:
    assert stable_files(small_run(name="one").run) == stable_files(small_run(name="two").run)


def test_another_seed_makes_other_samples(small_run: SmallRun) -> None:
    one, two = small_run(name="one", until="samples"), small_run("seed=1", name="two", until="samples")

    samples = "round-00/samples/part-00000.jsonl"
    assert stable_files(one.run)[samples] != stable_files(two.run)[samples]


def test_more_rounds_run_nothing_old_again(small_run: SmallRun) -> None:
    before = stable_files(small_run().run)

    more = small_run("rounds=2")

    assert {path.split("/")[0] for path in more.made} == {"round-01"}
    after = stable_files(more.run)
    assert {name: after[name] for name in before} == before


def test_a_changed_value_runs_exactly_its_dependents_and_setting_it_back_finds_the_old_ones(
    small_run: SmallRun,
) -> None:
    before = stable_files(small_run().run)

    changed = small_run("policy.learning_rate=2e-3")
    assert changed.made == (
        "round-00/policy",
        "round-00/evaluation-samples",
        "round-00/evaluation-judgments",
        "round-00/evaluation.json",
        "round-00/summary.json",
    )
    assert list((changed.run / "superseded").glob("*/policy"))

    back = small_run()
    assert back.made == ()
    assert stable_files(back.run) == before


def test_another_suite_runs_only_the_evaluations(small_run: SmallRun) -> None:
    small_run()

    changed = small_run("evaluation.count=4")

    assert all("evaluation" in path or "summary" in path for path in changed.made)


def test_the_machine_is_outside_every_identity(small_run: SmallRun) -> None:
    small_run()

    assert small_run("machine={rows: 2, tokens_per_batch: 64, checkpoint_steps: 1, threads: 2}").made == ()


def test_a_deleted_folder_is_made_again_with_the_same_bytes(small_run: SmallRun) -> None:
    first = small_run()
    before = stable_files(first.run)
    shutil.rmtree(first.run / "round-00" / "samples")
    shutil.rmtree(first.run / "round-00" / "policy")

    again = small_run()

    assert again.made == ("round-00/samples", "round-00/policy")
    assert stable_files(again.run) == before


def test_a_damaged_artifact_is_made_again_when_it_is_read(small_run: SmallRun) -> None:
    first = small_run(until="samples")
    before = stable_files(first.run)
    shard = first.run / "round-00" / "samples" / "part-00000.jsonl"
    shard.write_bytes(shard.read_bytes()[:-40])

    again = small_run(until="judgments")

    assert again.made == ("round-00/samples", "round-00/judgments")
    assert stable_files(again.run)["round-00/samples/part-00000.jsonl"] == before["round-00/samples/part-00000.jsonl"]


def test_equal_artifacts_are_copied_from_a_run_that_may_be_reused(small_run: SmallRun) -> None:
    first = small_run(name="first")

    second = small_run("policy.learning_rate=2e-3", name="second", reuse=first.run)

    assert second.made[0] == "round-00/policy"
    samples = "round-00/samples/part-00000.jsonl"
    assert stable_files(second.run)[samples] == stable_files(first.run)[samples]


def test_until_stops_after_a_step_of_a_round(small_run: SmallRun) -> None:
    stopped = small_run("rounds=2", until="round-01/samples")

    assert stopped.made[-1] == "round-01/samples"


def test_a_second_writer_is_refused(small_run: SmallRun) -> None:
    first = small_run(until="prompts")

    with (
        Stage(first.run, None, Progress()),  # the lock needs no resources
        pytest.raises(RunLockedError, match=r"run: process \d+ is writing this run\. Wait for it"),
    ):
        small_run()


def test_blocks_go_on_with_one_optimiser_and_have_folders_of_their_own(small_run: SmallRun) -> None:
    done = small_run("blocks=2")

    first, second = (done.run / "round-00" / f"block-0{number}" / "policy" for number in (0, 1))
    rates = [
        json.loads(line)["learning_rate"]
        for block in (first, second)
        for line in (block / "training.jsonl").read_text().splitlines()
    ]
    assert len(rates) == 6
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert max(rates[3:]) < max(rates[:3])
    assert list(first.glob("checkpoint-*/state.safetensors"))


def test_nothing_on_disk_names_a_clock_a_path_or_the_run(small_run: SmallRun) -> None:
    done = small_run(name="a-telling-name")

    for name, content in stable_files(done.run).items():
        if not name.endswith(".safetensors"):
            assert b"a-telling-name" not in content, name
            assert str(done.run.parent).encode() not in content, name
            assert b"2026-" not in content, name


def test_evaluation_says_what_the_interface_promises(small_run: SmallRun) -> None:
    done = small_run("judgments={judge: {type: vader, length_bias: 0.02}}")

    evaluation = json.loads((done.run / "round-00" / "evaluation.json").read_text())
    for opponent in ("initial", "previous"):
        for judge in ("judge", "truth"):
            duel = evaluation["against"][opponent][judge]
            assert {"win_rate", "length_controlled_winrate", "interval", "lc_interval", "n"} <= duel.keys()
            assert duel["n"] == 5
    assert evaluation["kl"]["standard_error"] > 0


def test_a_policy_is_an_ordinary_directory_for_transformers(small_run: SmallRun) -> None:
    transformers = pytest.importorskip("transformers")
    done = small_run()

    directory = done.run / "round-00" / "policy" / "model"
    model = transformers.AutoModelForCausalLM.from_pretrained(directory)
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    assert model.config.model_type == "llama"
    assert tokenizer.chat_template


def test_no_usable_pair_is_one_line_and_keeps_finished_steps(small_run: SmallRun, tmp_path: Path) -> None:
    with pytest.raises(
        Exception, match=r"round-00/pairs: no usable pair in 6 prompts \(margin too small 6;.*Raise samples"
    ) as error:
        small_run("pairs.min_margin=1000")

    assert error.type.__name__ == "DataError"
    assert (tmp_path / "run" / "round-00" / "judgments" / "part-00000.jsonl").is_file()

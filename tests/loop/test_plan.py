"""A plan says what a run then does; the dry pass changes no byte of it and fails before anything is written."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from prefloop.cli.plan import plan_command
from prefloop.config import load_recipe
from prefloop.errors import DataError
from prefloop.loop import Plan, Progress, RunResult, plan_recipe, run_recipe
from prefloop.loop.rounds import rounds
from prefloop.loop.scope import Scope
from prefloop.loop.stage import Stage
from prefloop.loop.steps import Resources
from prefloop.loop.wiring import model_artifact
from prefloop.policy import resolve_model, workbench

from .conftest import SMALL, stable_files

pytestmark = pytest.mark.long

SmallRun = Callable[..., RunResult]
VALIDATED = ("data.validation={share: 0.3}", "policy={eval_steps: 1, metric_for_best_model: eval_loss}")


def plan_of(run: Path, *overrides: str, recipe: str = "loop.tiny") -> Plan:
    return plan_recipe(load_recipe(recipe, (*(SMALL if recipe == "loop.tiny" else ()), *overrides)), run)


def counts(plan: Plan, kind: str) -> dict[str, dict[str, int]]:
    return {step.path: dict(getattr(step, kind)) for step in plan.steps if getattr(step, kind)}


def test_a_plan_counts_what_a_recipe_asks_for_at_most(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "run")

    assert counts(plan, "at_most") == {
        "setup/evaluation-prompts": {"prompts": 5},
        "setup/evaluation-initial": {"answers": 5, "tokens": 5 * 24},
        "setup/evaluation-initial-judgments": {"judge_calls": 5},
        "round-00/prompts": {"prompts": 6},
        "round-00/samples": {"answers": 18, "tokens": 18 * 24},
        "round-00/judgments": {"judge_calls": 18},
        "round-00/pairs": {"pairs": 6},
        "round-00/policy": {"optimiser_steps": 3},
        "round-00/evaluation-samples": {"answers": 5, "tokens": 5 * 24},
        "round-00/evaluation-judgments": {"judge_calls": 5},
    }
    assert {step.status for step in plan.steps} == {"new"}
    assert [step.price for step in plan.steps if step.type == "judge"] == [0.0, 0.0, 0.0]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("rule", "pairs"), [("best_worst", 6), ("all_pairs", 6 * 6)])
def test_a_rule_of_all_pairs_makes_at_most_as_many_as_there_are(tmp_path: Path, rule: str, pairs: int) -> None:
    """Six prompts with four answers each."""
    plan = plan_of(tmp_path / "run", f"pairs={{rule: {rule}}}", "samples.num_samples=4")

    assert counts(plan, "at_most")["round-00/pairs"] == {"pairs": pairs}


def test_what_is_done_is_said_with_its_numbers_and_lets_expect_the_rest(small_run: SmallRun) -> None:
    done = small_run(until="round-00/pairs")

    plan = plan_of(done.run, "rounds=2")

    steps = {step.path: step for step in plan.steps}
    assert [step.path for step in plan.steps if step.status == "kept"] == list(done.made)
    tokens, pairs = steps["round-00/samples"].actual["tokens"], steps["round-00/pairs"].actual["pairs"]
    assert steps["round-01/samples"].expected == {"answers": 18, "tokens": tokens}
    assert steps["round-01/pairs"].expected == {"pairs": pairs}
    assert steps["round-01/policy"].expected == {"optimiser_steps": -(-pairs // 2)}
    assert steps["round-00/samples"].at_most["tokens"] == 18 * 24


def test_a_changed_value_is_planned_again(small_run: SmallRun) -> None:
    done = small_run()

    plan = plan_of(done.run, "policy.learning_rate=5e-4")

    assert [step.path for step in plan.steps if step.status == "again"][:2] == [
        "round-00/policy",
        "round-00/evaluation-samples",
    ]


def test_what_a_value_set_back_finds_is_planned_as_done(
    small_run: SmallRun, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = counts(plan_of(small_run(until="samples").run), "actual")["round-00/samples"]["tokens"]
    run = small_run("samples.temperature=0.5", until="samples").run

    found = plan_command("loop.tiny", run, SMALL)

    (step,) = [step for step in found["steps"] if step["path"] == "round-00/samples"]
    assert (step["status"], step["actual"]["tokens"]) == ("found", tokens)
    assert "steps, 5 of them done; " in capsys.readouterr().out


def test_given_pairs_are_counted_and_their_longest_examples_measured(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    rows = [
        {"prompt": "How are you?", "chosen": "Fine. " * n, "rejected": "Bad."} for n in (1, 2, 40)
    ]  # 6 n + 1 tokens
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))

    plan = plan_recipe(load_recipe("offline.tiny", [f"data={pairs}", "policy.batch_size=2"]), tmp_path / "run")

    assert counts(plan, "at_most")["round-00/pairs"] == {"pairs": 3}
    assert counts(plan, "at_most")["round-00/policy"] == {"optimiser_steps": 2}
    assert "round-00/pairs" not in counts(plan, "expected")
    training = next(need for need in plan.needs if need.work == "training")
    assert training.shape == "4 answers over 271 tokens, 264 of them predicted"


def test_full_fine_tuning_holds_one_copy_and_lora_an_adapter_beside_it(tmp_path: Path) -> None:
    full, lora = (
        {part.name: part for need in plan_of(tmp_path, *change).needs if need.work == "training" for part in need.parts}
        for change in ((), ("policy.lora=8",))
    )

    assert full["weights"].bytes == 4 * 213_216
    assert full["optimiser"].bytes == 2 * full["gradients"].bytes == 2 * 4 * 213_216
    assert lora["weights"].bytes == 4 * 213_216
    assert lora["adapter"].bytes == lora["gradients"].bytes == 4 * 9_984
    assert "adapter" not in full


@pytest.mark.parametrize(("optimizer", "moments"), [("adamw", 2), ("rmsprop", 1)])
def test_memory_and_disk_follow_what_the_optimiser_remembers(optimizer: str, moments: int, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, f"policy.optimizer={optimizer}")
    held = {part.name: part for need in plan.needs if need.work == "training" for part in need.parts}["optimiser"]
    (kept,) = (part for part in plan.disk if part.name == "checkpoints")

    assert held.bytes == moments * 4 * 213_216
    assert held.formula == f"213,216 trained weights x {moments} ({optimizer}'s moments) x 4 bytes"
    assert kept.bytes == 2 * (1 + moments) * 4 * 213_216
    three = plan_of(tmp_path, f"policy.optimizer={optimizer}", "machine.keep_last=3").disk
    assert [part.bytes for part in three if part.name == "checkpoints"] == [2 * kept.bytes]
    choosing = plan_of(tmp_path, f"policy.optimizer={optimizer}", *VALIDATED, recipe="offline.tiny").disk
    assert [part.bytes for part in choosing if part.name == "checkpoints"] == [3 * kept.bytes // 2]


def test_what_was_predicted_stands_beside_what_came_out(small_run: SmallRun) -> None:
    done = small_run()

    rows = {row.name: row for row in done.compared}
    assert list(rows) == ["answers", "tokens", "judge_calls", "pairs", "optimiser_steps", "memory", "disk"]
    assert (rows["answers"].at_most, rows["answers"].actual) == (28, 28)
    tokens = rows["tokens"]
    assert tokens.at_most == 28 * 24
    assert 0 < tokens.actual <= tokens.at_most
    assert tokens.expected is not None
    assert tokens.actual_of_expected is not None
    assert 0.5 < tokens.expected / tokens.actual_of_expected < 2
    assert rows["disk"].expected == pytest.approx(rows["disk"].actual, rel=0.3)
    assert small_run().compared == ()


def test_a_run_without_the_dry_pass_has_the_same_bytes(small_run: SmallRun, tmp_path: Path) -> None:
    loaded = load_recipe("loop.tiny", SMALL)
    source = resolve_model("builtin:tiny")
    model = model_artifact(source.identity, source.directory)
    bare = tmp_path / "bare"
    bare.mkdir()

    with Stage(bare, Resources(source, {}, loaded.recipe.machine), Progress()) as stage:
        assert len(list(rounds(loaded.recipe, Scope(loaded.recipe, model, model), stage))) == 13

    assert stable_files(small_run().run) == stable_files(bare)


def test_the_dry_pass_is_skipped_when_nothing_is_left_to_train(
    small_run: SmallRun, capsys: pytest.CaptureFixture[str]
) -> None:
    for until, is_dry in (("samples", False), ("policy", True), (None, False)):
        small_run(until=until)
        assert ("dry pass of the largest micro-batch" in capsys.readouterr().err) is is_dry


@pytest.mark.slow
def test_what_would_not_fit_otherwise_has_its_layers_computed_again(
    small_run: SmallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    passes: list[str] = []
    recomputed_layers = workbench.recomputed_layers
    monkeypatch.setattr(workbench, "recomputed_layers", lambda base: passes.append("again") or recomputed_layers(base))
    plain = small_run().run
    assert not passes
    monkeypatch.setattr("prefloop.loop.appraisal.available_memory", lambda: 10**6)
    loaded = load_recipe("loop.tiny", SMALL)
    run_recipe(loaded, tmp_path / "scarce", Progress())
    assert "memory: round-00/policy would not fit: layers are computed again" in capsys.readouterr().err
    assert len(passes) == 2  # the dry pass, and the train step
    assert stable_files(tmp_path / "scarce") == stable_files(plain)
    (need,) = (need for need in plan_of(tmp_path / "plan").needs if need.work == "training")
    assert need.recompute
    assert need.shape.endswith(", layers computed again")
    assert {"layer inputs"} < {part.name for part in need.parts}
    (need,) = (
        need
        for need in plan_of(tmp_path / "no", "machine.gradient_checkpointing=false").needs
        if need.work == "training"
    )
    assert not need.recompute


OUT_OF_MEMORY = """
import resource
import sys

from prefloop.cli import main
from prefloop.loop import run_recipe
from prefloop.loop.machine import _status

limit = _status("VmSize") + 300 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.argv = ["prefloop", "run", "loop.tiny", "--run", sys.argv[1], *sys.argv[2:]]
main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are Linux's")
@pytest.mark.slow
def test_what_does_not_fit_is_one_line_before_anything_is_written(tmp_path: Path) -> None:
    greedy = [
        "machine.gradient_checkpointing=false",
        "machine.tokens_per_batch=100000",
        "samples.max_new_tokens=1500",
        "machine.threads=1",
        "rounds=1",
    ]
    settings = [word for setting in greedy for word in ("--set", setting)]

    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY, str(tmp_path / "run"), *settings],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )

    assert done.returncode == 2, done.stderr
    *notes, error = done.stderr.splitlines()
    assert error.startswith(
        "prefloop: recipe loop.tiny: round-00/policy does not fit into memory: its largest micro-batch, "
    )
    assert "weights 853 kB, gradients 853 kB, optimiser 1.71 MB, activations " in error
    assert error.endswith(
        "To make it fit, lower machine.tokens_per_batch, samples.max_new_tokens or policy.max_length, "
        "or set policy.lora."
    )
    assert any(note.startswith("memory: round-00/policy may need ") for note in notes)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_command_prints_the_plan_and_writes_it_as_json(tmp_path: Path) -> None:
    out = tmp_path / "plan.json"

    done = subprocess.run(
        [sys.executable, "-m", "prefloop", "plan", "loop.tiny", "--run", "here", "--json", str(out)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )

    assert "loop.tiny in here: 23 steps, 0 of them done; model builtin:tiny" in done.stdout
    assert "213,216 trained weights x 2 (adamw's moments) x 4 bytes" in done.stdout
    plan = json.loads(out.read_text())
    assert plan.keys() == {"recipe", "run", "model", "steps", "needs", "available", "disk", "unknown"}
    assert [file.name for file in tmp_path.iterdir()] == ["plan.json"]


def test_a_model_that_is_not_here_is_unknown_and_the_rest_is_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    plan = plan_of(tmp_path / "run", "model=nobody/nothing")

    assert plan.needs == ()
    assert plan.unknown[0].startswith(
        "memory, disk and which steps are done: nobody/nothing: neither a directory here nor whole in the local cache"
    )
    assert counts(plan, "at_most")["round-00/samples"] == {"answers": 18, "tokens": 432}


def test_a_data_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.jsonl: no such file"):
        plan_of(tmp_path, "prompts.data=nowhere.jsonl")

"""`prefloop export`: which policy of a run is meant."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from prefloop.cli.export import export_command
from prefloop.config import load_recipe
from prefloop.errors import DataError, RecipeError
from prefloop.loop import Progress, RunResult, run_recipe
from prefloop.loop.policy_of_run import policy_of_run

SmallRun = Callable[..., RunResult]


@pytest.mark.slow
def test_the_last_round_that_was_not_refused_is_exported_or_the_one_that_is_named(
    small_run: SmallRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = small_run("rounds=2", "policy.lora=4").run
    first, second = (run / f"round-0{number}" / "policy" / "model" for number in range(2))
    said = export_command(run, tmp_path / "last", None, merged=False)
    assert said["policy"] == str(second)
    assert "round-01/policy, whose round is accepted" in capsys.readouterr().out
    adapter = "adapter_model.safetensors"
    assert (tmp_path / "last" / adapter).read_bytes() == (second / adapter).read_bytes()
    export_command(run, tmp_path / "first", 0, merged=False)
    assert (tmp_path / "first" / adapter).read_bytes() == (first / adapter).read_bytes()

    summary = run / "round-01" / "summary.json"
    refused = json.loads(summary.read_text()) | {"decision": "rolled_back"}
    summary.write_text(json.dumps(refused))
    assert policy_of_run(run).round == 0
    assert policy_of_run(run, 1).decision == "rolled_back"
    summary.unlink()
    assert policy_of_run(run).round == 0  # a round that is still open is taken only where it is named
    assert policy_of_run(run, 1).decision is None
    with pytest.raises(DataError) as raised:
        policy_of_run(run, 7)
    assert str(raised.value) == (
        f"{run}: it has no policy of round 7. Rounds with a policy: 0 (accepted), 1 (open). Name one with --round."
    )

    command = ["export", str(run), str(tmp_path / "merged"), "--merged", "--round", "1", "--json", "-"]
    done = subprocess.run(
        [sys.executable, "-m", "prefloop", *command],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["kind"] == "merged"
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "merged").config.model_type == "llama"


@pytest.mark.recipes
def test_the_reward_model_of_a_run_is_exported_as_a_sequence_classifier(tmp_path: Path) -> None:
    few = ["reward_model.ensemble=1", "reward_model.epochs=1", "data.validation=null"]
    run = run_recipe(load_recipe("reward_model.tiny", few), tmp_path / "run", Progress()).run

    said = export_command(run, tmp_path / "out", None, merged=False)

    model = run / "round-00" / "reward_model" / "model"
    assert (said["policy"], said["kind"]) == (str(model), "full")
    loaded, info = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    assert loaded.config.num_labels == 1
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        export_command(tmp_path, tmp_path / "out", None, merged=False)
    assert str(raised.value) == (
        f"{tmp_path}: neither a run folder nor a policy: it has no journal.sqlite, adapter_config.json or config.json."
    )
    (tmp_path / "config.json").touch()
    with pytest.raises(RecipeError) as refused:
        export_command(tmp_path, tmp_path / "out", 1, merged=False)
    assert str(refused.value) == f"--round 1: {tmp_path} is a policy, not a run folder. Leave it out."

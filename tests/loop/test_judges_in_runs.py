"""Judges of every kind as steps of a run: what is asked again, what a mistake says before the run starts."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from prefloop.errors import ModelError, RecipeError
from prefloop.loop import RunResult
from prefloop.policy import resolve_model
from prefloop.records import Judgment, Response, read_folder

SmallRun = Callable[..., RunResult]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Writes the module in which a judge's function stands, where the command runs."""
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)

    def write(source: str) -> None:
        Path("scores_of_mine.py").write_text(source, encoding="utf-8")
        sys.modules.pop("scores_of_mine", None)

    yield write
    sys.modules.pop("scores_of_mine", None)
    sys.path[:] = before


def values(run: Path) -> dict[str, float | None]:
    return {one.subjects[0]: one.values[0] for one in read_folder(run / "round-00/judgments", Judgment)}


def test_a_function_judges_a_round_and_what_changes_in_its_file_is_judged_again(
    small_run: SmallRun, module: Callable[[str], None]
) -> None:
    mine = ("judgments.judge={type: python, function: 'scores_of_mine:score'}", "evaluation.suite=null")
    module("def score(prompt, response):\n    return len(response)\n")
    first = small_run(*mine, until="judgments")
    answers = {one.response_id: one.text for one in read_folder(first.run / "round-00/samples", Response)}
    assert values(first.run) == {name: float(len(text)) for name, text in answers.items()}

    assert small_run(*mine, until="judgments").made == ()

    module("def score(prompt, response):\n    return -len(response)\n")
    again = small_run(*mine, until="judgments")
    assert again.made == ("round-00/judgments",)
    assert values(again.run) == {name: -float(len(text)) for name, text in answers.items()}


def test_a_function_that_is_not_there_is_said_before_the_run_folder_exists(
    small_run: SmallRun, module: Callable[[str], None], tmp_path: Path
) -> None:
    module("def scores(prompt, response):\n    return 1\n")
    with pytest.raises(RecipeError) as raised:
        small_run("judgments.judge={type: python, function: 'scores_of_mine:score'}", "evaluation.suite=null")
    assert str(raised.value) == (
        "recipe loop.tiny: judgments: judge.function is 'scores_of_mine:score', but scores_of_mine has no function "
        "score. It has scores."
    )
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """builtin:tiny with a head that makes a score of what it has read."""
    folder, source = tmp_path_factory.mktemp("rewards") / "tiny-reward", resolve_model("builtin:tiny").directory
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    config = AutoConfig.from_pretrained(source)
    config.num_labels = 1
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return folder


def test_a_reward_model_judges_a_round_and_its_evaluation(small_run: SmallRun, reward_model: Path) -> None:
    result = small_run(f"judgments.judge={{type: reward_model, model: {reward_model}}}")
    found = values(result.run)
    assert len(set(found.values())) > len(found) / 2
    assert None not in found.values()
    summary = json.loads((result.run / "round-00/summary.json").read_text())
    assert summary["judges"][0].startswith("reward_model:tiny-reward:")
    assert small_run(f"judgments.judge={{type: reward_model, model: {reward_model}}}").made == ()

    moved = reward_model.with_name("elsewhere").joinpath("tiny-reward")
    shutil.copytree(reward_model, moved)
    judged = small_run(f"judgments.judge={{type: reward_model, model: {moved}}}", name="moved", until="judgments")
    assert values(judged.run) == found
    assert str(moved) not in (judged.run / "round-00/judgments/part-00000.jsonl").read_text()


def test_a_policy_named_as_reward_model_is_refused_before_the_run(small_run: SmallRun, tmp_path: Path) -> None:
    directory = resolve_model("builtin:tiny").directory
    with pytest.raises(ModelError, match=r"recipe loop\.tiny: evaluation-initial-judgments: .* is a LlamaForCausalLM"):
        small_run(f"judgments.judge={{type: reward_model, model: {directory}}}")
    assert not (tmp_path / "run").exists()

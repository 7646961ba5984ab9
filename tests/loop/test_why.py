"""How a pair came about: everything that decided about it, or why a prompt gave none."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefloop.cli.gc import gc_command
from prefloop.cli.why import why_command
from prefloop.config import load_recipe
from prefloop.errors import DataError, RecipeError
from prefloop.loop import Progress, RunResult, run_recipe
from prefloop.loop.journal import FILE
from prefloop.loop.why import stories

pytestmark = pytest.mark.long

SmallRun = Callable[..., RunResult]


def lines(run: Path, step: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / step / "part-00000.jsonl").read_text().splitlines()]


def test_an_example_is_told_by_the_beginning_of_its_id(small_run: SmallRun) -> None:
    run = small_run("rounds=2", until="round-01/policy").run
    example = lines(run, "round-01/pairs")[0]

    (story,) = stories(run, example["example_id"][:8])

    answers = [one for one in lines(run, "round-01/samples") if one["prompt_id"] == example["prompt"]["prompt_id"]]
    said = {one["subjects"][0]: one["values"][0] for one in lines(run, "round-01/judgments")}
    assert (story.step, story.round, story.present) == ("round-01/pairs", 1, True)
    assert story.example is not None
    assert story.example.why == example["why"]
    assert story.prompt.source == example["prompt"]["source"]
    assert [one.response.model_dump(mode="json", exclude_none=True) for one in story.answers] == answers
    assert {one.response.response_id: one.role for one in story.answers if one.role} == {
        member["response_id"]: member["role"] for member in example["members"]
    }
    assert {one.subjects[0]: one.values[0] for one in story.judgments} == {
        one["response_id"]: said[one["response_id"]] for one in answers
    }
    assert {(one.sampler.name, one.sampler.round) for one in story.answers} == {("round-00/policy", 0)}
    assert [(one.step, one.left_out) for one in story.trained] == [("round-01/policy", None)]


def test_the_first_answers_are_the_start_models_and_a_pair_nobody_trained_on_says_so(
    small_run: SmallRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = small_run(until="pairs").run
    example = lines(run, "round-00/pairs")[0]

    why_command(example["example_id"], run)

    text = capsys.readouterr().out
    assert f"example {example['example_id']} of round-00/pairs\n  why      {example['why']}\n" in text
    assert "  trained  not yet: no train step has read it\n" in text
    assert "  answers  samples by start model (" in text
    assert "temperature 1.0, top_p 1.0, max_new_tokens 24\n" in text


def test_a_prompt_without_a_pair_says_what_the_rule_found(small_run: SmallRun) -> None:
    run = small_run("pairs.min_margin=0.8", until="policy").run
    with_pair = {one["prompt"]["prompt_id"] for one in lines(run, "round-00/pairs")}
    without = [one["prompt_id"] for one in lines(run, "round-00/prompts") if one["prompt_id"] not in with_pair]
    assert 0 < len(without) < 6

    told = [story for prompt in without for story in stories(run, prompt)]

    assert {story.dropped for story in told} == {("margin too small",)}
    assert all(story.example is None and len(story.answers) == 3 and not story.trained for story in told)


def test_a_prompt_with_a_pair_tells_the_pair(small_run: SmallRun) -> None:
    run = small_run(until="pairs").run
    example = lines(run, "round-00/pairs")[0]

    (story,) = stories(run, example["prompt"]["prompt_id"])

    assert story.example is not None
    assert story.example.example_id == example["example_id"]


def test_an_example_too_long_to_be_trained_on_says_so(small_run: SmallRun) -> None:
    run = small_run("policy.max_length=80", until="policy").run
    with sqlite3.connect(run / FILE) as connection:
        (counts,) = connection.execute("select counts from artifacts where path = 'round-00/policy-tokens'").fetchone()

    left_out = [
        step.left_out
        for example in lines(run, "round-00/pairs")
        for story in stories(run, example["example_id"])
        for step in story.trained
    ]

    said = "too_long: prompt and answer are longer than max_length"
    assert left_out.count(said) == json.loads(counts)["too_long"] > 0
    assert left_out.count(None) == json.loads(counts)["examples"] > 0


def test_what_was_superseded_is_no_part_of_the_run(small_run: SmallRun) -> None:
    run = small_run(until="pairs").run
    old = lines(run, "round-00/pairs")[0]["example_id"]
    small_run("samples.temperature=0.7", until="pairs")

    with pytest.raises(RecipeError, match=f"no example and no prompt of it has the id '{old}'. Nearest example ids: "):
        stories(run, old)


def test_what_a_changed_recipe_left_behind_is_told_as_such(small_run: SmallRun) -> None:
    run = small_run("rounds=2", until="round-01/pairs").run
    behind = lines(run, "round-01/pairs")[0]["example_id"]
    small_run("rounds=2", "policy.learning_rate=2e-3", until="round-00/policy")

    (story,) = stories(run, behind)

    assert not story.present


def test_a_step_whose_inputs_were_removed_does_not_hide_the_others(small_run: SmallRun) -> None:
    run = small_run("rounds=2", until="round-01/pairs").run
    first, second = (lines(run, f"round-0{number}/pairs")[0]["example_id"] for number in range(2))
    small_run("rounds=2", "samples.temperature=0.7", until="round-00/samples")
    gc_command(run, yes=True)

    (story,) = stories(run, second)

    assert (story.step, story.present) == ("round-01/pairs", False)
    with pytest.raises(DataError, match="its responses were replaced and removed; it cannot be told any more"):
        stories(run, first)


def test_a_rule_with_a_fitted_constant_is_asked_again_with_what_was_fitted(small_run: SmallRun) -> None:
    run = small_run("pairs={rule: dice, alpha: fitted, min_chars: 40, min_answers: 2}", until="pairs").run
    with_pair = {one["prompt"]["prompt_id"] for one in lines(run, "round-00/pairs")}
    without = [one["prompt_id"] for one in lines(run, "round-00/prompts") if one["prompt_id"] not in with_pair]

    assert without
    assert {story.dropped for prompt in without for story in stories(run, prompt)} == {("too few usable answers",)}


def test_a_rule_that_reads_tokens_says_why_it_made_nothing(tmp_path: Path) -> None:
    loaded = load_recipe("bmc.tiny", ["machine.threads=1", "pairs.max_edited=0.35"])
    run = run_recipe(loaded, tmp_path / "edited", Progress(), until="pairs").run
    with_pair = {one["prompt"]["root_id"] for one in lines(run, "round-00/pairs")}
    without = [one["root_id"] for one in lines(run, "round-00/data/prompts") if one["root_id"] not in with_pair]

    assert without
    told = [story for prompt in without for story in stories(run, prompt) if story.rule == "edited"]
    assert {story.dropped for story in told} == {("edited too much",)}


def test_a_given_pair_is_the_data_sets(tmp_path: Path) -> None:
    loaded = load_recipe("offline.tiny", ["machine.threads=1"])
    run = run_recipe(loaded, tmp_path / "given", Progress(), until="pairs").run
    example = lines(run, "round-00/pairs")[0]

    (story,) = stories(run, example["example_id"])

    assert story.rule == "given"
    assert {one.sampler.name for one in story.answers} == {"data set"}
    assert story.judgments[0].kind == "preference"


def test_mistakes_are_one_line(small_run: SmallRun, tmp_path: Path) -> None:
    run = small_run(until="pairs").run
    held_out = lines(run, "setup/evaluation-prompts")[0]["prompt_id"]
    ids = [one["example_id"] for one in lines(run, "round-00/pairs")]

    with pytest.raises(RecipeError, match=r"run: prompt \w+ is in setup/evaluation-prompts, which no pair step has"):
        stories(run, held_out)
    with pytest.raises(RecipeError, match=f"has the id '{ids[0][:-1]}_'. Nearest example ids: {ids[0]}, "):
        stories(run, f"{ids[0][:-1]}_")
    with pytest.raises(DataError, match=r"not a run folder, it has no journal\.sqlite"):
        stories(tmp_path, ids[0])
    with sqlite3.connect(run / FILE) as connection:
        connection.execute("alter table artifacts drop column made_from")
    with pytest.raises(DataError, match=r"an older version made this run .* Give its `prefloop run` command again"):
        stories(run, ids[0])

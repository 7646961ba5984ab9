"""What an earlier recipe left in a run folder is not on the page."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from prefloop.config import Recipe, load_recipe
from prefloop.errors import DataError
from prefloop.loop import Progress, run_recipe
from prefloop.records import RoundSummary, digest
from prefloop.report import page_of, read_run
from prefloop.report.compare_read import read_answers
from prefloop.report.lineage import RoundOnDisk, left_over
from prefloop.report.view import Stage

from .conftest import BuildRun, policy, summary

MODEL = "m" * 64


def recipe(**changes: float) -> Recipe:
    overrides = [f"{name.replace('__', '.')}={value}" for name, value in changes.items()]
    return load_recipe("quickstart.tiny", overrides).recipe


def made(by: Recipe, name: str, number: int, inputs: dict[str, list[str]], path: str = "") -> Stage:
    settings = by.step(name, number).model_dump(mode="json", exclude={"reads"})
    origin = {"step": name, "settings": settings, "round": number, "blocks": by.blocks, "inputs": inputs}
    origin["seed"] = by.seed
    return Stage(path or f"round-{number:02d}/{name}", digest(origin), {}, 1.0, json.loads(json.dumps(origin)))


def one_round(by: Recipe, number: int, start: str) -> tuple[Stage, ...]:
    samples = made(by, "samples", number, {"policy": [start]})
    pairs = made(by, "pairs", number, {"responses": [samples.identity]})
    trained = made(by, "policy", number, {"examples": [pairs.identity], "start": [start]})
    return samples, pairs, trained


def closed(number: int, start: str, current: str, decision: str = "accepted") -> RoundOnDisk:
    policies = {"initial": MODEL, "round_start": start, "current": current}
    return RoundOnDisk(
        f"round-{number:02d}",
        RoundSummary.model_validate({**summary(number, decision).model_dump(), "policies": policies}),
    )


def test_everything_of_one_recipe_belongs_to_it() -> None:
    first = one_round(recipe(), 0, MODEL)
    second = one_round(recipe(), 1, first[-1].identity)
    rounds = [closed(0, MODEL, first[-1].identity), closed(1, first[-1].identity, second[-1].identity)]
    assert left_over(recipe(), (*first, *second), rounds) == ()


def test_a_changed_setting_leaves_its_step_and_all_that_read_it_behind() -> None:
    first = one_round(recipe(), 0, MODEL)
    second = one_round(recipe(), 1, first[-1].identity)
    stale = left_over(recipe(policy__learning_rate=1e-3), (*first, *second), [])
    assert stale == ("round-00/policy", "round-01/samples", "round-01/pairs", "round-01/policy")


def test_a_setting_that_did_not_exist_yet_was_what_its_default_is_now() -> None:
    samples, pairs, trained = one_round(recipe(), 0, MODEL)
    assert trained.made_from is not None
    older = {key: value for key, value in trained.made_from["settings"].items() if key != "soft_labels"}
    trained = replace(trained, made_from={**trained.made_from, "settings": older})
    assert left_over(recipe(), (samples, pairs, trained), []) == ()
    soft = load_recipe("quickstart.tiny", ["policy.soft_labels=true"]).recipe
    assert left_over(soft, (samples, pairs, trained), []) == ("round-00/policy",)


def test_what_read_something_that_was_replaced_is_left_over() -> None:
    old, new = recipe(), recipe(samples__temperature=0.5)
    samples, pairs, trained = one_round(old, 0, MODEL)
    aside = Stage("superseded/0123/samples", samples.identity, {}, 1.0, samples.made_from)
    again = made(new, "samples", 0, {"policy": [MODEL]})
    assert left_over(new, (aside, pairs, trained, again), []) == ("round-00/pairs", "round-00/policy")


def test_what_read_an_artifact_that_a_changed_file_replaced_is_left_over() -> None:
    """The settings are the same: only the journal's path says that it was replaced."""
    samples, pairs, trained = one_round(recipe(), 0, MODEL)
    aside = Stage("superseded/0123/samples", samples.identity, {}, 1.0, samples.made_from)
    again = Stage(samples.path, "another", {}, 1.0, samples.made_from)
    assert left_over(recipe(), (aside, pairs, trained, again), []) == ("round-00/pairs", "round-00/policy")


def test_another_seed_leaves_everything_behind() -> None:
    stages = one_round(recipe(), 0, MODEL)
    assert left_over(recipe(seed=1), stages, []) == tuple(stage.path for stage in stages)


def test_an_older_version_that_kept_no_origins_is_believed() -> None:
    stages = tuple(Stage(one.path, one.identity, {}, 1.0) for one in one_round(recipe(), 0, MODEL))
    assert left_over(recipe(seed=1), stages, []) == ()


def test_a_round_that_began_with_another_policy_is_left_over_and_so_are_later_ones() -> None:
    rounds = [closed(0, MODEL, "a"), closed(1, "b", "c"), closed(2, "c", "d")]
    assert left_over(None, (), rounds) == ("round-01", "round-02")


def test_after_a_refused_round_the_next_begins_where_that_one_did() -> None:
    assert left_over(None, (), [closed(0, MODEL, "a", "rolled_back"), closed(1, MODEL, "b")]) == ()
    assert left_over(None, (), [closed(0, MODEL, "a", "rolled_back"), closed(1, "a", "b")]) == ("round-01",)


def test_no_round_follows_one_that_is_open() -> None:
    assert left_over(None, (), [RoundOnDisk("round-00", None), closed(1, "a", "b")]) == ("round-01",)


def test_the_page_says_what_it_leaves_out(build_run: BuildRun) -> None:
    run = build_run()
    changed = summary(1).model_copy(
        update={"policies": {"initial": policy(0), "round_start": "f" * 64, "current": "e"}}
    )
    (run / "round-01/summary.json").write_text(changed.model_dump_json())
    view = read_run(run)
    assert [one.label for one in view.rounds] == ["1"]
    text = page_of(view)
    assert "Not shown: what the recipe left in round-01, round-02 before its last change." in text
    assert "68.2 (" not in text
    assert not [stage for stage in view.stages if stage.path.startswith(("round-01", "round-02"))]


@pytest.mark.recipes
@pytest.mark.slow
def test_a_changed_value_with_until_shows_no_number_of_the_old_one(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_recipe(load_recipe("quickstart.tiny"), run, Progress())
    assert read_run(run).left_over == ()
    other = load_recipe("quickstart.tiny", ["policy.learning_rate=1e-3"])

    run_recipe(other, run, Progress(), until="round-00/samples")
    assert [(one.summary, one.evaluation, one.training) for one in read_run(run).rounds] == [(None, None, ())]
    with pytest.raises(DataError, match="its recipe has changed, and no round of the present one has ended yet"):
        read_answers(run)

    run_recipe(other, run, Progress(), until="round-00/summary")
    assert [one.number for one in read_answers(run).rounds] == [0]
    assert [(one.label, one.summary is not None) for one in read_run(run).rounds] == [("1", True)]

    run_recipe(load_recipe("quickstart.tiny"), run, Progress())  # found again
    assert len(read_run(run).finished) == 2
    assert read_run(run).left_over == ()

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from prefloop.config import load_recipe
from prefloop.report import page_of, read_run
from prefloop.report.plain import committed_curve, comparable_curve, facts
from prefloop.report.view import Recipe

from .conftest import BuildRun


def shipped(name: str, *overrides: str) -> Recipe:
    return Recipe.model_validate(load_recipe(name, overrides).raw)


def test_the_committed_curve_was_measured_with_the_recipe_that_ships() -> None:
    curve = committed_curve()
    assert curve.facts == facts(shipped(curve.name)), "measure plain_curve.json again: its recipe has changed"
    assert curve.command.startswith(("prefloop run quickstart_plain", "make quickstart-plain"))
    for one in curve.rounds:
        for estimate in (one.judge, one.controlled, one.truth, one.length_ratio):
            assert estimate.interval is not None
            assert estimate.interval[0] <= estimate.value <= estimate.interval[1]


def test_the_quickstart_is_compared_with_it_whatever_its_name_seed_or_sample() -> None:
    assert comparable_curve(shipped("quickstart")) == committed_curve()
    changed = ("name=mine", "seed=7", "rounds=2", "evaluation.num_samples=4", "evaluation.count=50")
    assert comparable_curve(shipped("quickstart", *changed)) == committed_curve()


@pytest.mark.parametrize(
    "override",
    [
        "model=builtin:tiny",
        "model={path: builtin:smollm2-135m-instruct, chat_template_kwargs: {enable_thinking: true}}",
        "initial=some/adapter",
        "blocks=2",
        "judgments.judge.length_bias=0.02",
        "prompts.count=24",
        "samples.temperature=1.0",
        "policy.learning_rate=1e-5",
        "policy.objective.beta=0.2",
        "evaluation.suite=mine.jsonl",
    ],
)
def test_a_recipe_that_differs_in_more_than_its_objective_is_not(override: str) -> None:
    assert comparable_curve(shipped("quickstart", override)) is None


def test_plain_dpo_is_not_compared_with_itself() -> None:
    assert comparable_curve(shipped("quickstart_plain")) is None


def with_recipe(run: Path, raw: dict[str, Any]) -> Path:
    (run / "recipe.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    return run


def test_the_grey_line_is_drawn_where_it_may_be(build_run: BuildRun) -> None:
    raw = load_recipe("quickstart").raw
    run = with_recipe(build_run(), raw)
    text = page_of(read_run(run))
    assert text.count('class="curve plain"') == 4  # judge, length-controlled, truth, length
    first = committed_curve().rounds[0]
    assert first.judge.interval is not None
    assert f"<td>{first.judge.value:.1f} ({first.judge.interval[0]:.1f} to {first.judge.interval[1]:.1f})</td>" in text
    assert committed_curve().command in text
    assert "Plain DPO" in text

    with_recipe(run, json.loads(json.dumps(raw)) | {"model": {"path": "builtin:tiny"}})
    text = page_of(read_run(run))
    assert "curve plain" not in text.split("</style>")[1]
    assert "Plain DPO" not in text

"""The order of steps, and what names mean, with a stage that makes nothing."""

from pathlib import Path

import pytest

from prefloop.config import Recipe, load_recipe
from prefloop.errors import CheckFailedError, RecipeError
from prefloop.loop.artifact import Artifact, Place
from prefloop.loop.gate import Decision
from prefloop.loop.rounds import rounds
from prefloop.loop.scope import Scope

MODEL = Artifact("model", "model", "the-model", Place(), "", {}, {}, Path)


class Fake:
    """Remembers what was asked for, and decides rounds as it was told."""

    def __init__(self, decisions: list[str], win_rates: list[float] | None = None) -> None:
        self.decisions = list(decisions)
        self.win_rates = win_rates
        self.done: list[str] = []
        self.starts: list[str] = []

    def do(self, name: str, recipe: Recipe, scope: Scope) -> Artifact:
        place = str(scope.place)
        self.done.append(f"{place}/{name}")
        if recipe.type_of(name) == "train":
            self.starts.append(scope.policy("current").identity)
        return Artifact(name, recipe.type_of(name), f"{place}/{name}", scope.place, place, {}, {}, Path)

    def decision(self, summary: Artifact) -> Decision:
        assert summary.step == "summary"
        return Decision(self.decisions.pop(0), ("because",), self.win_rates.pop(0) if self.win_rates else None)


def loop_recipe(*overrides: str) -> Recipe:
    return load_recipe("loop", ["model=builtin:tiny", "evaluation.suite=everyday", *overrides]).recipe


def test_setup_runs_once_then_blocks_then_the_steps_of_the_round() -> None:
    stage = Fake(["accepted"] * 2)
    recipe = loop_recipe("rounds=2", "blocks=2")

    list(rounds(recipe, Scope(recipe, MODEL, MODEL), stage))

    assert stage.done[:3] == [
        "setup/evaluation-prompts",
        "setup/evaluation-initial",
        "setup/evaluation-initial-judgments",
    ]
    block = ["prompts", "samples", "judgments", "pairs", "policy-tokens", "policy"]
    expected = [f"round-00/block-0{number}/{name}" for number in (0, 1) for name in block]
    expected += [f"round-00/{name}" for name in ("evaluation-samples", "evaluation-judgments", "evaluation", "summary")]
    assert stage.done[3:19] == expected
    assert stage.done[19] == "round-01/block-00/prompts"


def test_a_round_trains_from_the_last_accepted_round() -> None:
    stage = Fake(["accepted", "rolled_back", "warned", "accepted"])
    recipe = loop_recipe("rounds=4")

    list(rounds(recipe, Scope(recipe, MODEL, MODEL), stage))

    assert stage.starts == ["the-model", "round-00/policy", "round-00/policy", "round-02/policy"]


def test_a_stopped_round_ends_the_run_with_its_reason() -> None:
    recipe = loop_recipe("rounds=3")

    with pytest.raises(CheckFailedError, match="round 1 stops the run: because"):
        list(rounds(recipe, Scope(recipe, MODEL, MODEL), Fake(["accepted", "stopped"])))


def test_names_reach_back_over_accepted_rounds_only() -> None:
    recipe = loop_recipe("rounds=4")
    scope = Scope(recipe, MODEL, MODEL)

    for artifact in rounds(recipe, scope, Fake(["accepted", "rolled_back", "accepted", "accepted"])):
        if artifact.path == "round-03" and artifact.step == "pairs":
            break

    assert [found.identity for found in scope.find("previous.pairs")] == ["round-02/pairs"]
    assert [found.identity for found in scope.find("previous-2.pairs")] == ["round-00/pairs"]
    assert scope.find("previous-3.pairs") == ()
    assert [found.identity for found in scope.find("all.pairs")] == ["round-00/pairs", "round-02/pairs"]
    assert scope.policy("round_start").identity == "round-02/policy"
    assert scope.policy("initial") is MODEL


def test_the_newest_block_is_current_and_the_round_start_stays() -> None:
    recipe = loop_recipe("rounds=1", "blocks=2")
    scope = Scope(recipe, MODEL, MODEL)

    for artifact in rounds(recipe, scope, Fake(["accepted"])):
        if artifact.identity == "round-00/block-01/pairs":
            break

    assert scope.policy("current").identity == "round-00/block-00/policy"
    assert scope.policy("round_start") is MODEL


def test_best_is_the_accepted_round_that_was_ahead_of_the_initial_model_most() -> None:
    recipe = loop_recipe("rounds=7", "policy.references.ref=best")
    scope = Scope(recipe, MODEL, MODEL)
    decisions = ["accepted", "accepted", "rolled_back", "warned", "accepted", "accepted", "accepted"]
    stage = Fake(decisions, [48.0, 61.0, 90.0, 70.0, 70.0, 65.0, 50.0])

    found = [
        (artifact.path, scope.policy("best").identity)
        for artifact in rounds(recipe, scope, stage)
        if artifact.step == "policy"
    ]

    expected = ["the-model", "the-model", *["round-01/policy"] * 2, *["round-03/policy"] * 3]
    assert found == [(f"round-0{number}", best) for number, best in enumerate(expected)]


def test_nothing_is_best_where_no_round_is_measured() -> None:
    recipe = load_recipe("loop", ["model=builtin:tiny", "evaluation.suite=null"]).recipe

    with pytest.raises(RecipeError, match="'best' is the policy of the best round, but no round is measured"):
        Scope(recipe, MODEL, MODEL).policy("best")

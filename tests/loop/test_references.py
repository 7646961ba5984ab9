"""References of a run: what their names mean, what their policies are recorded as, and what is scored once."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from prefloop.errors import RecipeError
from prefloop.loop import RunResult
from prefloop.loop.gate import MEASURED

from .conftest import stable_files

pytestmark = pytest.mark.long

SmallRun = Callable[..., RunResult]
MIXED = "policy.references={{ref: {{geometric: {{policies: [initial, round_start], weights: [{}, {}]}}}}}}"


def card(run: Path, round_name: str = "round-00") -> dict[str, Any]:
    return json.loads((run / round_name / "policy" / "policy.json").read_text(encoding="utf-8"))


def scored(run: Path) -> int:
    """Passes whose scores are kept."""
    with closing(sqlite3.connect(run / ".scores.sqlite")) as connection:
        return connection.execute("select count(*) from scores").fetchone()[0]


def test_the_card_of_a_policy_names_every_policy_of_a_mixture_and_its_weights(small_run: SmallRun) -> None:
    run = small_run(MIXED.format(0.25, 0.75), "rounds=2", until="round-01/policy").run
    first, second = card(run), card(run, "round-01")
    initial = first["base_identity"]
    assert first["references"] == {
        "ref": {"kind": "geometric", "policies": [initial, initial], "weights": [0.25, 0.75], "eta": None}
    }
    assert second["references"]["ref"]["policies"] == [initial, first["identity"]]
    harmonic = "policy.references={ref: {harmonic: {policies: [initial, current], weights: [0.5, 0.5], eta: 0.2}}}"
    of = card(small_run(harmonic, name="other", until="policy").run)["references"]["ref"]
    assert (of["kind"], of["eta"], of["weights"]) == ("harmonic", 0.2, [0.5, 0.5])


def test_another_weight_of_a_mixture_is_another_policy_and_scores_nothing_again(small_run: SmallRun) -> None:
    settings = (MIXED.format(0.25, 0.75), "rounds=2")
    run = small_run(*settings, until="round-01/policy").run
    before, passes, files = card(run, "round-01"), scored(run), stable_files(run)
    changed = (
        "policy.references={ref: {by_round: [{geometric: {policies: [initial, round_start], weights: [0.25, 0.75]}}, "
        "{geometric: {policies: [initial, round_start], weights: [0.5, 0.5]}}]}}"
    )
    again = small_run(changed, "rounds=2", until="round-01/policy")
    after = card(run, "round-01")
    assert again.made == ("round-01/policy",)
    assert after["identity"] != before["identity"]
    assert after["files"] != before["files"]
    assert scored(run) == passes
    assert small_run(*settings, until="round-01/policy").made == ()
    assert stable_files(run) == files


def test_another_beta_in_a_run_scores_nothing_again_and_gives_what_a_fresh_run_gives(small_run: SmallRun) -> None:
    run = small_run(until="policy").run
    passes = scored(run)
    again = small_run("policy.objective.beta=0.3", until="policy")
    assert (again.made, scored(run)) == (("round-00/policy",), passes)
    fresh = small_run("policy.objective.beta=0.3", name="fresh", until="policy").run
    assert stable_files(run) == stable_files(fresh)


def test_what_was_mixed_is_no_policy_to_go_on_from(small_run: SmallRun) -> None:
    with pytest.raises(RecipeError, match=r"'current.ref' is a mixture of 2 policies. Name one policy."):
        small_run(MIXED.format(0.25, 0.75), "samples.policy={by_round: [current, current.ref]}", "rounds=2")


def test_best_is_the_round_that_the_summaries_say(small_run: SmallRun) -> None:
    run = small_run("policy.references.ref=best", "gate.action=warn", "rounds=4", "seed=2", until="round-03/policy").run
    best, most = card(run)["base_identity"], 50.0
    for number in range(4):
        assert card(run, f"round-0{number}")["references"]["ref"] == best
        if number < 3:
            summary = json.loads((run / f"round-0{number}" / "summary.json").read_text(encoding="utf-8"))
            win_rate = summary["evaluation"][MEASURED]["value"]
            if summary["decision"] in {"accepted", "warned"} and win_rate > most:
                best, most = summary["policies"]["current"], win_rate
    assert most > 50

"""A recipe that holds length: what it measures, what it writes, what it refuses."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefloop.config import load_recipe
from prefloop.errors import RecipeError
from prefloop.loop import Progress, RunResult, run_recipe
from prefloop.records import Example, Response, read_folder

pytestmark = pytest.mark.long

SmallRun = Callable[..., RunResult]
HELD = (
    "judgments.judge={type: vader, length_bias: 0.01}",
    "policy.objective={name: length_regularized_dpo, alpha: {length_ratio: 1.1, gain: 3}}",
)


def fitted(run: Path, place: str) -> dict[str, Any]:
    return json.loads((run / place / "policy" / "fitted.json").read_text())["alpha"]


def own_correction(run: Path, place: str, first: str = "round-00") -> float:
    """Recomputed from the records of a round, or of a block of it."""
    means = [
        np.mean([answer.num_tokens for answer in read_folder(run / where / "samples", Response)])
        for where in (place, first)
    ]
    gaps = np.array(
        [
            len(example.member("chosen").token_ids or ()) - len(example.member("rejected").token_ids or ())
            for example in read_folder(run / place / "pairs", Example)
        ]
    )
    return 3 * math.log(means[0] / means[1] / 1.1) / math.sqrt(np.mean(gaps**2))


def test_alpha_follows_the_length_of_the_rounds_own_answers(small_run: SmallRun) -> None:
    run = small_run("rounds=2", *HELD).run

    assert fitted(run, "round-00")["length_ratio"] == 1
    for place in ("round-00", "round-01"):
        found = fitted(run, place)
        assert found["target"] == 1.1
        assert found["correction"] == pytest.approx(own_correction(run, place), rel=1e-12)
        assert found["value"] == pytest.approx(found["fitted"] + found["correction"], rel=1e-12)


def test_where_the_reference_stays_the_corrections_add_up(small_run: SmallRun) -> None:
    run = small_run("rounds=2", *HELD, "policy.references={ref: initial}").run

    total = own_correction(run, "round-00") + own_correction(run, "round-01")
    assert fitted(run, "round-01")["correction"] == pytest.approx(total, rel=1e-12)


def test_blocks_add_up_as_long_as_their_reference_stays(small_run: SmallRun) -> None:
    run = small_run("rounds=2", "blocks=2", *HELD, until="round-01/policy").run

    first, second, third = "round-00/block-00", "round-00/block-01", "round-01/block-00"
    own = [own_correction(run, place, first) for place in (first, second, third)]
    assert fitted(run, second)["correction"] == pytest.approx(own[0] + own[1], rel=1e-12)
    assert fitted(run, third)["correction"] == pytest.approx(own[2], rel=1e-12)


@pytest.mark.parametrize("before", ["0.01", "fitted"])
def test_a_length_that_is_held_from_the_second_round_on_has_no_corrections_before_it(
    small_run: SmallRun, before: str
) -> None:
    alpha = f"{{by_round: [{before}, {{length_ratio: 1.1, gain: 3}}]}}"
    objective = f"policy.objective={{name: length_regularized_dpo, alpha: {alpha}}}"
    run = small_run("rounds=2", HELD[0], objective, "policy.references={ref: initial}", until="round-01/policy").run

    assert fitted(run, "round-01")["correction"] == pytest.approx(own_correction(run, "round-01"), rel=1e-12)


def test_without_answers_of_its_own_there_is_no_length_to_hold(tmp_path: Path) -> None:
    loaded = load_recipe("dpo.tiny", HELD[1:])
    with pytest.raises(RecipeError, match="policy: it reads answers, but no step before it makes them"):
        run_recipe(loaded, tmp_path / "run", Progress())


@pytest.mark.parametrize(
    "where",
    [
        ("block=[prompts, samples, judgments, pairs]", "round=[policy, evaluation]"),
        (
            "setup=[prompts, samples, judgments, pairs, policy]",
            "block=[]",
            "evaluation.judge=shorter",
            "evaluation.max_new_tokens=8",
        ),
    ],
    ids=["after the blocks", "in the set-up"],
)
def test_length_is_held_wherever_a_policy_is_trained_on_its_own_answers(
    small_run: SmallRun, where: tuple[str, ...]
) -> None:
    run = small_run(*HELD, *where).run

    (fits,) = run.rglob("fitted.json")
    assert json.loads(fits.read_text())["alpha"]["length_ratio"] == 1

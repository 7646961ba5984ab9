from dataclasses import replace

import pytest

from prefloop.records import Estimate
from prefloop.report import read_run
from prefloop.report.meaning import apart, meaning, side

from .conftest import BuildRun, duel, evaluation, write_json


def estimate(low: float, high: float) -> Estimate:
    return Estimate(value=(low + high) / 2, interval=(low, high))


def test_a_side_is_taken_only_by_a_whole_interval() -> None:
    assert side(estimate(50.1, 60), 50) == 1
    assert side(estimate(40, 49.9), 50) == -1
    assert side(estimate(50.0, 60), 50) == 0
    assert side(Estimate(value=90), 50) == 0


def test_two_numbers_are_apart_only_if_their_intervals_do_not_meet() -> None:
    assert apart(estimate(60, 70), estimate(40, 59)) == 1
    assert apart(estimate(40, 59), estimate(60, 70)) == -1
    assert apart(estimate(60, 70), estimate(40, 60)) == 0
    assert apart(Estimate(value=90), estimate(1, 2)) == 0


@pytest.mark.parametrize(
    ("judge", "truth", "claims"),
    [
        ((95.0, 80.0), 70.0, ("The answers got better.", "The judge flatters this policy.")),
        ((72.0, 71.0), 70.0, ("The answers got better.", "The judge is not shown to mislead.")),
        ((52.0, 50.0), 51.0, ("Better answers are not shown.", "The judge is not shown to mislead.")),
        ((50.0, 50.0), 30.0, ("The answers got worse.", "The judge flatters this policy.")),
        ((45.0, 50.0), 70.0, ("The answers got better.", "The judge is too hard on this policy.")),
    ],
)
def test_quality_and_honesty_are_claimed_as_far_as_shown(
    build_run: BuildRun, judge: tuple[float, float], truth: float, claims: tuple[str, str]
) -> None:
    run = build_run()
    measured = evaluation(2)
    measured["against"]["initial"] = {"judge": duel(*judge), "truth": duel(truth, truth)}
    write_json(run / "round-02/evaluation.json", measured)
    assert tuple(one.claim for one in meaning(read_run(run)))[:2] == claims


@pytest.mark.parametrize(
    ("ends", "claim"),
    [
        ((1.01, 1.15), "The answers got longer."),
        ((0.96, 1.10), "A change of length is not shown."),
        ((0.70, 0.99), "The answers got shorter."),
    ],
)
def test_a_change_of_length_is_claimed_as_far_as_shown(
    build_run: BuildRun, ends: tuple[float, float], claim: str
) -> None:
    run = read_run(build_run())
    measured = run.rounds[2].evaluation
    assert measured is not None
    length = measured.length.model_copy(update={"ratio": 1.03, "ratio_interval": ends})
    last = replace(run.rounds[2], evaluation=measured.model_copy(update={"length": length}))
    found = {one.claim: one.because for one in meaning(replace(run, rounds=(*run.rounds[:2], last)))}
    assert found[claim].startswith("An answer is 1.03 times as long as the initial model's (")


def test_it_ends_with_what_one_run_cannot_say(build_run: BuildRun) -> None:
    last = meaning(read_run(build_run()))[-1]
    assert last.claim == "One run says this much and no more."
    assert "over 96 held-out prompts, at seed 0" in last.because
    assert "known to about ± 7 points" in last.because


def test_without_an_evaluation_nothing_is_said(build_run: BuildRun) -> None:
    assert meaning(read_run(build_run(1, evaluated=False))) == ()

"""RewardBench's formulas on tables worked out by hand."""

import math

import numpy as np
import pytest

from prefloop.statistics import (
    TiesRow,
    best_of_score,
    calibration_statistic,
    mid_p_interval,
    pair_accuracy,
    section_scores,
    ties_interval,
    ties_score,
)


def _row(group: str, number: str, scores: list[float], correct: int) -> TiesRow:
    return TiesRow(group, number, np.array(scores), correct)


def test_pairs_by_hand() -> None:
    found = pair_accuracy(np.array([1.0, 2.0, 0.5, 3.0]), np.array([0.0, 2.0, 1.0, 0.0]))
    assert (found.accuracy, found.ties) == (0.5, 0.25)
    losses = [math.log1p(math.exp(-1)), math.log(2), math.log1p(math.exp(0.5)), math.log1p(math.exp(-3))]
    assert found.log_loss == pytest.approx(sum(losses) / 4, abs=1e-12)
    # bins of width 0.05 above 0.5: sure 0.7311 right, 0.5 wrong, 0.6225 wrong, 0.9526 right
    gaps = [1 - 1 / (1 + math.exp(-1)), 0.5, 1 / (1 + math.exp(-0.5)), 1 - 1 / (1 + math.exp(-3))]
    assert found.calibration_error == pytest.approx(sum(gaps) / 4, abs=1e-12)


def test_negated_scores_have_one_minus_accuracy_minus_ties() -> None:
    generator = np.random.default_rng(0)
    chosen, rejected = generator.integers(0, 4, size=(2, 60)).astype(float)
    there, back = pair_accuracy(chosen, rejected), pair_accuracy(-chosen, -rejected)
    assert back.accuracy == pytest.approx(1 - there.accuracy - there.ties, abs=1e-12)
    assert pair_accuracy(np.exp(chosen), np.exp(rejected)).accuracy == there.accuracy
    assert pair_accuracy(chosen, chosen).accuracy == 0.0


@pytest.mark.parametrize("scores", [np.array([]), np.array([np.nan])])
def test_scores_that_are_none_are_refused(scores: np.ndarray) -> None:
    with pytest.raises(ValueError, match="scores must be numbers"):
        pair_accuracy(scores, scores)


def test_sections_weigh_by_fixed_counts_and_leave_out_what_is_absent() -> None:
    sections = {"one": ("a", "b", "c"), "two": ("d",)}
    found = section_scores({"a": 1.0, "b": 0.5}, sections, {"a": 30, "b": 10, "c": 99, "d": 1})
    assert found == {"one": pytest.approx(35 / 40), "two": 0.0}


@pytest.mark.parametrize(
    ("scores", "expected"), [([1, 0, 0, 0], 1), ([1, 1, 0, 1], 1 / 3), ([0, 0, 0, 0], 0.25), ([1, 2, 0, 0], 0)]
)
def test_best_of_several(scores: list[float], expected: float) -> None:
    assert best_of_score(np.array(scores, float)) == expected


def test_ties_by_hand() -> None:
    rows = [
        _row("tied", "0", [3.0, 2.5, 1.0], 2),  # gap 1.5, spread 0.5
        _row("ref", "0", [3.0, 2.0], 1),  # gap 1
        _row("tied", "1", [2.0, 2.0, 1.0], 2),  # gap 1, spread 0: tanh(inf)
        _row("ref", "1", [2.0, 1.0], 1),
        _row("tied", "2", [1.0, 1.0, 1.0], 2),  # gap 0, spread 0: 0/0 counts 0
        _row("ref", "2", [1.0, 0.0], 1),
        _row("tied", "3", [5.0, 0.0, 1.0], 2),  # only here
    ]
    found = ties_score(rows)
    assert (found.tied_accuracy, found.ref_accuracy) == (0.5, 1.0)
    assert (found.preferred, found.preferred_hard) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert found.margin == pytest.approx((math.tanh(1.0) + 1 + 0) / 3, abs=1e-12)
    expected = 0.3 * 0.5 + 0.3 * 1 + 0.4 * 2 / 3 + 0.01 * found.margin
    assert found.score == pytest.approx(expected, abs=1e-12)
    assert ties_score(rows[::-1]) == found


def test_a_hard_preference_looks_at_the_smaller_gap() -> None:
    found = ties_score([_row("tied", "0", [3.0, 2.0, 0.0], 2), _row("ref", "0", [2.0, 1.5], 1)])
    assert (found.preferred, found.preferred_hard) == (1.0, 0.0)


def test_constant_scores_have_no_accuracy() -> None:
    found = ties_score([_row("tied", "0", [1.0, 1.0, 1.0], 2), _row("ref", "0", [1.0, 1.0], 1)])
    assert (found.tied_accuracy, found.ref_accuracy, found.score) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([_row("other", "0", [1.0, 0.0], 1)], "neither group"),
        ([_row("ref", "0", [1.0, 0.0], 1)] * 2, "stands twice"),
        ([_row("ref", "0", [1.0, 0.0], 2)], "2 correct of 2"),
    ],
)
def test_impossible_rows_are_refused(rows: list[TiesRow], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ties_score(rows)


def test_the_calibration_error_of_repeated_rows_is_that_of_weights() -> None:
    generator = np.random.default_rng(0)
    margins, times = generator.normal(size=30), generator.integers(0, 4, 30)
    found = calibration_statistic(margins)(np.stack([np.ones(30), times]).astype(np.float64))
    repeated = np.repeat(margins, times)
    expected = [pair_accuracy(one, np.zeros(one.size)).calibration_error for one in (margins, repeated)]
    assert found == pytest.approx(expected)


def test_the_interval_of_ties_is_over_numbers() -> None:
    """Of 40 numbers every second one is right in all ways: the score is 1/2 of 1 and its error that of a share."""
    rows = []
    for number in range(40):
        good = number % 2 == 0
        rows.append(_row("tied", str(number), [3.0, 3.0, 1.0 if good else 4.0], 2))
        rows.append(_row("ref", str(number), [3.0, 1.0 if good else 4.0], 1))
    low, high = ties_interval(rows, seed=0)
    error = 0.5 / 40**0.5  # all four shares rise and fall together; the margin adds 0.01 of tanh(+-inf)
    assert ties_score(rows).score == pytest.approx(0.5)
    assert (low, high) == pytest.approx((0.5 - 1.96 * error * 1.02, 0.5 + 1.96 * error * 1.02), abs=0.3 * error)
    assert ties_interval(rows[::-1], seed=0) == pytest.approx((low, high), abs=0.3 * error)
    assert np.isnan(ties_interval(rows[:2], seed=0)).all()


def test_ties_that_are_all_right_have_an_interval_that_leaves_room() -> None:
    rows = [_row("tied", "0", [3.0, 3.0, 1.0], 2), _row("ref", "0", [3.0, 1.0], 1)]
    rows += [_row("tied", "1", [3.0, 3.0, 1.0], 2), _row("ref", "1", [3.0, 1.0], 1)]
    low, high = ties_interval(rows, seed=0)
    assert (low, high) == pytest.approx((1.01 - (1 - mid_p_interval(1.0, 2)[0]), 1.01))

"""Several judges' scores as one, and win rates."""

from collections.abc import Callable
from math import nan

import pytest
from hypothesis import given as all_of
from hypothesis import strategies as st

from prefloop.pairing import ensemble, scores
from prefloop.pairing.combination import (
    bradley_terry_matrix,
    combined,
    combined_scores,
    extremes,
    sign,
    win_matrix,
    win_rates,
)
from prefloop.records import Example, Group

Build = Callable[..., Group]
SCORES = st.lists(st.floats(-10, 10), min_size=1, max_size=6)


def test_a_mean_a_worst_case_and_a_mean_less_variance() -> None:
    said = [1.0, 2.0, 6.0]
    assert combined(said, "mean") == 3.0
    assert combined(said, "worst_case") == 1.0
    assert combined(said, "uncertainty_weighted", 0.5) == pytest.approx(3 - 0.5 * 14 / 3)
    assert combined(said, "uncertainty_weighted", 0.5, ddof=1) == pytest.approx(3 - 0.5 * 7)
    assert combined(said, "uncertainty_weighted", 0.0) == 3.0
    assert combined([2.0], "uncertainty_weighted", 9.0, ddof=1) == 2.0


@all_of(SCORES, st.floats(-5, 5), st.floats(0, 3), st.randoms())
def test_combinations_are_cautious_shift_with_the_scores_and_know_no_order(
    said: list[float], shift: float, uncertainty: float, random: object
) -> None:
    shuffled = list(said)
    random.shuffle(shuffled)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    for combine in ("mean", "worst_case", "uncertainty_weighted"):
        value = combined(said, combine, uncertainty)
        assert value <= combined(said, "mean") + 1e-12
        assert combined(shuffled, combine, uncertainty) == value
        assert combined([one + shift for one in said], combine, uncertainty) == pytest.approx(value + shift, abs=1e-6)


def test_none_and_nan_are_no_scores_and_an_answer_that_a_judge_left_out_is_not_combined(build: Build) -> None:
    group = build({"one": [1.0, nan, 3.0, None], "two": [2.0, 5.0, 1.0, None]})
    assert scores(group) == {"a": 1.5, "b": 5.0, "c": 2.0}
    assert scores(group, 2) == {"a": 1.5, "c": 2.0}
    assert combined_scores(group, "worst_case") == {"a": 1.0, "c": 1.0}
    assert combined_scores(build([None, None]), "mean") == {}


def test_an_ensemble_rejects_what_all_find_bad_and_not_what_they_dispute(
    build: Build, read: Callable[..., str]
) -> None:
    """c is disputed: its worst case is the lowest, its mean the highest."""
    group = build({"one": [3.0, 0.0, 9.0], "two": [3.0, 0.0, -1.0]})
    assert read(list(ensemble(group))) == ["a>b"]
    assert read(list(ensemble(group, chosen="mean"))) == ["c>b"]
    assert read(list(ensemble(group, chosen=0.0))) == ["c>b"]
    assert read(list(ensemble(group, rejected="worst_case"))) == ["sides contradict each other"]
    assert read(list(ensemble(group, min_margin=3.0))) == ["margin too small"]
    (example,) = ensemble(group)
    assert isinstance(example, Example)
    assert example.why == "ensemble: 3.00 by worst_case against 0.00 by mean of 3"
    assert example.numbers == {"margin": 3.0}


def test_an_ensemble_says_why_there_is_no_pair(build: Build, read: Callable[..., str]) -> None:
    assert read(list(ensemble(build([1.0, 1.0])))) == ["tie"]
    assert read(list(ensemble(build([1.0])))) == ["fewer than two answers that every judge scored"]
    assert read(list(ensemble(build({"one": [1.0, 2.0], "two": [1.0, None]})))) == [
        "fewer than two answers that every judge scored"
    ]
    assert read(list(ensemble(build([1.0, 2.0], texts=["x", "x"])))) == ["same text"]


def test_both_orders_of_a_comparison_are_averaged(build: Build, prefers: Callable[..., object]) -> None:
    group = build([None, None, None], extra=prefers({"ab": 0.9, "ba": 0.5, "bc": 0.25, "ca": None, "cb": nan}))
    assert win_matrix(group) == {
        ("a", "b"): pytest.approx(0.7),
        ("b", "a"): pytest.approx(0.3),
        ("b", "c"): 0.25,
        ("c", "b"): 0.75,
    }


@all_of(st.lists(st.floats(-30, 30), min_size=1, max_size=6))
def test_win_rates_average_to_a_half_with_the_self_comparison(said: list[float]) -> None:
    matrix = bradley_terry_matrix(said)
    assert sum(win_rates(matrix)) / len(said) == pytest.approx(0.5)
    assert sum(win_rates(matrix, include_self=False)) / len(said) == pytest.approx(0.5)
    for row, column in zip(matrix, zip(*matrix, strict=True), strict=True):
        assert [p + q for p, q in zip(row, column, strict=True)] == pytest.approx([1.0] * len(said))


def test_a_single_answer_wins_half_and_the_diagonal_is_not_read() -> None:
    assert win_rates([[0.9]]) == win_rates([[0.9]], include_self=False) == [0.5]
    assert win_rates([[nan, 0.75], [0.25, nan]]) == [0.625, 0.375]
    assert win_rates([[nan, 0.75], [0.25, nan]], include_self=False) == [0.75, 0.25]


def test_extremes_are_the_first_ones_and_pass_over_what_is_no_score() -> None:
    assert extremes([nan, 1.0, 3.0, 1.0, 3.0, None]) == (2, 1)
    assert extremes([2.0, None, 2.0]) is None
    assert extremes([2.0]) is None
    assert extremes([None, nan]) is None
    assert extremes([]) is None
    assert extremes([0.0, -1.0, None]) == (0, 1)


def test_the_sign_of_a_lead() -> None:
    assert [sign(x) for x in (-2.0, -0.25, 0.0, 0.25, 2.0)] == [-1, -1, 0, 1, 1]

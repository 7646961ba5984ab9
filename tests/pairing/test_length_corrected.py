"""Pairs after a charge on length that is set on the whole set."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given as all_of
from hypothesis import strategies as st

from prefloop.config import ScaledFit
from prefloop.errors import RecipeError
from prefloop.pairing import dice, find_rule, length_corrected
from prefloop.pairing.length_corrected import arange, break_points, charged_pair, search_alpha, usable
from prefloop.records import Example, Group

Build = Callable[..., Group]
Read = Callable[..., list[str]]
CANDIDATES = st.lists(
    st.lists(st.tuples(st.integers(-8, 8).map(float), st.integers(1, 9)), max_size=4).map(
        lambda said: [(index, score, length) for index, (score, length) in enumerate(said)]
    ),
    min_size=1,
    max_size=4,
)


def test_the_first_charge_of_equals_is_taken_and_a_search_may_stop_at_the_first_rise() -> None:
    """The long answers win until 0.1 and until 0.2 a token."""
    prompts = [[(0, 3.0, 30), (1, 1.0, 10)], [(0, 5.0, 30), (1, 1.0, 10)]]
    grid = [0.0, 0.08, 0.12, 0.18, 0.3, 0.4]
    everything = search_alpha(prompts, grid, stop_at_rise=False)
    assert (everything.alpha, everything.mean_length_gap, everything.mean_length_gap_at_start) == (0.12, 0.0, 20.0)
    assert everything.pairs == [(1, 0), (0, 1)]
    assert everything.evaluated == 6
    assert search_alpha(prompts, grid, stop_at_rise=True).evaluated == 5
    assert search_alpha(prompts, grid[:1], stop_at_rise=True).evaluated == 1


@all_of(CANDIDATES, st.floats(-2, 2), st.floats(0.01, 2))
def test_the_gap_never_grows_with_the_charge(prompts: list[Any], alpha: float, more: float) -> None:
    """So that the first rise is past the best charge wherever the gap begins above zero."""
    low, high = (search_alpha(prompts, [charge], stop_at_rise=False) for charge in (alpha, alpha + more))
    if not any(two is None for two in (*low.pairs, *high.pairs)):
        assert high.mean_length_gap <= low.mean_length_gap + 1e-9


@all_of(CANDIDATES, st.floats(-3, 3))
def test_break_points_hold_the_best_gap_of_every_charge(prompts: list[Any], alpha: float) -> None:
    exact = search_alpha(prompts, break_points(prompts), stop_at_rise=False)
    other = search_alpha(prompts, [alpha], stop_at_rise=False)
    tied = any(
        abs((first[1] - second[1]) - alpha * (first[2] - second[2])) < 1e-9
        for candidates in prompts
        for number, first in enumerate(candidates)
        for second in candidates[:number]
        if first[2] != second[2]
    )
    if not tied:
        assert abs(exact.mean_length_gap) <= abs(other.mean_length_gap) + 1e-9


@all_of(CANDIDATES, st.integers(-9, 9).map(float))
def test_a_shift_of_all_scores_changes_nothing(prompts: list[Any], shift: float) -> None:
    moved = [[(index, score + shift, length) for index, score, length in candidates] for candidates in prompts]
    for ties in ("first", "last"):
        for alpha in (0.0, 0.5, -0.25):
            assert [charged_pair(one, alpha, ties) for one in moved] == [
                charged_pair(one, alpha, ties) for one in prompts
            ]


def test_ties_and_single_answers() -> None:
    same = [(0, 1.0, 5), (1, 1.0, 5), (2, 1.0, 5)]
    assert charged_pair(same, 0.0) is None
    assert charged_pair(same, 0.0, "last") == (2, 0)
    assert charged_pair(same[:1], 0.0, "last") is None
    assert charged_pair([(0, 1.0, 5), (1, 2.0, 5), (2, 2.0, 5), (3, 1.0, 5)], 0.0) == (1, 0)
    nothing = search_alpha([[], same[:1]], [0.0, 0.1], stop_at_rise=True)
    assert (nothing.alpha, nothing.mean_length_gap, nothing.pairs) == (0.0, 0.0, [None, None])


def test_bounds_in_characters_are_exclusive() -> None:
    said = [usable(chars, cut=False, min_chars=3, max_chars=6) for chars in (3, 4, 5, 6)]
    assert said == [False, True, True, False]
    assert not usable(4, cut=True, min_chars=3, max_chars=6)


def test_the_charge_is_fitted_on_the_whole_set_and_applied_to_each_group(build: Build, read: Read) -> None:
    """The answers that are 20 tokens longer win until 0.1 a token, and until 0.4."""
    groups = [build([3.0, 1.0], lengths=[30, 10]), build([9.0, 1.0], lengths=[30, 10])]
    rule = find_rule("length_corrected", "it")
    options = rule.checked({"alpha": "fitted"}, "it")
    fits = rule.fitted(lambda: groups, options)
    assert fits == {
        "alpha": {
            "value": pytest.approx(0.25),
            "figures": {"pairs": 2.0, "mean_length_gap": 0.0, "mean_length_gap_at_zero": 20.0, "evaluated": 4.0},
            "warning": None,
            "factor": 1.0,
        }
    }
    constants = {name: found["value"] for name, found in fits.items()}
    assert [read(list(rule.apply(group, options, constants))) for group in groups] == [["b>a"], ["a>b"]]
    half = rule.fitted(lambda: groups, rule.checked({"alpha": {"fitted": 0.25}}, "it"))
    assert half["alpha"]["value"] == pytest.approx(0.0625)


def test_a_short_bias_has_a_negative_charge_which_dice_never_tries(build: Build) -> None:
    groups = [build([1.0, 3.0], lengths=[30, 10], texts=["long" * 9, "short"])] * 1
    groups += [build([1.0, 9.0], lengths=[30, 10], texts=["long" * 9, "short"])]
    fits = {
        name: find_rule(name, "it").fitted(
            lambda: groups, find_rule(name, "it").checked({"alpha": "fitted", "min_answers": 2}, "it")
        )["alpha"]
        for name in ("length_corrected", "dice")
    }
    assert fits["length_corrected"]["value"] == pytest.approx(-0.25)
    assert fits["dice"]["value"] == 0.0
    assert fits["dice"]["figures"]["evaluated"] == 1000.0


def test_dice_leaves_out_what_was_cut_or_is_too_long_and_says_why(build: Build, read: Read) -> None:
    group = build([1.0, 2.0, 3.0, 9.0], texts=["four", "fives", "sixsix", "x" * 50], cut=[False, False, True, False])
    assert read(list(dice(group, alpha=0.0, max_chars=50, min_answers=2))) == ["b>a"]
    assert read(list(dice(group, alpha=2.0, max_chars=50, min_answers=2))) == ["a>b"]
    assert read(list(dice(group, alpha=0.0, max_chars=50))) == ["too few usable answers"]
    assert read(list(dice(group, alpha=0.0, min_chars=4, max_chars=50, min_answers=2))) == ["too few usable answers"]
    assert read(list(dice(build([2.0, 2.0]), alpha=0.0, min_answers=2))) == ["tie"]


def test_length_corrected_says_why(build: Build, read: Read) -> None:
    assert read(list(length_corrected(build([2.0, 2.0], lengths=[3, 3]), alpha=1.0))) == ["tie"]
    assert read(list(length_corrected(build([2.0, None]), alpha=1.0))) == ["too few usable answers"]
    assert read(list(length_corrected(build([2.0, 1.0], texts=["x", "x"]), alpha=0.0))) == ["same text"]
    (example,) = length_corrected(build([2.0, 2.5], lengths=[2, 7]), alpha=0.2)
    assert isinstance(example, Example)
    assert example.why == "length_corrected: 1.60 against 1.10 of 2, 0.2 a unit of length taken off"
    assert example.numbers == {"margin": pytest.approx(0.5)}


def test_without_a_pair_the_constant_is_zero_with_a_warning(build: Build) -> None:
    rule = find_rule("length_corrected", "it")
    found = rule.fitted(lambda: [build([1.0])], rule.checked({"alpha": "fitted"}, "it"))["alpha"]
    assert (found["value"], found["warning"]) == (0.0, "No prompt has a pair: the charge on length is 0.")


def test_an_option_of_the_fit_alone_is_refused_without_it() -> None:
    rule = find_rule("clear_pairs", "it")
    bounds = {"rm": [-1.0, 1.0]}
    assert isinstance(rule.checked({"bounds": bounds, "min_evidence": "fitted", "share": 0.5}, "pairs"), object)
    with pytest.raises(RecipeError) as raised:
        rule.checked({"bounds": bounds, "min_evidence": 0.5, "share": 0.5}, "pairs")
    assert str(raised.value) == (
        "pairs.share has no effect: nothing is fitted. Say min_evidence: fitted, or leave it out."
    )
    assert rule.checked({"bounds": bounds, "min_evidence": "fitted"}, "it").min_evidence == ScaledFit(fitted=1)


def test_charges_are_tried_from_the_first_on_and_between_and_beyond_crossings() -> None:
    assert arange(0.0, 1.0, 0.25) == [0.0, 0.25, 0.5, 0.75]
    assert arange(1.0, 2.0, 0.5) == [1.0, 1.5]
    assert arange(1.0, 1.0, 1.0) == [1.0]
    assert break_points([[(0, 0.0, 1), (1, 1.0, 2)]]) == [0.0, 2.0]
    assert break_points([[(0, 0.0, 1), (1, 1.0, 2)], [(0, 0.0, 1), (1, 3.0, 2)]]) == [0.0, 2.0, 4.0]


def test_the_search_of_dice_ends_where_the_gap_rises_again(build: Build) -> None:
    rule = find_rule("dice", "it")
    group = build([3.0, 0.0], texts=["x" * 60, "y" * 50])
    options = rule.checked({"alpha": "fitted", "min_answers": 2, "min_chars": 1}, "it")
    figures = rule.fitted(lambda: [group, build([1.0, 0.0], texts=["x" * 20, "y" * 15])], options)["alpha"]["figures"]
    assert figures["mean_length_gap_at_zero"] == 7.5
    assert figures["evaluated"] < 400

"""Selections of a whole set: joint evidence, learnability, pairs that the policy outdoes."""

from collections.abc import Callable
from dataclasses import replace
from math import exp, inf, nan

import pytest
from hypothesis import given as all_of
from hypothesis import strategies as st

from prefloop.errors import RecipeError
from prefloop.pairing import clear_pairs, find_rule, not_outdone
from prefloop.pairing.selection import filter_by_epoch, geometric, highest, joint_evidence, learnability
from prefloop.records import Example, Group

Build = Callable[..., Group]
Read = Callable[..., list[str]]
BOUNDS = {"one": (-2.0, 4.0), "two": (-2.0, 8.0)}
MARGINS = st.lists(st.integers(-12, 40).map(lambda quarter: quarter / 4), min_size=1, max_size=8)


@all_of(MARGINS)
def test_one_source_ranks_by_its_clipped_margin_and_a_half_is_neutral(margins: list[float]) -> None:
    alone = joint_evidence({"one": margins}, BOUNDS, k=len(margins))
    ranked = sorted(range(len(margins)), key=lambda i: (-min(max(margins[i], -2), 4), -margins[i], i))
    assert alone.selected == ranked
    neutral = joint_evidence({"one": margins, "two": [3.0] * len(margins)}, BOUNDS, k=1)
    assert neutral.joint == pytest.approx(alone.joint)


@all_of(MARGINS, st.data())
def test_sources_are_symmetric_and_two_copies_square_the_odds(margins: list[float], data: st.DataObject) -> None:
    others = data.draw(st.lists(st.floats(-3, 9), min_size=len(margins), max_size=len(margins)))
    both = joint_evidence({"one": margins, "two": others}, BOUNDS, k=3)
    turned = joint_evidence({"two": others, "one": margins}, BOUNDS, k=3)
    assert (both.joint, both.selected) == (turned.joint, turned.selected)
    twice = joint_evidence({"one": margins, "copy": margins}, {**BOUNDS, "copy": BOUNDS["one"]}, k=1, prob_eps=1e-4)
    once = joint_evidence({"one": margins}, BOUNDS, k=1, prob_eps=1e-4)
    for p, q in zip(twice.joint, once.joint, strict=True):
        assert p is not None
        assert q is not None
        assert p / (1 - p) == pytest.approx((q / (1 - q)) ** 2, rel=1e-6)


def test_a_pair_that_a_source_is_silent_about_is_not_kept_and_fewer_than_k_are_all_kept() -> None:
    found = joint_evidence({"one": [1.0, None, nan, 2.0], "two": [1.0, 2.0, 2.0, 0.0]}, BOUNDS, k=9)
    assert found.selected == [3, 0]
    assert found.joint[1] is None
    assert found.probabilities["one"][1:3] == [None, None]
    strict = joint_evidence({"one": [1.0, 2.0], "two": [1.0, 0.0]}, BOUNDS, k=9, require_positive=True)
    assert strict.selected == [0]
    assert joint_evidence({"one": []}, BOUNDS, k=3).selected == []


def given_pairs(
    build: Build, prefers: Callable[..., object], one: list[float | None], two: list[float | None]
) -> Group:
    return build({"one": one, "two": two}, steps=["given"] * len(one), extra=prefers({"ab": 1.0, "cd": 1.0}))


def test_the_rule_keeps_the_clearest_share_and_says_why_not(
    build: Build, read: Read, prefers: Callable[..., object]
) -> None:
    group = given_pairs(build, prefers, [3.0, 0.0, 1.0, 0.0], [4.0, 0.0, 0.5, 1.0])
    rule = find_rule("clear_pairs", "it")
    asked = {"bounds": {name: list(two) for name, two in BOUNDS.items()}, "min_evidence": "fitted"}
    for share, expected in ((0.5, ["a>b", "not clear enough"]), (1.0, ["a>b", "c>d"])):
        options = rule.checked({**asked, "share": share}, "it")
        found = rule.fitted(lambda: [group], options)["min_evidence"]
        assert read(list(rule.apply(group, options, {"min_evidence": found["value"]}))) == expected
    made = list(clear_pairs(group, bounds=BOUNDS, min_evidence=0.0, require_positive=True))
    assert read(made) == ["a>b", "a source contradicts the order"]
    assert isinstance(made[0], Example)
    assert made[0].numbers["evidence"] == pytest.approx(0.882352941)
    silent = given_pairs(build, prefers, [3.0, None, 1.0, 0.0], [4.0, 0.0, 0.5, 1.0])
    assert read(list(clear_pairs(silent, bounds=BOUNDS, min_evidence=0.0))) == ["a source has no margin", "c>d"]


def test_bounds_that_are_no_bounds_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"Value error, expected judges with .* each, low below high"):
        find_rule("clear_pairs", "it").checked({"bounds": {"one": [1.0, 1.0]}, "min_evidence": 0.5}, "pairs")


def test_learnability_does_not_depend_on_the_unit_of_length() -> None:
    base, ref, lengths = [10.0, 20.0, 30.0, 8.0], [5.0, 15.0, 10.0, 12.0], [2, 4, 5, 1]
    scores = learnability(base, ref, lengths)
    assert scores == [0.5, 0.25, pytest.approx(2 / 3), -0.5]
    assert learnability([3 * nll for nll in base], [3 * nll for nll in ref], lengths) == pytest.approx(scores)
    by_ref = learnability(base, ref, lengths, normalise="ref")
    assert highest(by_ref, 4) == highest(scores, 4) == [2, 0, 1, 3]
    assert learnability(base, ref, lengths, normalise="tokens") == [2.5, 1.25, 4.0, -4.0]
    assert learnability(base, ref, lengths, normalise="none") == [5.0, 5.0, 20.0, -4.0]


def test_examples_without_a_score_are_never_kept_and_ties_go_to_the_earlier() -> None:
    assert learnability([0.0, 1.0], [0.0, nan], [1, 1]) == [None, None]
    assert highest([None, 1.0, 2.0, 1.0], 3) == [2, 1, 3]
    assert highest([None], 3) == []


@all_of(st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=5), st.data())
def test_kept_pairs_are_nested_and_beat_the_generation(chosen: list[float], data: st.DataObject) -> None:
    epochs = data.draw(
        st.lists(st.lists(st.integers(-3, 3).map(float), min_size=len(chosen), max_size=len(chosen)), max_size=4)
    )
    found = filter_by_epoch(chosen, epochs)
    for number, (kept, generated) in enumerate(zip(found.kept_per_epoch, epochs, strict=True)):
        assert all(generated[index] < chosen[index] for index in kept)
        assert set(kept) <= set(found.kept_per_epoch[max(number - 1, 0)])
    assert filter_by_epoch(chosen, epochs, threshold=inf).dropped_at == [-1] * len(chosen)
    assert not any(filter_by_epoch(chosen, epochs, threshold=-inf).kept_per_epoch)


def test_a_given_pair_stays_while_its_chosen_answer_is_above_the_own_one(
    build: Build, read: Read, prefers: Callable[..., object]
) -> None:
    steps = ["given", "given", "samples", "samples"]
    group = build([2.0, None, 1.0, 3.0], steps=steps, extra=prefers({"ab": 1.0}))
    assert read(list(not_outdone(group))) == ["own answer is as good"]
    assert read(list(not_outdone(group, threshold=0.5))) == ["a>b"]
    missing = build([None, 1.0, 1.0, 3.0], steps=steps, extra=prefers({"ab": 1.0}))
    assert read(list(not_outdone(missing))) == ["chosen answer without score"]
    alone = build([2.0, 1.0], steps=steps[:2], extra=prefers({"ab": 1.0}))
    assert read(list(not_outdone(alone))) == ["no scored own answer"]
    tie = build([2.0, 1.0], steps=steps[:2], extra=prefers({"ab": 0.5}))
    assert read(list(not_outdone(tie))) == ["tie"]


def test_a_pair_that_was_dropped_never_returns(build: Build, read: Read, prefers: Callable[..., object]) -> None:
    """What it kept before is read in place of the given pairs."""
    steps = ["given"] * 4 + ["samples"]
    group = build([2.0, 0.0, 2.0, 0.0, 1.0], steps=steps, extra=prefers({"ab": 1.0, "cd": 1.0}))
    assert read(list(not_outdone(group))) == ["a>b", "c>d"]
    kept = [one for one in not_outdone(group) if isinstance(one, Example)][:1]
    assert read(list(not_outdone(replace(group, examples=tuple(kept))))) == ["a>b"]
    assert read(list(not_outdone(replace(group, examples=())))) == ["dropped before"]


def test_positive_margins_are_asked_for_where_they_are(
    build: Build, read: Read, prefers: Callable[..., object]
) -> None:
    group = given_pairs(build, prefers, [0.5, 0.0, 1.0, 1.0], [0.5, 0.0, 9.0, 0.0])
    made = list(clear_pairs(group, bounds=BOUNDS, min_evidence=0.0, require_positive=True))
    assert read(made) == ["a>b", "a source contradicts the order"]
    rule = find_rule("clear_pairs", "it")
    asked = {"bounds": {name: list(two) for name, two in BOUNDS.items()}, "min_evidence": "fitted", "share": 1.0}
    for required, pairs in ((True, 1.0), (False, 2.0)):
        options = rule.checked({**asked, "require_positive": required}, "it")
        assert rule.fitted(lambda: [group], options)["min_evidence"]["figures"]["pairs"] == pairs
    silent = given_pairs(build, prefers, [None] * 4, [None] * 4)
    found = rule.fitted(lambda: [silent], rule.checked(asked, "it"))["min_evidence"]
    assert (found["value"], found["warning"]) == (0.0, "No pair has a margin from every source.")


def test_no_source_says_nothing_of_no_pair_and_a_text_has_a_probability_a_token() -> None:
    assert joint_evidence({}, {}, k=1).joint == []
    assert geometric(-6.0, 3) == pytest.approx(exp(-2))
    assert geometric(-6.0, 4, 0.5) == pytest.approx(exp(-3))

"""All pairs of a prompt, and single answers with labels."""

from collections.abc import Callable

import pytest

from prefloop.pairing import Dropped, all_pairs, threshold_labels, unpaired
from prefloop.records import Example, Group, Judgment

Build = Callable[..., Group]
Read = Callable[..., list[str]]


def label(name: str, value: float | None) -> Judgment:
    return Judgment(judge="human", kind="label", subjects=(name,), values=(value,))


def said(made: list[object]) -> list[str]:
    """Single answers as a+ or a-."""
    found: list[str] = []
    for one in made:
        if isinstance(one, Dropped):
            found.append(one.reason)
        else:
            assert isinstance(one, Example)
            member = one.member("response")
            found.append(member.response_id + ("+" if member.numbers["label"] == 1 else "-"))
    return found


def test_all_pairs_are_made_and_ties_are_not(build: Build, read: Read) -> None:
    assert read(list(all_pairs(build([1.0, 3.0, 2.0, None])))) == ["b>a", "c>a", "b>c"]
    assert read(list(all_pairs(build([1.0, 3.0, 1.0])))) == ["tie", "b>a", "b>c"]
    assert read(list(all_pairs(build([1.0, 3.0, 1.5]), min_margin=1.0))) == ["margin too small", "b>a", "b>c"]
    assert read(list(all_pairs(build([1.0])))) == ["fewer than two scored answers"]
    assert read(list(all_pairs(build([1.0, 2.0], texts=["x", "x"])))) == ["same text"]


def test_all_pairs_carry_their_probability_and_may_weigh_one_a_prompt(build: Build) -> None:
    made = [one for one in all_pairs(build([1.0, 3.0, 2.0])) if isinstance(one, Example)]
    assert [one.numbers["margin"] for one in made] == [2.0, 1.0, 1.0]
    assert made[1].numbers["prob_chosen_wins"] == pytest.approx(0.7310585786300049)
    assert [one.weight for one in made] == [1.0] * 3
    alike = [one for one in all_pairs(build([1.0, 3.0, 2.0]), equal_weight=True) if isinstance(one, Example)]
    assert sum(one.weight for one in alike) == pytest.approx(1.0)


def test_labels_and_preferences_become_single_answers(build: Build, prefers: Callable[..., list[Judgment]]) -> None:
    extra = [label("a", 1.0), label("b", 0.0), label("c", None), *prefers({"ac": 1.0, "ad": 0.5})]
    group = build([None] * 4, extra=extra)
    assert said(list(unpaired(group))) == ["a+", "b-", "c-"]
    assert said(list(unpaired(group, both_of_pairs=False))) == ["a+", "b-"]
    torn = build([None] * 3, extra=prefers({"ab": 1.0, "bc": 1.0}))
    assert said(list(unpaired(torn))) == ["a+", "both good and bad", "c-"]
    assert said(list(unpaired(build([None])))) == ["no label"]
    assert said(list(unpaired(build([None], extra=[label("a", 0.5)])))) == ["tie"]


def test_scores_become_labels_by_a_threshold(build: Build) -> None:
    group = build([2.0, 0.25, -1.0, -0.5, None])
    assert said(list(threshold_labels(group))) == ["a+", "b+", "c-", "d-"]
    assert said(list(threshold_labels(group, threshold=0.25))) == ["a+", "c-", "d-"]
    assert said(list(threshold_labels(group, dead_zone=0.5))) == ["a+", "c-"]
    assert said(list(threshold_labels(group, dead_zone=5.0))) == ["scores too near to the threshold"]
    assert said(list(threshold_labels(build([None])))) == ["no scored answer"]


def test_good_and_bad_answers_may_weigh_alike(build: Build) -> None:
    group = build([2.0, 1.0, 1.0, -0.5])
    made = [one for one in threshold_labels(group, balance="halves") if isinstance(one, Example)]
    assert [one.weight for one in made] == pytest.approx([1 / 6] * 3 + [1 / 2])
    one_kind = [one for one in threshold_labels(build([1.0, 2.0]), balance="halves") if isinstance(one, Example)]
    assert [one.weight for one in one_kind] == [0.5, 0.5]


def test_a_pair_that_the_second_answer_wins_makes_it_good(build: Build, prefers: Callable[..., list[Judgment]]) -> None:
    made = list(unpaired(build([None] * 2, extra=prefers({"ab": 0.0}))))
    assert said(made) == ["a-", "b+"]
    assert [len(one.example_id) for one in made if isinstance(one, Example)] == [16, 16]

"""Rules of the online recipes."""

from collections.abc import Callable
from math import nan

import pytest
from hypothesis import given as all_of
from hypothesis import strategies as st

from prefloop.pairing import iid, max_max, max_min, max_min_length, max_random
from prefloop.pairing.online import enough, pick_max_max, pick_max_min, pick_max_min_length
from prefloop.records import Example, Group

Build = Callable[..., Group]
Read = Callable[..., list[str]]
REWARDS = st.lists(st.integers(-3, 3).map(float), min_size=2, max_size=6)


@pytest.mark.parametrize(
    ("made", "expected"),
    [(max_min, "c>b"), (max_max, "c>a"), (iid, "a>b"), (max_min_length, "c>b")],
)
def test_each_rule_picks_its_pair(build: Build, read: Read, made: Callable[..., object], expected: str) -> None:
    found = list(made(build([2.0, 0.0, 5.0, 1.0])))  # pyright: ignore[reportArgumentType, reportUnknownVariableType]
    assert read(found) == [expected]
    (example,) = found
    assert isinstance(example, Example)
    assert example.numbers["margin"] == {"c>b": 5.0, "c>a": 3.0, "a>b": 2.0}[expected]


def test_with_a_length_penalty_the_reward_still_says_who_is_chosen(build: Build, read: Read) -> None:
    """Less a point a token, b is best and a worst: but a has the higher reward."""
    assert pick_max_min_length([5.0, 4.0, 2.0], [9, 1, 4], 1.0) == (0, 1)
    assert pick_max_min_length([5.0, 4.0, 2.0], [9, 1, 4], 0.25) == (1, 2)
    group = build([5.0, 1.0, 2.0], lengths=[9, 1, 4])
    assert read(list(max_min_length(group, length_penalty=1.0))) == ["a>b"]
    assert read(list(max_min_length(group, length_penalty=0.0))) == ["a>b"]
    assert read(list(max_min_length(build([1.0, 1.0], lengths=[1, 9]), length_penalty=1.0))) == ["tie"]


@all_of(REWARDS, st.floats(-4, 4))
def test_picks_do_not_change_when_all_rewards_shift_and_agree_for_two_answers(
    rewards: list[float], shift: float
) -> None:
    moved = [round(reward + round(shift * 4) / 4, 6) for reward in rewards]
    for pick in (pick_max_min, pick_max_max):
        assert pick(moved) == pick(rewards)
    assert pick_max_min_length(rewards, [3] * len(rewards), 0.5) == pick_max_min(rewards)
    first_two = rewards[:2]
    assert pick_max_min(first_two) == pick_max_max(first_two)


def test_of_equal_best_answers_there_is_no_pair_by_max_max(build: Build, read: Read) -> None:
    assert read(list(max_max(build([1.0, 4.0, 4.0])))) == ["tie"]
    assert read(list(max_max(build([4.0, 1.0, 1.0])))) == ["a>c"]


def test_too_few_scored_answers_give_nothing(build: Build, read: Read) -> None:
    assert read(list(max_min(build([1.0, None, 3.0]), num_responses=3))) == ["too few scored answers"]
    assert read(list(max_min(build([1.0, None, 3.0]), num_responses=2))) == ["c>a"]
    assert read(list(max_min(build([1.0])))) == ["too few scored answers"]
    assert read(list(max_min(build([1.0, 2.0], texts=["x", "x"])))) == ["same text"]


def test_an_unfinished_answer_loses_the_penalty_before_answers_are_ranked(build: Build, read: Read) -> None:
    group = build([3.0, 2.5, 2.0], cut=[True, False, False])
    assert read(list(max_min(group))) == ["a>c"]
    (example,) = max_min(group, missing_eos_penalty=2.0)
    assert isinstance(example, Example)
    assert read([example]) == ["b>a"]
    assert example.numbers == {"margin": 1.5}


def test_a_random_opponent_is_never_the_best_answer_and_depends_on_the_seed(build: Build, read: Read) -> None:
    group = build([1.0, 2.0, 3.0, 4.0])
    found = {read(list(max_random(group, seed=seed)))[0] for seed in range(40)}
    assert found == {"d>a", "d>b", "d>c"}
    assert read(list(max_random(group, seed=7))) == read(list(max_random(group, seed=7)))


def test_a_random_other_answer_is_never_the_best_and_each_comes(build: Build, read: Read) -> None:
    for scores, others in (([5.0, 1.0, 2.0], {"b", "c"}), ([1.0, 5.0, 2.0], {"a", "c"}), ([1.0, 2.0, 5.0], {"a", "b"})):
        made = [read(list(max_random(build(scores), seed=seed)))[0].split(">") for seed in range(20)]
        assert {rejected for _, rejected in made} == others


def test_none_and_nan_are_no_rewards() -> None:
    assert enough([None, 1.0, 2.0], 2)
    assert not enough([None, nan, 1.0], 2)
    assert not enough([1.0, nan, 2.0], 3)
    assert not enough([1.0], 1)

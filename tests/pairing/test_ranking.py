"""All answers of a prompt, best first."""

from collections.abc import Callable

import pytest

from prefloop.errors import RecipeError
from prefloop.pairing import Dropped, find_rule, ranking
from prefloop.records import Example, Group

Build = Callable[..., Group]


def order(group: Group, length: int | None = None) -> str:
    """The ranked answers, or why there are none."""
    (one,) = ranking(group, length=length)
    if isinstance(one, Dropped):
        return one.reason
    assert isinstance(one, Example)
    assert {member.role for member in one.members} == {"ranked"}
    return ">".join(member.response_id for member in one.members)


def test_scored_answers_stand_best_first(build: Build) -> None:
    assert order(build([1.0, 3.0, None, 2.0])) == "b>d>a"
    assert order(build([1.0])) == order(build([None, None])) == "fewer than two scored answers"


def test_of_equal_scores_or_texts_the_first_stands_for_all(build: Build) -> None:
    assert order(build([1.0, 3.0, 3.0, 1.0])) == "b>a"
    assert order(build([2.0, 2.0, 2.0])) == "tie"
    assert order(build([1.0, 3.0, 2.0], texts=["x", "y", "y"])) == "b>a"
    assert order(build([1.0, 2.0], texts=["x", "x"])) == "tie"


def test_a_shorter_ranking_is_spread_from_the_best_to_the_worst(build: Build) -> None:
    scores = [5.0, 4.0, 3.0, 2.0, 1.0]
    assert order(build(scores), 2) == "a>e"
    assert order(build(scores), 3) == "a>c>e"
    assert order(build(scores), 9) == "a>b>c>d>e"
    with pytest.raises(RecipeError, match=r"pairs.length"):
        find_rule("ranking", "pairs").checked({"length": 1}, "pairs")


def test_members_carry_their_scores_and_the_example_says_why(build: Build) -> None:
    (one,) = ranking(build([1.0, 3.0, 2.0]))
    assert isinstance(one, Example)
    assert [member.numbers["score"] for member in one.members] == [3.0, 2.0, 1.0]
    assert one.why == "ranking: 3.00 to 1.00, 3 of 3"

"""Pairs relabelled for the goal in their prompt."""

from collections.abc import Callable

import pytest

from prefloop.errors import RecipeError
from prefloop.pairing import find_rule, goal_labelled
from prefloop.pairing.goals import goal_orders, goal_text, has_goal, with_goal
from prefloop.records import Example, Group, Message

Build = Callable[..., Group]
Read = Callable[..., list[str]]
TEMPLATE = "Target quality: {score} of 10."
SYSTEM, USER = Message(role="system", content="Be brief."), Message(role="user", content="Hi")


def test_whole_numbers_have_no_fraction() -> None:
    assert [goal_text("{score}/{score}", score) for score in (9.0, 8.5, -1.0, 7)] == ["9/9", "8.5/8.5", "-1/-1", "7/7"]


def test_the_goal_stands_before_everything_and_leaves_the_rest_as_it_is() -> None:
    later = Message(role="assistant", content="yes")
    assert with_goal((USER, later), "g", "system") == (Message(role="system", content="g"), USER, later)
    assert with_goal((SYSTEM, USER), "g", "system") == (Message(role="system", content="g\n\nBe brief."), USER)
    assert with_goal((SYSTEM, USER, later), "g", "user") == (SYSTEM, Message(role="user", content="g\n\nHi"), later)
    assert with_goal((SYSTEM,), "g", "user") is None


def test_scores_that_contradict_the_order_give_nothing_and_ties_where_asked() -> None:
    assert goal_orders(9.0, 2.0) == [(9.0, True), (2.0, False)]
    assert goal_orders(9.0, 2.0, goals=("rejected",)) == [(2.0, False)]
    assert goal_orders(2.0, 9.0, drop_ties=False) == []
    assert goal_orders(7.0, 7.0) == []
    assert goal_orders(7.0, 7.0, drop_ties=False) == [(7.0, True), (7.0, False)]


def test_a_goal_is_recognised() -> None:
    assert has_goal([SYSTEM, Message(role="user", content="Target quality: 8.5 of 10.\n\nHi")], TEMPLATE)
    assert not has_goal([SYSTEM, USER], TEMPLATE)


def test_a_pair_becomes_an_example_for_each_goal(build: Build, read: Read, prefers: Callable[..., object]) -> None:
    group = build([2.0, 9.0], steps=["given"] * 2, extra=prefers({"ab": 0.0}))
    made = list(goal_labelled(group))
    assert read(made) == ["b>a", "a>b"]
    asked = [one.prompt.messages[0].content for one in made if isinstance(one, Example)]
    assert asked == ["Target quality: 9 of 10.", "Target quality: 2 of 10."]
    assert [one.numbers for one in made if isinstance(one, Example)] == [{"goal": 9.0}, {"goal": 2.0}]
    assert [one.prompt.root_id for one in made if isinstance(one, Example)] == [group.root.root_id] * 2
    assert len({one.prompt.prompt_id for one in made if isinstance(one, Example)}) == 2
    (first, *_) = goal_labelled(group, template="Be {score}.", placement="user", goals=("rejected",))
    assert isinstance(first, Example)
    assert first.prompt.messages == (Message(role="user", content="Be 2.\n\nHow are you?"),)


def test_the_rule_says_why_there_is_no_example(build: Build, read: Read, prefers: Callable[..., object]) -> None:
    def reasons(scores: list[float | None], sure: float | None = 1.0, **options: object) -> list[str]:
        return read(list(goal_labelled(build(scores, extra=prefers({"ab": sure})), **options)))  # pyright: ignore[reportArgumentType]

    assert reasons([1.0, 2.0]) == ["scores contradict the order"]
    assert reasons([2.0, 2.0]) == ["tie"]
    assert reasons([2.0, 2.0], drop_ties=False) == ["a>b", "b>a"]
    assert reasons([None, 2.0]) == ["answer without score"]
    assert reasons([2.0, 1.0], sure=0.5) == ["tie"]
    assert reasons([2.0, 1.0], sure=None) == ["no verdict"]
    assert reasons([2.0, 1.0], template="How are you?{score}") == ["a>b", "b>a"]
    (once, _) = goal_labelled(build([2.0, 1.0], extra=prefers({"ab": 1.0})))
    assert isinstance(once, Example)
    group = build([2.0, 1.0], extra=prefers({"ab": 1.0}))
    prompt = once.prompt.model_copy(update={"prompt_id": group.root.prompt_id})
    again = Group(prompts=(prompt,), responses=group.responses, judgments=group.judgments)
    assert read(list(goal_labelled(again))) == ["the prompt has a goal already"]


def test_a_template_without_a_score_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"^pairs.template: String should match pattern"):
        find_rule("goal_labelled", "it").checked({"template": "be good"}, "pairs")

"""Statistics of a search tree, and pairs of siblings."""

from collections.abc import Callable

import pytest
from hypothesis import given as all_of
from hypothesis import strategies as st

from prefloop.pairing import siblings
from prefloop.pairing.tree import (
    Child,
    PathNode,
    back_up,
    node_value,
    puct,
    sibling_pair,
    step_prior,
    visit_label_smoothing,
)
from prefloop.records import Example, Group, Judgment

Build = Callable[..., Group]
Read = Callable[..., list[str]]


@all_of(st.floats(-3, 3), st.integers(1, 5), st.lists(st.integers(0, 9), min_size=1, max_size=5))
def test_with_equal_values_every_reward_below_the_root_is_zero(value: float, depth: int, visits: list[int]) -> None:
    path = [PathNode(visits[level % len(visits)], value, 0.0) for level in range(depth)]
    backed = back_up(path)
    assert [node.q for node in backed] == [None] + [0.0] * (depth - 1)
    assert [node.state_value for node in backed] == [0.0] * depth
    assert [node.visits for node in backed] == [node.visits + 1 for node in path]


@all_of(st.lists(st.floats(-3, 3), min_size=2, max_size=6))
def test_without_discount_a_single_path_telescopes(values: list[float]) -> None:
    backed = back_up([PathNode(0, value, 0.0) for value in values])
    assert backed[1].q == pytest.approx(values[-1] - values[0], abs=1e-9)
    assert backed[0].state_value == backed[1].q


def test_discount_and_unvisited_children_count() -> None:
    path = [PathNode(1, 0.0, 0.0, ((0, 4.0),)), PathNode(0, 1.0, 0.5)]
    assert back_up(path, 0.5)[1].q == 1.25
    assert back_up(path, 0.5)[0].state_value == pytest.approx((1.25 + 4.0) / 2)


def test_priors_values_and_exploration() -> None:
    assert step_prior(0.0, 0) == 1.0
    assert step_prior(-2.0, 2, 1.0) == pytest.approx(0.36787944)
    assert node_value(0.0, parent_depth=9, parent_value=0.4) == 0.4
    assert node_value(0.0, parent_depth=9, parent_value=0.4, terminal=True, outcome=-1.0) == -0.6
    assert node_value(0.8, parent_depth=5, parent_value=0.4) == 0.4
    assert node_value(0.8, parent_depth=4, parent_value=0.1, outcome=1.0) == 0.8
    assert puct([Child(0.0, 0, 0.5), Child(0.2, 3, 0.5)], 4, 1.0) == [1.0, 0.45]


def test_visits_say_how_sure_a_label_is() -> None:
    assert [visit_label_smoothing(*two) for two in ((5, 0), (5, 5), (1, 9), (0, 0), (6, 2))] == [0, 0.5, 0.5, 0, 0.25]


def test_siblings_are_ordered_by_visits_then_value_then_place() -> None:
    found = sibling_pair([Child(1.0, 4), Child(2.0, 4), Child(2.0, 4), Child(0.0, 9)])
    assert found is not None
    assert (found.chosen, found.rejected) == (3, 0)
    found = sibling_pair([Child(1.0, 4), Child(2.0, 4), Child(2.0, 4), Child(0.0, 9)], "second")
    assert found is not None
    assert (found.chosen, found.rejected) == (3, 2)
    assert sibling_pair([Child(1.0, 4)]) is None
    assert sibling_pair([]) is None


def counted(aspect: str, **values: float) -> Judgment:
    return Judgment(judge="search", kind="score", aspect=aspect, subjects=tuple(values), values=tuple(values.values()))


def test_the_rule_pairs_the_steps_behind_each_prompt(build: Build, read: Read) -> None:
    said = [counted("visits", a=3.0, b=7.0, c=3.0), counted("q", a=0.5, c=0.1)]
    group = build([None] * 4, extra=said)
    (example,) = siblings(group)
    assert isinstance(example, Example)
    assert read([example]) == ["b>c"]
    assert [member.numbers for member in example.members] == [{"visits": 7.0}, {"visits": 3.0}]
    assert example.why == "siblings: 7 visits against 3 of 3 steps"
    assert read(list(siblings(group, worse="second"))) == ["b>a"]
    assert read(list(siblings(build([None] * 2)))) == ["fewer than two visited steps"]
    same = build([None] * 2, extra=[counted("visits", a=3.0, b=7.0)], texts=["x", "x"])
    assert read(list(siblings(same))) == ["same text"]


def test_visits_of_one_and_none_leave_the_label_unsure() -> None:
    assert visit_label_smoothing(1, 1) == 0.5
    assert visit_label_smoothing(0, 0) == 0.0
    assert visit_label_smoothing(3, 1) == 0.25


def test_a_question_whose_search_did_not_end_right_gives_nothing_where_asked(build: Build, read: Read) -> None:
    def made(kind: str, value: float) -> list[str]:
        visits = Judgment(judge="search", kind="score", aspect="visits", subjects=("a", "b"), values=(7.0, 3.0))
        end = Judgment.model_validate({"judge": "j", "kind": kind, "subjects": ("a",), "values": (value,)})
        return read(list(siblings(build([None] * 2, extra=[visits, end]), right_only=True)))

    assert made("label", 1.0) == ["a>b"]
    assert made("label", 0.0) == ["no right end"]
    assert made("score", 1.0) == ["no right end"]

"""Trees of steps with known ends: what a search visits, what it thinks a step is worth, and where it goes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from prefloop.search import Node, Sampled, SearchSettings, Wanted, confidence_value, searched, together

END = 9
SETTINGS = SearchSettings(
    simulations=12, depth=3, max_steps=4, num_actions=2, rollouts=0, w_exp=1.0, length_penalty=1.0
)
RIGHT: dict[tuple[int, ...], float] = {(1, 1): 1.0}
"""Of the solutions of two steps, each 1 or 2, one is right."""


def two_steps(wanted: Wanted) -> list[Sampled]:
    """Steps 1 and 2 behind every beginning, equally likely; the second one ends the solution."""
    last = len(wanted.prefix_ids) == 1
    found: list[Sampled] = []
    for number in range(wanted.count):
        step = number % 2 + 1
        ids = (*wanted.prefix_ids, step)
        rest = (step,) if not wanted.whole else (1,) * (2 - len(wanted.prefix_ids))
        whole = (*wanted.prefix_ids, *rest)
        outcome = RIGHT.get(whole if wanted.whole else ids, -1.0)
        found.append(Sampled(rest, -0.7, ended=last or wanted.whole, outcome=outcome, index=number))
    return found


def path_of(settings: SearchSettings) -> list[Node]:
    (path,) = together([searched(settings)], lambda asked: [two_steps(wanted) for _, wanted in asked])
    return path


def with_(**changes: Any) -> SearchSettings:
    return replace(SETTINGS, **changes)


@pytest.mark.parametrize("simulations", [2, 5, 12, 64])
def test_every_simulation_visits_the_root_once_and_all_but_the_first_one_of_its_steps(simulations: int) -> None:
    root, *_ = path_of(with_(simulations=simulations, w_exp=2.0))
    assert root.visits == simulations
    assert sum(child.visits for child in root.found) == simulations - 1


def test_visits_gather_at_the_step_that_can_end_right() -> None:
    shares = []
    for simulations in (8, 32, 128):
        root, *_ = path_of(with_(simulations=simulations))
        first, second = root.found
        shares.append(first.visits / (first.visits + second.visits))
    assert shares == sorted(shares)
    assert shares[-1] > 0.85


def test_the_chosen_path_ends_right_and_the_question_is_its_root() -> None:
    path = path_of(SETTINGS)
    assert [node.prefix_ids for node in path] == [(), (1,), (1, 1)]
    assert path[-1].step is not None
    assert (path[-1].step.outcome, path[-1].q) == (1.0, 1.0)
    wrong = next(child for child in path[1].children or () if child is not path[-1])
    assert (wrong.q, wrong.value) == (-1.0, -1.0)


def test_a_step_is_worth_the_mean_of_its_rollouts_and_its_q_is_what_it_adds() -> None:
    root, *_ = path_of(with_(simulations=1, rollouts=2, max_steps=1))
    assert root.children is not None
    first, second = root.children
    assert [first.value, second.value] == [1.0, -1.0]  # behind 1 the rest of a rollout is 1, behind 2 as well
    assert [first.q, second.q] == [1.0, -1.0]
    assert (first.prior, second.prior) == (pytest.approx(0.4965853), pytest.approx(0.4965853))
    without, *_ = path_of(with_(simulations=1, max_steps=1))
    assert [child.value for child in without.children or ()] == [0.0, 0.0]


def test_a_step_is_worth_how_sure_the_policy_is_and_an_end_how_it_ends_on_top() -> None:
    """P(right) is 0.9 behind a 1 and 0.2 behind a 2; from the fifth step on it counts half, and a third, and so on."""

    def sure(wanted: Wanted) -> list[Sampled]:
        if wanted.rated:
            return [Sampled((), 0.0, ended=False, outcome=0.9 if wanted.prefix_ids[-1] == 1 else 0.2)]
        return two_steps(wanted)

    (path,) = together(
        [searched(with_(simulations=8, confidence=True))], lambda asked: [sure(wanted) for _, wanted in asked]
    )
    assert [(child.value, child.depth) for child in path[0].children or ()] == [(0.9, 1), (0.2, 1)]
    assert [child.value for child in path[1].children or ()] == [pytest.approx(1.9), pytest.approx(-0.8)]
    assert [node.prefix_ids for node in path] == [(), (1,), (1, 1)]
    assert [confidence_value(0.6, depth) for depth in (1, 4, 5, 6)] == pytest.approx([0.6, 0.6, 0.3, 0.2])


def test_no_simulation_looks_further_than_its_depth() -> None:
    asked: list[Wanted] = []

    def note(wanted: Sequence[tuple[int, Wanted]]) -> list[list[Sampled]]:
        asked.extend(one for _, one in wanted)
        return [two_steps(one) for _, one in wanted]

    (path,) = together([searched(with_(depth=1, max_steps=1))], note)
    assert [one.prefix_ids for one in asked] == [()]
    assert len(path) == 2
    together([searched(with_(depth=2, max_steps=1))], note)
    assert {one.prefix_ids for one in asked} == {(), (1,), (2,)}


def test_equal_steps_are_one() -> None:
    root, *_ = path_of(with_(num_actions=5, max_steps=1))
    assert [child.step.index for child in root.children or () if child.step is not None] == [0, 1]


def test_a_search_without_an_end_stops_after_so_many_steps() -> None:
    endless = lambda asked: [  # noqa: E731
        [Sampled((number,), -1.0, ended=False, outcome=0.0, index=number) for number in range(one.count)]
        for _, one in asked
    ]
    (path,) = together([searched(with_(simulations=2, max_steps=3))], endless)
    assert len(path) == 4
    assert not path[-1].ended
    assert all(node.q == 0 for node in path)


def test_questions_side_by_side_are_searched_as_each_alone() -> None:
    alone = path_of(SETTINGS)
    beside = together([searched(SETTINGS), searched(with_(simulations=3)), searched(SETTINGS)], lambda asked: [
        two_steps(wanted) for _, wanted in asked
    ])  # fmt: skip
    assert len(beside) == 3
    for path in (beside[0], beside[2]):
        assert [(node.prefix_ids, node.visits, node.q) for node in path] == [
            (node.prefix_ids, node.visits, node.q) for node in alone
        ]
    assert beside[1][0].visits == 3


def test_without_exploration_the_first_of_equal_steps_is_all_that_is_visited() -> None:
    root, *_ = path_of(with_(simulations=6, w_exp=0.0, depth=1, max_steps=1))
    assert [child.visits for child in root.children or ()] == [5, 0]
    explored, *_ = path_of(with_(simulations=6, w_exp=1.0, depth=1, max_steps=1))
    assert [child.visits for child in explored.children or ()] == [3, 2]

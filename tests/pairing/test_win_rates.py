"""Best against worst by win rate, with win probabilities as labels."""

from collections.abc import Callable

import pytest

from prefloop.pairing import win_rates
from prefloop.pairing.win_rates import labels_of_matrix, labels_of_scores
from prefloop.records import Example, Group

Build = Callable[..., Group]
Read = Callable[..., list[str]]


def test_scores_give_labels_that_a_shift_of_all_scores_leaves() -> None:
    found = labels_of_scores([0.0, 2.0, 1.0])
    assert found.pair == (1, 0)
    assert labels_of_scores([5.0, 7.0, 6.0]) == found
    assert found.pair_prob == pytest.approx(0.8807970779778823)


def test_a_cycle_has_no_best_answer() -> None:
    found = labels_of_matrix([[0.5, 0.8, 0.2], [0.2, 0.5, 0.8], [0.8, 0.2, 0.5]])
    assert (found.pair, found.pair_prob, found.win_probs) == (None, None, [0.5, 0.5, 0.5])


def test_preferences_count_where_there_are_any_and_scores_else(
    build: Build, read: Read, prefers: Callable[..., object]
) -> None:
    group = build([3.0, 2.0, 1.0])
    (example,) = win_rates(group)
    assert read([example]) == ["a>c"]
    judged = build([3.0, 2.0, 1.0], extra=prefers({"ab": 0.3, "ac": 0.46, "bc": 0.9}))
    (example,) = win_rates(judged)
    assert isinstance(example, Example)
    assert read([example]) == ["b>c"]
    assert example.member("chosen").numbers == {"win_prob": pytest.approx((0.5 + 0.7 + 0.9) / 3)}
    assert example.numbers == {"prob_chosen_wins": 0.9}
    (example,) = win_rates(judged, include_self=False)
    assert isinstance(example, Example)
    assert example.member("chosen").numbers == {"win_prob": pytest.approx(0.8)}
    assert example.why == "win_rates: wins 0.80 against 0.32 of 3"


def test_the_rule_says_why_there_is_no_pair(build: Build, read: Read, prefers: Callable[..., object]) -> None:
    assert read(list(win_rates(build([1.0, 1.0, 1.0])))) == ["tie"]
    assert read(list(win_rates(build([1.0, None])))) == ["fewer than two scored answers"]
    assert read(list(win_rates(build([None, None, None], extra=prefers({"ab": 0.7}))))) == [
        "comparison without verdict"
    ]
    assert read(list(win_rates(build([1.0, 2.0], texts=["x", "x"])))) == ["same text"]

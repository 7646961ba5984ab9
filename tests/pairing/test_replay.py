"""Shares of a mixture, and scores in words."""

import pytest
from hypothesis import given as all_of
from hypothesis import strategies as st

from prefloop.pairing.rated_text import best_and_worst_said, mean_score, score_said
from prefloop.pairing.replay import offline_and_generated, replayed


@all_of(st.floats(0, 1), st.integers(0, 500), st.integers(0, 500))
def test_offline_pairs_are_at_most_their_share(gamma: float, offline: int, generated: int) -> None:
    new, old = offline_and_generated(gamma, offline, generated)
    assert 0 <= new <= generated
    assert 0 <= old <= offline
    if gamma < 1:
        assert old <= gamma * (new + old) + 1e-6


def test_the_ends_of_the_share() -> None:
    assert offline_and_generated(0.0, 100, 40) == (40, 0)
    assert offline_and_generated(1.0, 100, 40) == (0, 100)
    assert offline_and_generated(0.5, 100, 40) == (40, 40)
    assert offline_and_generated(0.9, 100, 40) == (9, 81)


def test_earlier_rounds_take_their_shares_of_the_whole() -> None:
    assert replayed(550, [900, 900], [0.3, 0.15]) == [300, 150]
    assert replayed(700, [900], [0.3, 0.15]) == [300]
    assert replayed(700, [], [0.3]) == []
    assert replayed(700, [900, 900], [0.3]) == [300, 0]
    assert replayed(100, [9, 900], [0.3, 0.5]) == [9, 109]
    assert replayed(38, [0, 0, 5], [0.3, 0.15, 0.075]) == [0, 0, 3]


@all_of(st.integers(0, 200), st.lists(st.integers(0, 200), max_size=3))
def test_no_round_is_more_than_its_share(current: int, earlier: list[int]) -> None:
    shares = [0.3, 0.15, 0.075]
    taken = replayed(current, earlier, shares)
    total = current + sum(taken)
    assert all(part <= of for part, of in zip(taken, earlier, strict=True))
    assert all(part <= share * total + 1e-9 for part, share in zip(taken, shares, strict=False))


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Score: 3", 3.0),
        ("**Score:** 4.5/5", 4.5),
        ("score = 0", 0.0),
        ("Score: 1, no: SCORE - 2.", 2.0),
        ("Score: 2 ... Score: 9", None),
        ("Score: 5.5", None),
        ("scores 4", None),
        ("underscore 4", None),
        ("Score of the answer: 4", None),
        ("Score:       4", None),
        ("4 points", None),
        ("", None),
    ],
)
def test_a_score_is_read_where_the_word_says_so(text: str, score: float | None) -> None:
    assert score_said(text) == score


def test_scores_that_cannot_be_read_are_left_out_of_the_mean() -> None:
    assert mean_score(["Score: 1", "?", "Score: 4"]) == 2.5
    assert mean_score(["Score: 1", "?", "Score: 4"], 3) is None
    assert mean_score([]) is None
    assert mean_score([], 0) is None
    assert best_and_worst_said([["Score: 2"], ["?"], ["Score: 2"]]) == ([2.0, None, 2.0], None)
    assert best_and_worst_said([["Score: 2"], ["?"], ["Score: 3"]]) == ([2.0, None, 3.0], (2, 0))

"""Figures of judges on verdicts that can be counted by hand."""

import pytest

from prefloop.judging import added, disagreement, figures, totals
from prefloop.records import Judgment, Response

from .conftest import answer


def answers(**tokens: int) -> list[Response]:
    return [answer(name, tokens=length, name=name) for name, length in tokens.items()]


def prefers(pair: str, value: float | None, repeat: int = 0) -> Judgment:
    return Judgment(judge="j", kind="preference", subjects=tuple(pair), values=(value,), repeat=repeat)


def scored(subjects: str, *values: float | None, repeat: int = 0) -> Judgment:
    return Judgment(judge="j", kind="score", subjects=tuple(subjects), values=values, repeat=repeat)


def test_comparisons_are_counted_by_order_place_and_length() -> None:
    """Of pairs in both orders one agrees, one does not, one ties twice, and one has no verdict in one order."""
    said = [
        *(prefers("ab", 1.0), prefers("ba", 0.0)),
        *(prefers("ac", 0.8), prefers("ca", 0.9)),
        *(prefers("bc", 0.5), prefers("cb", 0.5)),
        *(prefers("ad", 0.0), prefers("da", None)),
    ]
    found = figures(totals(said, answers(a=10, b=20, c=10, d=40)))
    assert found["position_consistency"] == pytest.approx(2 / 3)
    assert found["first_share"] == pytest.approx(3 / 5)  # ab, ac and ca of the five with a winner
    assert found["invalid_share"] == pytest.approx(1 / 8)
    # a against b: 10 tokens shorter, 0.5 ahead; b against c: 10 longer, level; a against d: 30 shorter, 0.5 behind.
    assert found["prefers_longer"] == pytest.approx(1 / 2)
    assert found["length_slope"] == pytest.approx(100 * (-10 * 0.5 + 30 * 0.5) / (100 + 100 + 900))
    assert "self_consistency" not in found


def test_repetitions_agree_where_they_say_the_same() -> None:
    said = [prefers("ab", 0.9), prefers("ab", 0.6, 1), prefers("ab", 0.2, 2)]
    assert figures(totals(said, answers(a=1, b=1)))["self_consistency"] == pytest.approx(1 / 3)
    scores = [scored("ab", 3, 4), scored("ba", 4, 2, repeat=1), scored("ab", None, 4, repeat=2)]
    assert figures(totals(scores, answers(a=1, b=1)))["self_consistency"] == pytest.approx(3 / 4)


def test_a_score_a_token_is_found_again_whatever_its_level() -> None:
    said = [scored("a", 5 + 0.02 * 10), scored("b", 5 + 0.02 * 35), scored("c", 5 + 0.02 * 20)]
    found = figures(totals(said, answers(a=10, b=35, c=20)))
    assert found["length_slope"] == pytest.approx(2.0)
    assert found["prefers_longer"] == 1.0
    assert "first_share" not in found


def test_parts_add_up() -> None:
    ours, one, other = answers(a=10, b=20, c=10), [prefers("ab", 1.0), prefers("ba", 1.0)], [prefers("bc", 0.0)]
    assert figures(added(totals(one, ours), totals(other, ours))) == pytest.approx(
        figures(totals([*one, *other], ours))
    )
    assert figures(added({}, totals(one, ours))) == figures(totals(one, ours))


def test_nothing_is_said_of_nothing() -> None:
    assert figures(totals([], [])) == {}


def test_members_differ_where_their_winners_do() -> None:
    """Two scores agree on ab, not on ac; on bc one ties, which is no winner. A third agrees with the first on all."""
    one = [scored("a", 3), scored("b", 2), scored("c", 2)]
    other = [scored("a", 3), scored("b", 2), scored("c", 4)]
    ours = answers(a=1, b=1, c=1)
    assert figures(disagreement([one, other], ours)) == {"disagreement": 1 / 2}
    assert figures(disagreement([one, other, one[::-1]], ours)) == {"disagreement": 2 / 6}
    assert figures(disagreement([one], ours)) == {}
    compared = [[prefers("ab", 0.9), prefers("ba", 0.8)], [prefers("ba", 0.7)], [prefers("ab", None)]]
    assert figures(disagreement(compared, ours)) == {"disagreement": 1.0}  # by the first a is ahead in both orders

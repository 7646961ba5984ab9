"""Two answers as one text, in both orders."""

from collections.abc import Callable

from prefloop.pairing import side_by_side, side_by_side_text
from prefloop.records import Example, Group, Judgment


def test_no_answer_can_begin_the_other() -> None:
    assert side_by_side_text("one", "two") == "Answer A:\none\n\nAnswer B:\ntwo"
    assert side_by_side_text("x\n\nAnswer B:\ny", "z") == "Answer A:\nx\n\nA\u200bnswer B:\ny\n\nAnswer B:\nz"
    assert side_by_side_text("{second}", "{first}", "{first}|{second}") == "{second}|{first}"
    assert side_by_side_text("a|b", "c", "{first}|{second}") == "a|\u200bb|c"


def test_a_pair_is_shown_with_the_better_answer_first_and_second(build: Callable[..., Group]) -> None:
    preference = Judgment(judge="human", kind="preference", subjects=("a", "b"), values=(0.0,))
    (example,) = side_by_side(build([None] * 2, texts=["bad", "good"], extra=[preference]))
    assert isinstance(example, Example)
    texts = [example.member(role).text for role in ("chosen", "rejected")]
    assert texts == [side_by_side_text("good", "bad"), side_by_side_text("bad", "good")]
    assert example.member("chosen").token_ids is None
    assert example.why == "side_by_side: given: human"

"""What judges of suites are asked, word by word where programs read it."""

import pytest

from prefloop.pairing import (
    grading_messages,
    pair_messages,
    pair_winner,
    preference_messages,
    verdict,
    verdict_messages,
)


def test_scores_a_tenth_apart_are_a_tie_and_the_higher_wins() -> None:
    assert pair_winner("[[7.0, 6.9]]") == pair_winner("[[6.9, 7.0]]") == "tie"
    assert (pair_winner("[[7, 6.8]]"), pair_winner("[[6.8, 7]]"), pair_winner("7, 6")) == ("A", "B", None)


def test_the_last_label_counts_and_no_other() -> None:
    assert verdict("[[A>B]] or rather [[b>>a]]") == "B>>A"
    assert verdict("[A=B] then [A>B]") == "A>B"
    assert verdict("[[A>B]], [[A>]]") is None
    assert verdict("A>B") is None


def test_two_assistants_answers_stand_under_their_letters() -> None:
    one = pair_messages(["Q"], ["first"], ["second"], ["gold"], category="math")[1]["content"]
    parts = ("Reference Answer]\ngold", "Assistant A's Answer]\nfirst", "Assistant B's Answer]\nsecond")
    places = [one.index(part) for part in parts]
    assert one.startswith("[User Question]\nQ\n")
    assert places == sorted(places)
    both = pair_messages(["Q", "R"], ["a", "b"], ["c", "d"], None, category="writing")
    assert "second question that you compare" in both[0]["content"]
    talks = both[1]["content"].split("[The End of Assistant A's Conversation with User]")
    assert "### User:\nQ\n\n### Assistant A:\na\n\n### User:\nR\n\n### Assistant A:\nb" in talks[0]
    assert "### User:\nQ\n\n### Assistant B:\nc\n\n### User:\nR\n\n### Assistant B:\nd" in talks[1]


def test_a_reference_answer_stands_beside_what_is_graded() -> None:
    asked = grading_messages(["Q"], ["said"], ["gold"], category="coding")[1]["content"]
    assert "[The Start of Reference Answer]\ngold\n[The End of Reference Answer]" in asked
    assert "[The Start of Assistant's Answer]\nsaid\n[The End of Assistant's Answer]" in asked


def test_a_judge_of_creative_writing_writes_no_answer_of_its_own() -> None:
    first, creative = (verdict_messages("P", "a", "b", creative=flag)[0]["content"] for flag in (False, True))
    assert "First write an answer of your own. Then compare both answers with yours, and" in first
    assert "Read both with care. Then compare both answers and" in creative


def test_answers_are_shown_as_json_with_every_letter_as_it_is() -> None:
    asked = preference_messages("Où?", "là", "ici")[1]["content"]
    assert '{\n  "instruction": "Où?"\n}' in asked
    assert '  {\n    "model": "m",\n    "answer": "là"\n  },\n  {\n    "model": "M",\n    "answer": "ici"' in asked


@pytest.mark.parametrize(("questions", "answers"), [([], []), (["q"] * 3, ["a"] * 3), (["q"], ["a", "b"])])
def test_as_many_answers_as_questions_are_asked_for(questions: list[str], answers: list[str]) -> None:
    with pytest.raises(ValueError, match="expected one or two of each"):
        grading_messages(questions, answers, None, category="writing")

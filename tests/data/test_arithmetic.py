"""Chains of additions that the project makes: every calculation in them is right, and no question is in two parts."""

from prefloop.data import find_source
from prefloop.judging.arithmetic import verdict_on
from prefloop.judging.verifiers import number_at_the_end


def values(name: str) -> list[dict[str, str]]:
    return [row.values for row in find_source(name).rows() if row.values is not None]


def test_chains_of_three_digits_are_parted_and_their_solutions_right() -> None:
    train, held_out = values("builtin:arithmetic"), values("arithmetic:heldout")
    assert train[0] == {"question": "1+1+2=?", "answer": "4"}
    assert held_out[0] == {"question": "1+1+1=?", "answer": "3"}
    assert (len(train), len(held_out)) == (67, 17)
    assert not {row["question"] for row in train} & {row["question"] for row in held_out}
    lessons = values("arithmetic_solutions")
    assert lessons[0] == {"prompt": "1+1+2=?", "completion": "1+1=2\n2+2=4\nA: 4"}
    for row, lesson in zip(train, lessons, strict=True):
        assert lesson["prompt"] == row["question"]
        assert [verdict_on(line) for line in lesson["completion"].split("\n")] == [1.0, 1.0, 0.5]
        assert number_at_the_end(lesson["completion"]) == int(row["answer"])
    assert {row.place for row in find_source("arithmetic:heldout").rows()} >= {"arithmetic:heldout:1"}


def test_questions_with_choices_have_one_right_choice() -> None:
    train, choices = values("arithmetic"), [row.values or {} for row in find_source("arithmetic_choices").rows()]
    assert choices[0] == {
        "question": "1+1+2=?",
        "choices": {"text": ["3", "4", "5", "6"], "label": ["A", "B", "C", "D"]},
        "answerKey": "B",
    }
    for row, with_choices in zip(train, choices, strict=True):
        assert with_choices["question"] == row["question"]
        assert with_choices["choices"]["text"][1] == row["answer"]

"""People as judges: what they are shown, and every way in which a file of their answers can be wrong."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from prefloop.config import HumanJudge
from prefloop.errors import DataError
from prefloop.judging import OPEN, Answers, Ask, Human, ReadAnswers, Remembering, read_answers
from prefloop.records import Message, Prompt

from .conftest import answer

DIALOGUE = Prompt.of((Message(role="system", content="Be kind."), Message(role="user", content="Hi")))
TEXTS = ("Hello!", "Go away.", "Hm \u2014 no.")
JUDGE = Human(HumanJudge(type="human", question="How kind is it?", lowest=1, highest=7))


def asks() -> list[Ask]:
    return [Ask(DIALOGUE, (answer(text, DIALOGUE, name=f"{number}"),)) for number, text in enumerate(TEXTS)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    with Answers.of_run(tmp_path) as answers:
        JUDGE.write_open(tmp_path, Remembering(JUDGE, answers, "judgments").open(asks()), "judgments", 0.25)
    return tmp_path


def opened(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / OPEN).read_text(encoding="utf-8").splitlines()]


def answered(run: Path, *lines: Mapping[str, Any] | str) -> Path:
    file = run / "answered.jsonl"
    file.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines))
    return file


def filled(run: Path, *values: float | None) -> Path:
    return answered(run, *({**line, "values": [value]} for line, value in zip(opened(run), values, strict=False)))


def told(run: Path) -> list[object]:
    with Answers.of_run(run) as answers:
        found = dict(Remembering(JUDGE, answers, "judgments").judge(asks()))
    return [found[number].values[0] if number in found else "open" for number in range(len(TEXTS))]


def test_people_are_shown_the_conversation_and_nothing_of_where_the_answer_is_from(run: Path) -> None:
    first = opened(run)[0]
    assert {key: value for key, value in first.items() if key != "ask"} == {
        "judge": JUDGE.name,
        "step": "judgments",
        "price": 0.25,
        "question": "How kind is it?",
        "lowest": 1.0,
        "highest": 7.0,
        "prompt": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}],
        "answers": ["Hello!"],
        "values": [None],
    }
    assert "\u2014" in (run / OPEN).read_text(encoding="utf-8")


def test_a_file_that_is_filled_in_answers_all(run: Path) -> None:
    assert told(run) == ["open"] * 3
    assert read_answers(run, filled(run, 6, 1, 3.5)) == ReadAnswers(answered=3, left=0)
    assert told(run) == [6.0, 1.0, 3.5]
    with Answers.of_run(run) as answers:
        assert answers.cost == 0.75


def test_half_of_it_now_and_half_of_it_later(run: Path) -> None:
    assert read_answers(run, filled(run, 6, None, None)) == ReadAnswers(answered=1, left=2)
    assert told(run) == [6.0, "open", "open"]
    assert read_answers(run, filled(run, 6, 1, 2)) == ReadAnswers(answered=2, left=0)
    assert told(run) == [6.0, 1.0, 2.0]


def test_only_ask_and_values_are_needed_and_blank_lines_are_not(run: Path) -> None:
    last = opened(run)[2]["ask"]
    assert read_answers(run, answered(run, "", {"ask": last, "values": [2]}, "")) == ReadAnswers(1, 2)
    assert told(run) == ["open", "open", 2.0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"values": [8]}, "found 8 in `values`, expected a number from 1 to 7, or null for no answer yet."),
        ({"values": ["6"]}, "found '6' in `values`, expected a number from 1 to 7, or null for no answer yet."),
        ({"values": [True]}, "found True in `values`, expected a number from 1 to 7, or null for no answer yet."),
        (
            {"values": [float("nan")]},
            "found nan in `values`, expected a number from 1 to 7, or null for no answer yet.",
        ),
        ({"values": [1, 2]}, "has 2 values, expected 1, one an answer shown."),
        ({"values": 3}, "has no `values`, expected an object with `ask` and a list of `values`."),
        ({"ask": 3}, "has no `ask`, expected an object with `ask` and a list of `values`."),
        (
            {"ask": "0123456789abcdef"},
            "ask '0123456789ab' is not open in this run. Is the file of another run, or of another step? "
            "open_asks.jsonl has what is open now.",
        ),
    ],
)
def test_a_wrong_line_is_said_and_nothing_of_its_file_is_kept(run: Path, change: dict[str, Any], said: str) -> None:
    good, bad = opened(run)[:2]
    file = answered(run, {**good, "values": [5]}, {**bad, "values": [5], **change})
    with pytest.raises(DataError) as raised:
        read_answers(run, file)
    assert str(raised.value) == f"{file}:2: {said}"
    assert told(run) == ["open"] * 3


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1). Expected a line"),
        ("[1]", "found '[1]', expected an object with `ask` and `values`."),
    ],
)
def test_a_line_that_is_no_object_is_said(run: Path, line: str, said: str) -> None:
    file = answered(run, line)
    with pytest.raises(DataError) as raised:
        read_answers(run, file)
    assert str(raised.value).startswith(f"{file}:1: {said}")


def test_an_ask_that_is_answered_twice_is_said(run: Path) -> None:
    line = opened(run)[0]
    same, file = {**line, "values": [5]}, run / "answered.jsonl"
    assert read_answers(run, answered(run, same, same)) == ReadAnswers(1, 2)
    other = opened(run)[1]
    answered(run, {**other, "values": [5]}, {**other, "values": [4]})
    with pytest.raises(DataError) as raised:
        read_answers(run, file)
    assert str(raised.value) == (
        f"{file}:2: ask {other['ask'][:12]} has the values [4.0], and [5.0] in line 1. Keep one of the lines."
    )


def test_an_answer_that_is_there_is_not_changed(run: Path) -> None:
    read_answers(run, filled(run, 6, None, None))
    file = filled(run, 5, 1, 1)
    with pytest.raises(DataError) as raised:
        read_answers(run, file)
    assert str(raised.value) == (
        f"{file}: ask {opened(run)[0]['ask'][:12]} was answered with [6.0] before, and has [5.0] here. "
        "Answers are kept as they came; take the line out."
    )
    assert told(run) == [6.0, "open", "open"]


def test_a_file_without_answers_is_said(run: Path) -> None:
    with pytest.raises(DataError, match="answers none of the 3 open asks: every `values` is null"):
        read_answers(run, run / OPEN)


def test_a_file_that_is_not_there_is_said(run: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.jsonl: cannot be read: No such file or directory\. Expected lines"):
        read_answers(run, run / "gone.jsonl")


def test_a_run_that_waits_for_nobody_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no ask waits for a person, it has no open_asks\.jsonl"):
        read_answers(tmp_path, tmp_path / "any")


def test_scale_and_question_are_part_of_the_judge() -> None:
    configs = [{}, {"question": "Is it true?"}, {"highest": 10}, {"lowest": 0}, {"price": 3.0}]
    names = [Human(HumanJudge.model_validate({"type": "human", **config})).name for config in configs]
    assert len(set(names)) == 4
    assert names[4] == names[0]  # what it costs changes no answer
    assert names[0].startswith("human:1-5:")


def test_a_scale_needs_two_ends() -> None:
    with pytest.raises(ValueError, match="from 5 to 5 is no scale"):
        HumanJudge(type="human", lowest=5)

"""Which format a data set is found to have."""

import json
from typing import Any

import pytest

from prefloop.data.formats import Detected, detect, formats
from prefloop.data.problems import Problem
from prefloop.data.row import Row
from prefloop.errors import DataError

PAIR = {"prompt": "How are you?", "chosen": "Fine.", "rejected": "Go away."}


def found(*rows: dict[str, Any] | None, format: str | None = None) -> Detected:
    numbered = enumerate(rows, start=1)
    return detect([Row(f"pairs.jsonl:{number}", values, "") for number, values in numbered], "pairs.jsonl", format)


def complaint(*rows: dict[str, Any] | None, format: str | None = None) -> str:
    with pytest.raises(DataError) as error:
        found(*rows, format=format)
    return str(error.value)


@pytest.mark.parametrize("name", formats())
@pytest.mark.parametrize("rows", [1, 5])
def test_an_example_has_its_own_format_and_no_other(name: str, rows: int) -> None:
    example = json.loads(formats()[name].example)
    detected = found(*[example] * rows)
    assert detected.format.name == name
    assert detected.unread == ()


def test_what_stands_beside_the_columns_is_said() -> None:
    messages = {
        "prompt": [{"role": "user", "content": "How are you?"}],
        "chosen": [{"role": "assistant", "content": "Fine."}],
        "rejected": [{"role": "assistant", "content": "Go away."}],
    }
    assert found(messages).says == "conversational TRL preference"
    assert found({**messages, "score_chosen": 1.0, "score_rejected": 0.0}).says == (
        "conversational TRL preference with scores"
    )
    assert found({**PAIR, "prob_chosen_wins": 0.7, "margin": 1, "tools": [{}]}).says == (
        "plain-text TRL preference with probabilities, margins and tools"
    )
    assert found({"chosen": "It is so.", "rejected": "It is not.", "weight": 1}).says == (
        "plain-text TRL preference with implicit prompt and weights"
    )


def test_columns_that_are_not_read_are_named() -> None:
    assert found({**PAIR, "source": "web", "id": "7", "date": None}).unread == ("source",)


def test_a_column_under_another_name_is_read() -> None:
    detected = found({"instruction": "How are you?", "texts": ["a", "b"], "ratings": [1, 2]})
    assert (detected.format.name, detected.unread) == ("rated_responses", ())


@pytest.mark.parametrize(
    ("row", "name"),
    [
        (PAIR, "trl_preference_text"),
        ({**PAIR, "system": "Be polite."}, "trl_preference_text"),
        ({**PAIR, "response": "Fine."}, "trl_preference_text"),
        ({"instruction": "a", "input": "b", "chosen": "c", "rejected": "d"}, "alpaca_preference"),
        ({"instruction": "a", "input": "b", "output": "c", "kto_tag": True}, "alpaca_unpaired"),
        ({"prompt": "a", "messages": [{"role": "user", "content": "a"}]}, None),
        ({"prompt": "a", "completion": "b", "label": True}, "trl_unpaired"),
        ({"question": "a", "answer": "b", "chosen": "c", "rejected": "d"}, "axolotl_question"),
    ],
)
def test_the_format_that_reads_more_of_a_row_is_the_more_specific(row: dict[str, Any], name: str | None) -> None:
    if name is None:
        assert "fit prompts and prompts_messages equally well" in complaint(row)
    else:
        assert found(row).format.name == name


def test_ultrafeedback_binarized_is_told_from_trl_by_what_its_columns_hold() -> None:
    chosen = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    row = {"prompt": "a", "prompt_id": "1", "chosen": chosen, "rejected": chosen, "messages": chosen, "score_chosen": 1}
    assert found(row).format.name == "ultrafeedback_binarized"
    assert found({**row, "prompt": [chosen[0]]}).format.name == "ultrafeedback_binarized"
    assert found({**row, "chosen": chosen[1:], "rejected": chosen[1:]}).format.name == "trl_preference_text"


def test_rows_that_do_not_fit_do_not_decide() -> None:
    broken = [{"prompt": "How are you?"}, {**PAIR, "chosen": 5}, {**PAIR, "rejected": None}]
    assert found(*broken, *broken, PAIR).format.name == "trl_preference_text"
    assert found(None, *[PAIR] * 3).format.name == "trl_preference_text"


def test_two_formats_that_fit_equally_well_are_an_error_that_says_how_to_choose() -> None:
    row = {**PAIR, "question": "Who are you?"}
    assert complaint(row) == (
        "pairs.jsonl: the columns prompt, chosen, rejected, question fit axolotl_question and trl_preference_text "
        "equally well. Choose one with `format: NAME` in the recipe or `--format NAME`, or remove what is not needed."
    )
    assert found(row, format="trl_preference_text").unread == ("question",)


def test_half_the_rows_of_one_format_and_half_of_another_are_ambiguous() -> None:
    other = {"question": "Who are you?", "answer": "Nobody."}
    assert "fit question_answer and trl_preference_text equally well" in complaint(PAIR, other)
    assert found(PAIR, PAIR, other).format.name == "trl_preference_text"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            {"prompt": "a", "chosen": "b", "rejectd": "c"},
            "no format fits the columns prompt (text), chosen (text) and rejectd (text). The closest is "
            "trl_preference_text, but rejected is missing (text or an assistant's message).",
        ),
        (
            {**PAIR, "chosen": 5},
            "no format fits the columns prompt (text), chosen (number) and rejected (text). The closest is "
            "trl_preference_text, but chosen should hold text or an assistant's message.",
        ),
        ({"text": "a"}, "no format fits the columns text (text)."),
        ({"text": None}, "its first rows hold nothing."),
    ],
)
def test_rows_without_a_format_are_told_what_is_closest(row: dict[str, Any], expected: str) -> None:
    assert complaint(row) == f"pairs.jsonl: {expected} docs/data.md shows every format with an example."


def test_rows_that_cannot_be_read_have_no_format() -> None:
    unreadable = Row("pairs.jsonl:1", None, "{", (Problem("invalid_json", "cut off"),))
    with pytest.raises(DataError, match=r"^pairs.jsonl: none of its first rows can be read\."):
        detect([unreadable], "pairs.jsonl")


def test_a_format_that_is_named_is_not_questioned() -> None:
    detected = found({"prompt": "a", "chosen": "b", "score_chosen": 1}, format="trl_preference")
    assert (detected.format.name, detected.says) == ("trl_preference", "conversational TRL preference with scores")
    assert complaint(PAIR, format="trl").startswith("pairs.jsonl: format 'trl' is not known.")

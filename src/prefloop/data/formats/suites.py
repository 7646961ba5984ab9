"""Questions of the field's suites: MT-Bench's and Arena-Hard's turns, AlpacaEval's instructions."""

from collections.abc import Sequence
from typing import Any

from prefloop.data.formats.assembly import LABELS, judged_answers, labelled_prompt, prompt_of
from prefloop.data.formats.fields import ABOUT_PROMPT, Values, mappings_of, required, texts_of
from prefloop.data.formats.registry import MAPPINGS, TEXT, TEXTS, Format, register
from prefloop.data.given import Given
from prefloop.data.messages import messages_of, shown, text_of
from prefloop.data.problems import RowRefused
from prefloop.records import NextTurn


def _turns(values: Values, place: str) -> Given:
    said = _texts(required(values, "turns"))
    gold = _references(values.get("reference"), len(said))
    prompt = labelled_prompt(prompt_of(messages_of(said[0], "turns[0]"), values, place, "turns[0]"), values)
    later = tuple(NextTurn(content=text, answer=one) for text, one in zip(said[1:], gold[1:], strict=True))
    answer = prompt.answer if gold[0] is None else gold[0]
    return judged_answers(prompt.model_copy(update={"later": later or None, "answer": answer}), [], {}, values, place)


def _references(given: Any, count: int) -> Sequence[str | None]:
    """A reference answer a turn; empty texts are none, as in MT-Bench's own file."""
    if not given:
        return [None] * count
    if not isinstance(given, list) or len(given) != count or not all(isinstance(one, str | None) for one in given):
        raise RowRefused("wrong_type", f"reference is {shown(given)}, expected {count} answers, one a turn")
    return [one or None for one in given]


def _texts(turns: Any) -> list[str]:
    """Turns as texts, or as Arena-Hard's objects with `content`."""
    if isinstance(turns, list) and turns and isinstance(turns[0], dict):
        turns = [required(turn, "content") for turn in mappings_of(turns, "turns")]
    return texts_of(turns, "turns")


def _instruction(values: Values, place: str) -> Given:
    text = text_of(required(values, "instruction"), "instruction")
    if isinstance(values.get("input"), str) and values["input"].strip():
        text = f"{text}\n\n{values['input']}"
    prompt = prompt_of(messages_of(text, "instruction"), values, place, "instruction")
    return judged_answers(labelled_prompt(prompt, values), [], {}, values, place)


register(
    Format(
        "turns",
        "questions of one or several turns (MT-Bench, Arena-Hard)",
        {"turns": TEXTS | MAPPINGS},
        ABOUT_PROMPT | {"reference"},
        _turns,
        '{"question_id": 81, "category": "writing", "turns": ["Write a line.", "Now rhyme on it."]}',
        labels=LABELS,
    )
)
register(
    Format(
        "instructions",
        "instructions (AlpacaEval)",
        {"instruction": TEXT},
        ABOUT_PROMPT | {"input"},
        _instruction,
        '{"dataset": "koala", "instruction": "Name three rivers."}',
        labels=LABELS,
    )
)

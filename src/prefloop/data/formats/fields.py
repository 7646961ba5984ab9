"""Fields that many formats share, each read with what can be wrong with it."""

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from pydantic import JsonValue

from prefloop.data.messages import messages_of, shown, text_of
from prefloop.data.problems import RowRefused
from prefloop.records import Message

Values = Mapping[str, Any]
ABOUT_PROMPT = frozenset({"id", "system", "answer", "ground_truth", "tools"})
"""Columns about the prompt or the row that most formats read where they are there."""


def asked(values: Values, field: str) -> tuple[Message, ...]:
    """The messages of a column that holds a text or messages.

    Raises:
        RowRefused: the column is absent or malformed.
    """
    return messages_of(required(values, field), field)


def required(values: Values, field: str) -> object:
    """What a field holds.

    Raises:
        RowRefused: the row does not have it.
    """
    if values.get(field) is None:
        raise RowRefused("missing_field", f"{field} is not there")
    return values[field]


def mappings_of(value: object, field: str) -> list[dict[str, Any]]:
    """A list of mappings that is not empty.

    Raises:
        RowRefused: it is something else.
    """
    if not isinstance(value, list) or not value or not all(isinstance(one, dict) for one in value):
        raise RowRefused("wrong_type", f"{field} is {shown(value)}, expected a list of mappings")
    return value


def texts_of(value: object, field: str) -> list[str]:
    """A list of texts that say something.

    Raises:
        RowRefused: it is something else, or one of them is empty.
    """
    if not isinstance(value, list) or not value:
        raise RowRefused("wrong_type", f"{field} is {shown(value)}, expected a list of texts")
    return [text_of(text, f"{field}[{number}]") for number, text in enumerate(value)]


def same_length(value: object, field: str, answers: Sequence[object]) -> list[Any]:
    """A list with one value for each answer.

    Raises:
        RowRefused: it is something else.
    """
    if not isinstance(value, list) or len(value) != len(answers):
        raise RowRefused(
            "wrong_type", f"{field} is {shown(value)}, expected one value for each of {len(answers)} answers"
        )
    return value


def optional_number(values: Values, field: str) -> float | None:
    """A number that a row may have.

    Raises:
        RowRefused: the field holds something else, or is not finite.
    """
    return None if values.get(field) is None else number_of(values[field], field)


def number_of(value: object, field: str) -> float:
    """A finite number.

    Raises:
        RowRefused: it is something else.
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise RowRefused("wrong_type", f"{field} is {shown(value)}, expected a number")
    if not isfinite(value):
        raise RowRefused("not_finite", f"{field} is {value}")
    return float(value)


def flag_of(value: object, field: str) -> bool:
    """True or false, also as 1 or 0.

    Raises:
        RowRefused: it is something else.
    """
    if isinstance(value, bool) or value in (0, 1):
        return bool(value)
    raise RowRefused("wrong_type", f"{field} is {shown(value)}, expected true or false")


def row_id(values: Values) -> str | None:
    """The row's own name, where it has one."""
    found = values.get("id")
    return str(found) if isinstance(found, str | int) and not isinstance(found, bool) else None


def gold_answer(values: Values) -> str | None:
    """The gold answer of a row, where it has one, as text.

    Raises:
        RowRefused: it is neither a text nor a number.
    """
    for field in ("answer", "ground_truth"):
        found = values.get(field)
        if isinstance(found, str):
            return text_of(found, field)
        if found is not None:
            return str(found) if isinstance(found, bool) else f"{number_of(found, field):.15g}"
    return None


def tools_of(value: object) -> tuple[JsonValue, ...]:
    """The tools of a row: a list, or a text that holds one as JSON.

    Raises:
        RowRefused: it is something else.
    """
    if value is None or value in ("", []):
        return ()
    found = value
    if isinstance(value, str):
        try:
            found = json.loads(value)
        except json.JSONDecodeError as error:
            raise RowRefused("wrong_type", f"tools is a text, but no JSON: {error.msg}") from error
    if not isinstance(found, list) or not all(isinstance(tool, dict) for tool in found):
        raise RowRefused("wrong_type", f"tools is {shown(value)}, expected a list of mappings")
    return tuple(found)

"""Verdicts read off what a model wrote. Strict: what could be meant in two ways is no verdict.

What stands on the last line decides, if it says one thing; otherwise all that is said has to be the same.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from prefloop.config import is_mapping

T = TypeVar("T")
Choice = Literal["A", "B", "C"]
PREFERENCES: Mapping[str, float] = {"A": 1.0, "B": 0.0, "C": 0.5}
"""P(the first is better) by verdict."""

_NUMBER = (
    r"(?P<number>[+-]?\d+(?:[.,]\d+)*)(?:\s*(?:/|out of)\s*(?P<of>\d+(?:\.\d+)?))?(?!\s*[-\u2013\u2014]\s*\d|\w|/)"
)
_BETWEEN = r"(?:\s*\([^()\n]*\))?[^\w\n+-]{0,8}?"
SCORE = re.compile(rf"\bscore\b{_BETWEEN}{_NUMBER}", re.IGNORECASE)
SCORE_OF = re.compile(rf"\bscore of answer\s*#?(?P<label>\d+)\b{_BETWEEN}{_NUMBER}", re.IGNORECASE)
VERDICT = re.compile(r"\[\[\s*([ABC])\s*\]\]")
LETTER = re.compile(r"(?:[^\w\u200b]|_)*([AB])(?:[^\w\u200b]|_)*")  # a space without width marks a quotation
DIGITS = re.compile(r"(?:[^\w\u200b+-]|_)*(\d+)(?:[^\w\u200b]|_)*")
OBJECT = re.compile(r"\{[^{}]*\}")
KEY = re.compile(r"\"(?=[^\"{}]*(?:\d|\\u)[^\"{}]*\"\s*:)")
"""Where a key of an object begins that may be an answer's label."""


def score_in(text: str, lowest: float, highest: float) -> float | None:
    """The score behind the word score, as in "**Score:** 4/5"; None where there is none, or none on the scale."""
    return _decided(text, lambda line: [_on_scale(found, lowest, highest) for found in SCORE.finditer(line)])


def verdict_in(text: str) -> float | None:
    """P(the first is better) by [[A]], [[B]] or [[C]] for neither; None where none of them is said, or two are."""
    return _decided(text, lambda line: [PREFERENCES[letter] for letter in VERDICT.findall(line)])


def choice_in(text: str) -> float | None:
    """P(the first is better) where the whole text is the letter A or B, whatever marks stand around it."""
    found = LETTER.fullmatch(text.strip())
    return None if found is None else PREFERENCES[found[1]]


def number_in(text: str, numbers: Sequence[str]) -> float | None:
    """The one of some numbers that the whole text is, whatever marks stand around it."""
    found = DIGITS.fullmatch(text.strip())
    return float(found[1]) if found is not None and found[1] in numbers else None


def scores_in(text: str, count: int, lowest: float, highest: float) -> tuple[float | None, ...]:
    """The score of each of so many answers: lines like "Score of answer 2: 5", or a JSON object `{"1": 4, "2": 5}`.

    None for an answer that has none, none on the scale, or two that differ.
    """
    said: dict[int, list[float | None]] = {}
    for found in SCORE_OF.finditer(text):
        said.setdefault(int(found["label"]), []).append(_on_scale(found, lowest, highest))
    if not said:
        said = _in_json(text, lowest, highest)
    return tuple(_only(said.get(label, ())) for label in range(1, count + 1))


def _decided(text: str, said_in: Callable[[str], Sequence[T | None]]) -> T | None:
    lines = [line for line in text.splitlines() if line.strip()]
    last = said_in(lines[-1]) if lines else ()
    return _only(last if last else [one for line in lines for one in said_in(line)])


def _only(said: Iterable[T | None]) -> T | None:
    """What is said, if nothing else is."""
    different = set(said)
    return different.pop() if len(different) == 1 else None


def _on_scale(found: re.Match[str], lowest: float, highest: float) -> float | None:
    """A number as it is meant, or None where it is not on the scale, or is said of another one."""
    number, of = found["number"], found["of"]
    if "," in number or number.count(".") > 1 or (of is not None and float(of) != highest):
        return None
    value = float(number)
    return value if lowest <= value <= highest else None


def _in_json(text: str, lowest: float, highest: float) -> dict[int, list[float | None]]:
    """Scores by label of the last object in a text whose keys are labels; a key that stands twice has both values."""
    said: dict[int, list[float | None]] = {}
    for found in OBJECT.findall(text)[-1:]:
        try:
            pairs: Any = json.loads(found, object_pairs_hook=list)
        except ValueError:
            continue
        for key, value in pairs:
            label = re.fullmatch(r"(?:score of )?(?:answer\s*)?(\d+)", str(key).strip(), re.IGNORECASE)
            is_number = isinstance(value, int | float) and not isinstance(value, bool) and lowest <= value <= highest
            if label is not None and not is_mapping(value):
                said.setdefault(int(label[1]), []).append(float(value) if is_number else None)
    return said

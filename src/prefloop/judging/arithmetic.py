"""Calculations in the steps of a solution, done again: which steps are right, wrong, or have none (for Step-DPO)."""

import operator
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation, localcontext
from typing import Literal

from prefloop.judging.protocol import Ask, Verdict
from prefloop.pairing.steps import LABEL
from prefloop.records import Response, Span

TextOf = Callable[[Sequence[int]], str]
"""What tokens say."""

NUMBER = r"[$£€]?\d+(?:,\d{3})*(?:\.\d+)?%?"
SIGN = r"[-+*/x\u00d7\u00f7\u2212]"
CALCULATION = re.compile(
    rf"""(?<![\w.,)\]])(-?\(*{NUMBER}(?:\s*{SIGN}\s*\(*-?{NUMBER}\)*)+)\s*=\s*(-?{NUMBER})
         (?![\w%])(?![.,]\d)(?!\s*{SIGN}\s*[($£€\d])  # number and calculation end there""",
    re.VERBOSE,
)
TOKEN = re.compile(rf"{NUMBER}|[-+*/()]")
OPERATIONS: dict[str, Callable[[Decimal, Decimal], Decimal]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
PLAIN = str.maketrans({"x": "*", "\N{MULTIPLICATION SIGN}": "*", "\N{DIVISION SIGN}": "/", "\N{MINUS SIGN}": "-"})
LINE = re.compile(r"^(?=.*\S)", re.MULTILINE)
"""Where a line begins that says something: an empty label."""
WRONG, NEUTRAL, RIGHT = 0.0, 0.5, 1.0


@dataclass(frozen=True)
class ArithmeticSteps:
    """Does the calculations of every step again."""

    text_of: TextOf | None
    """What tokens of the policy say: verdicts are about spans of them. None only tells its name."""
    steps: Literal["labels", "lines"] = "labels"
    kind: Literal["steps"] = "steps"

    @property
    def name(self) -> str:
        """The rule, and what it takes for steps."""
        return "rule:arithmetic_steps" + ":lines" * (self.steps == "lines")

    def judge(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Verdict]]:
        """Of each solution a verdict a step, with the step's tokens; of one without steps or tokens, none."""
        assert self.text_of is not None
        for number, ask in enumerate(asks):
            (response,) = ask.subjects
            steps = steps_of(response, self.text_of, LABEL if self.steps == "labels" else LINE)
            yield number, Verdict(tuple(verdict_on(text) for text, _ in steps), spans=tuple(span for _, span in steps))


def verdict_on(step: str) -> float:
    """1 where all calculations of a step are right, 0 where one is wrong, 0.5 where it has none.

    A result that is rounded to fewer digits is right, as is one of a division that is cut off.
    """
    found = [is_right(calculation, result) for calculation, result in CALCULATION.findall(step)]
    known = [right for right in found if right is not None]
    if not known:
        return NEUTRAL
    return RIGHT if all(known) else WRONG


def is_right(calculation: str, result: str) -> bool | None:
    """Whether a calculation gives a result, to the digits that the result has; None where it cannot be done."""
    try:
        value, said = calculated(calculation), amount(result)
    except (ValueError, InvalidOperation, ZeroDivisionError):
        return None
    digits = len(result.partition(".")[2].rstrip("%"))
    unit = Decimal(1).scaleb(-digits - (2 if result.endswith("%") else 0))
    return abs(value - said) < unit if "." in result or value != value.to_integral_value() else value == said


def calculated(calculation: str) -> Decimal:
    """The value of sums, products and brackets of numbers.

    Raises:
        ValueError: it is none.
        InvalidOperation: it divides by zero.
    """
    with localcontext(prec=50):
        tokens = TOKEN.findall(calculation.translate(PLAIN))
        value, rest = _sum(tokens)
        if rest:
            raise ValueError(f"{rest[0]} is left over")
        return value


def amount(text: str) -> Decimal:
    """A number as it is written: with a currency, commas, a percent sign."""
    plain = text.translate(PLAIN).replace(",", "")
    sign = -1 if plain.startswith("-") else 1
    digits = plain.lstrip("-").lstrip("$£€")
    return sign * (Decimal(digits[:-1]) / 100 if digits.endswith("%") else Decimal(digits))


def _sum(tokens: list[str]) -> tuple[Decimal, list[str]]:
    value, rest = _product(tokens)
    while rest and rest[0] in "+-":
        other, after = _product(rest[1:])
        value, rest = OPERATIONS[rest[0]](value, other), after
    return value, rest


def _product(tokens: list[str]) -> tuple[Decimal, list[str]]:
    value, rest = _factor(tokens)
    while rest and rest[0] in "*/":
        other, after = _factor(rest[1:])
        value, rest = OPERATIONS[rest[0]](value, other), after
    return value, rest


def _factor(tokens: list[str]) -> tuple[Decimal, list[str]]:
    if not tokens:
        raise ValueError("it ends too early")
    first, *rest = tokens
    if first == "-":
        value, rest = _factor(rest)
        return -value, rest
    if first == "(":
        value, rest = _sum(rest)
        if not rest or rest[0] != ")":
            raise ValueError("a bracket stays open")
        return value, rest[1:]
    return amount(first), rest


def steps_of(response: Response, text_of: TextOf, label: re.Pattern[str] = LABEL) -> list[tuple[str, Span]]:
    """The text of every step with its tokens: from behind its label up to the beginning of the next one's.

    The first token that says something behind a label is the first of its step; EOS belongs to the last one.
    """
    tokens = response.token_ids or ()
    text = text_of(tokens)
    labels = list(label.finditer(text))
    counts = range(len(tokens) + 1)
    found: list[tuple[str, Span]] = []
    for begin, end in zip(labels, [*(one.start() for one in labels[1:]), len(text)], strict=False):
        first = bisect_left(counts, begin.end(), key=lambda count: len(text_of(tokens[:count])))
        last = bisect_right(counts, end, key=lambda count: len(text_of(tokens[:count]))) - 1
        if first < last:
            found.append((text[begin.end() : end].rstrip("\n"), (first, last)))
    return found

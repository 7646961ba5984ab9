"""Chains of additions with their solutions, a calculation a line: every step can be done again by a rule."""

from collections.abc import Iterator
from itertools import product
from typing import Any, Literal

TERMS = 3
"""Digits from 1 that a chain adds up; their sum is a digit as well."""
HELD_OUT = 5
"""Every so many-th chain is kept for evaluation."""


def arithmetic(part: Literal["train", "heldout"]) -> list[dict[str, Any]]:
    """Questions with their final answers."""
    return [{"question": _question(terms), "answer": str(sum(terms))} for terms in _chains(part)]


def arithmetic_solutions() -> list[dict[str, Any]]:
    """The questions for training with right solutions: demonstrations for a model that is to write in steps."""
    return [{"prompt": _question(terms), "completion": _solution(terms)} for terms in _chains("train")]


def arithmetic_choices() -> list[dict[str, Any]]:
    """The questions for training, each with its result and the numbers beside it to choose from, as ARC has them."""
    rows: list[dict[str, Any]] = []
    for terms in _chains("train"):
        texts = [str(number) for number in range(sum(terms) - 1, sum(terms) + 3)]
        choices = {"text": texts, "label": list("ABCD")}
        rows.append({"question": _question(terms), "choices": choices, "answerKey": "B"})
    return rows


def _chains(part: Literal["train", "heldout"]) -> Iterator[tuple[int, ...]]:
    chains = (terms for terms in product(range(1, 10), repeat=TERMS) if sum(terms) < 10)
    return (terms for number, terms in enumerate(chains) if (number % HELD_OUT == 0) == (part == "heldout"))


def _question(terms: tuple[int, ...]) -> str:
    return f"{'+'.join(map(str, terms))}=?"


def _solution(terms: tuple[int, ...]) -> str:
    sums = [sum(terms[: count + 1]) for count in range(len(terms))]
    steps = (f"{before}+{term}={after}" for before, term, after in zip(sums, terms[1:], sums[1:], strict=False))
    return "\n".join([*steps, f"A: {sums[-1]}"])

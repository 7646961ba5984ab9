"""Solutions in steps: wrong ones collected, the first bad step found, better steps taken (Step-DPO, arXiv:2406.18629).

A step begins with a label, "Step N:", at the start of a line.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

FirstBad = Literal["incorrect", "incorrect_or_neutral"]
"""Which verdicts make a step the first bad one."""

LABEL = re.compile(r"^Step (\d+):", re.MULTILINE)
NEXT_LABEL = re.compile(r"\nStep \d+:")
DECISION = re.compile(r"final decision", re.IGNORECASE)
VERDICT = re.compile(r"\bstep\s*(\d+)\W+(correct|neutral|incorrect)\b", re.IGNORECASE)
BAD: dict[FirstBad, set[str]] = {"incorrect": {"incorrect"}, "incorrect_or_neutral": {"incorrect", "neutral"}}


@dataclass(frozen=True)
class SplitSolution:
    """A solution cut in front of a step's text."""

    prefix: str
    """Up to and including the label of the step."""
    step: str
    """Its text, up to the next label, without newlines at the end."""


@dataclass(frozen=True)
class Continuation:
    """How a solution goes on behind the label of a step."""

    text: str
    final: str | None
    """Its final answer; None where it has none."""


def wrong_answers(finals: Sequence[str | None], truth: str, max_per_question: int) -> list[int]:
    """Indices of solutions whose final answer is not the true one, or missing; at most so many, in order."""
    return [index for index, final in enumerate(finals) if final != truth][:max_per_question]


def first_bad_step(verdict: str, first_bad: FirstBad = "incorrect") -> int | None:
    """Number of the first step that a verifier's text calls bad behind its last "final decision"; None for none."""
    decisions = list(DECISION.finditer(verdict))
    if not decisions:
        return None
    for found in VERDICT.finditer(verdict, decisions[-1].end()):
        if found[2].lower() in BAD[first_bad]:
            return int(found[1])
    return None


def split_at_step(solution: str, number: int) -> SplitSolution | None:
    """The solution cut behind the label of a step; None where it has no such step."""
    label = next((found for found in LABEL.finditer(solution) if int(found[1]) == number), None)
    if label is None:
        return None
    return SplitSolution(solution[: label.end()], first_step(solution[label.end() :]))


def first_step(continuation: str) -> str:
    """A continuation behind a label, up to the next label, without newlines at the end."""
    following = NEXT_LABEL.search(continuation)
    return (continuation[: following.start()] if following else continuation).rstrip("\n")


def better_steps(rejected_step: str, truth: str, continuations: Sequence[Continuation]) -> list[str]:
    """First steps of the continuations that end in the true answer, each once, without copies of the rejected one."""
    right = [first_step(one.text) for one in continuations if one.final == truth]
    return [step for step in dict.fromkeys(right) if step != rejected_step.rstrip("\n")]

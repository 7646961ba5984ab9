"""Judges: they only ask and record."""

from prefloop.judging.make import JudgeMachine, check_judge, fetch_judge, make_judge, read_from_outside
from prefloop.judging.protocol import Ask, Judge, Verdict
from prefloop.judging.record import ask_each, judgments

__all__ = [
    "Ask",
    "Judge",
    "JudgeMachine",
    "Verdict",
    "ask_each",
    "check_judge",
    "fetch_judge",
    "judgments",
    "make_judge",
    "read_from_outside",
]

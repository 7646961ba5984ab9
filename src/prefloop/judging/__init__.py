"""Judges: they only ask and record."""

from prefloop.judging.protocol import Ask, Judge, Verdict
from prefloop.judging.record import ask_each, judgments
from prefloop.judging.rules import Shorter, Vader, make_judge

__all__ = ["Ask", "Judge", "Shorter", "Vader", "Verdict", "ask_each", "judgments", "make_judge"]

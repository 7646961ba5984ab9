"""Judges: they only ask and record."""

from prefloop.judging.make import check_judge, make_judge, read_from_outside
from prefloop.judging.protocol import Ask, Judge, Verdict
from prefloop.judging.record import ask_each, judgments

__all__ = ["Ask", "Judge", "Verdict", "ask_each", "check_judge", "judgments", "make_judge", "read_from_outside"]

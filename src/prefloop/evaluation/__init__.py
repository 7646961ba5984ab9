"""Evaluation: held-out answers, judged, against others'."""

from prefloop.evaluation.scoreboard import Answers, Meeting, duel, meet, scoreboard
from prefloop.evaluation.text import distinct_2

__all__ = ["Answers", "Meeting", "distinct_2", "duel", "meet", "scoreboard"]

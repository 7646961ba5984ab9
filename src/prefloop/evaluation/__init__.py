"""Evaluation: held-out answers, judged, against others'; and the field's files of judgments, with intervals."""

from prefloop.evaluation.alpaca_eval import Settings, evaluate_alpaca
from prefloop.evaluation.alpaca_files import (
    leaderboard_row,
    read_annotations,
    read_difficulties,
    read_gamed,
    read_leaderboard,
    write_annotations,
    write_leaderboard,
)
from prefloop.evaluation.alpaca_protocol import is_switched, preference_of, prob_first
from prefloop.evaluation.scoreboard import Answers, Meeting, duel, meet, scoreboard
from prefloop.evaluation.text import distinct_2

__all__ = [
    "Answers",
    "Meeting",
    "Settings",
    "distinct_2",
    "duel",
    "evaluate_alpaca",
    "is_switched",
    "leaderboard_row",
    "meet",
    "preference_of",
    "prob_first",
    "read_annotations",
    "read_difficulties",
    "read_gamed",
    "read_leaderboard",
    "scoreboard",
    "write_annotations",
    "write_leaderboard",
]

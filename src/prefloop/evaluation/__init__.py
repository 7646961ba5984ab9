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
from prefloop.evaluation.arena_hard import (
    ArenaSettings,
    Battle,
    battles_of_games,
    evaluate_arena,
    markdown_counts,
    read_battles,
    read_style,
    verdict,
)
from prefloop.evaluation.scoreboard import Answers, Meeting, duel, meet, scoreboard
from prefloop.evaluation.text import distinct_2

__all__ = [
    "Answers",
    "ArenaSettings",
    "Battle",
    "Meeting",
    "Settings",
    "battles_of_games",
    "distinct_2",
    "duel",
    "evaluate_alpaca",
    "evaluate_arena",
    "is_switched",
    "leaderboard_row",
    "markdown_counts",
    "meet",
    "preference_of",
    "prob_first",
    "read_annotations",
    "read_battles",
    "read_difficulties",
    "read_gamed",
    "read_leaderboard",
    "read_style",
    "scoreboard",
    "verdict",
    "write_annotations",
    "write_leaderboard",
]

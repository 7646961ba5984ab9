"""Evaluation: held-out answers, judged, against others'; and the field's files of judgments, with intervals.

Pages are made without loading torch, so that what asks judges itself is imported from where it stands (`labelled`).
"""

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
from prefloop.evaluation.answer_files import (
    Conversation,
    conversations,
    file_name,
    write_alpaca_eval,
    write_arena_hard,
    write_fastchat,
)
from prefloop.evaluation.arena_hard import (
    ArenaSettings,
    Battle,
    battles_of_games,
    evaluate_arena,
    markdown_counts,
    read_battles,
    read_style,
)
from prefloop.evaluation.arena_table import table_of_version_2
from prefloop.evaluation.best_of import best_of_each, worth_of_choosing
from prefloop.evaluation.frontier import (
    FrontierSettings,
    Measured,
    evaluate_frontier,
    read_measured,
    read_reward_sets,
)
from prefloop.evaluation.judge_agreement import evaluate_agreement
from prefloop.evaluation.judge_requests import judge_requests
from prefloop.evaluation.mt_bench import evaluate_mt_bench, read_categories, vote_agreement
from prefloop.evaluation.reward_bench import evaluate_reward_bench
from prefloop.evaluation.scoreboard import (
    Answers,
    Meeting,
    Question,
    comparisons,
    duel,
    length_ratio,
    meet,
    read_scores,
    scoreboard,
)
from prefloop.evaluation.suite_tables import Answered, battles_of, suite_result
from prefloop.evaluation.text import distinct_2
from prefloop.evaluation.verified import Verified, final_number, is_right, verified_accuracy

__all__ = [
    "Answered",
    "Answers",
    "ArenaSettings",
    "Battle",
    "Conversation",
    "FrontierSettings",
    "Measured",
    "Meeting",
    "Question",
    "Settings",
    "Verified",
    "battles_of",
    "battles_of_games",
    "best_of_each",
    "comparisons",
    "conversations",
    "distinct_2",
    "duel",
    "evaluate_agreement",
    "evaluate_alpaca",
    "evaluate_arena",
    "evaluate_frontier",
    "evaluate_mt_bench",
    "evaluate_reward_bench",
    "file_name",
    "final_number",
    "is_right",
    "is_switched",
    "judge_requests",
    "leaderboard_row",
    "length_ratio",
    "markdown_counts",
    "meet",
    "preference_of",
    "prob_first",
    "read_annotations",
    "read_battles",
    "read_categories",
    "read_difficulties",
    "read_gamed",
    "read_leaderboard",
    "read_measured",
    "read_reward_sets",
    "read_scores",
    "read_style",
    "scoreboard",
    "suite_result",
    "table_of_version_2",
    "verified_accuracy",
    "vote_agreement",
    "worth_of_choosing",
    "write_alpaca_eval",
    "write_annotations",
    "write_arena_hard",
    "write_fastchat",
    "write_leaderboard",
]

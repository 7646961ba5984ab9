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
from prefloop.evaluation.judge_agreement import evaluate_agreement
from prefloop.evaluation.labelled import LabelledPair, against_labels, labelled_pairs
from prefloop.evaluation.mt_bench import (
    evaluate_mt_bench,
    grading_messages,
    judge_prompt_name,
    pair_winner,
    rating,
    read_categories,
    vote_agreement,
)
from prefloop.evaluation.reward_bench import evaluate_reward_bench
from prefloop.evaluation.scoreboard import Answers, Meeting, duel, meet, scoreboard
from prefloop.evaluation.text import distinct_2
from prefloop.evaluation.verified import Verified, final_number, is_right, verified_accuracy

__all__ = [
    "Answers",
    "ArenaSettings",
    "Battle",
    "LabelledPair",
    "Meeting",
    "Settings",
    "Verified",
    "against_labels",
    "battles_of_games",
    "distinct_2",
    "duel",
    "evaluate_agreement",
    "evaluate_alpaca",
    "evaluate_arena",
    "evaluate_mt_bench",
    "evaluate_reward_bench",
    "final_number",
    "grading_messages",
    "is_right",
    "is_switched",
    "judge_prompt_name",
    "labelled_pairs",
    "leaderboard_row",
    "markdown_counts",
    "meet",
    "pair_winner",
    "preference_of",
    "prob_first",
    "rating",
    "read_annotations",
    "read_battles",
    "read_categories",
    "read_difficulties",
    "read_gamed",
    "read_leaderboard",
    "read_style",
    "scoreboard",
    "verdict",
    "verified_accuracy",
    "vote_agreement",
    "write_annotations",
    "write_leaderboard",
]

"""Rules: pure functions from groups to examples or derived prompts, and what they share. Never imports torch."""

from prefloop.pairing.all_pairs import all_pairs
from prefloop.pairing.best_worst import best_worst
from prefloop.pairing.corrupted import corrupted_numbers, wrong_choices
from prefloop.pairing.degrees import degraded, graded_versions, key_phrases
from prefloop.pairing.demonstrations import demonstrations
from prefloop.pairing.edited import edited, editing, editing_text
from prefloop.pairing.ensemble import ensemble
from prefloop.pairing.explored import chance_to_win, explored
from prefloop.pairing.given import given
from prefloop.pairing.goals import goal_labelled, with_goal
from prefloop.pairing.groups import finished, member, pair, scores
from prefloop.pairing.judge_forms import (
    NO_RATING,
    REFERENCE_CATEGORIES,
    VERDICTS,
    grading_messages,
    judge_prompt_name,
    pair_messages,
    pair_winner,
    preference_messages,
    rating,
    verdict,
    verdict_messages,
)
from prefloop.pairing.kept_pairs import clear_pairs, not_outdone
from prefloop.pairing.learnable import learnable
from prefloop.pairing.length_corrected import dice, length_corrected
from prefloop.pairing.new_prompts import prompt_writing, written_prompts
from prefloop.pairing.online import iid, max_max, max_min, max_min_length, max_random
from prefloop.pairing.own_answer import own_answer
from prefloop.pairing.preferred import preferred
from prefloop.pairing.prompted import instructed, prompted
from prefloop.pairing.ranking import ranking
from prefloop.pairing.registry import Dropped, Rule, SetConstant, find_rule, rule, rules
from prefloop.pairing.rewritten import cut_open, spliced
from prefloop.pairing.rollouts import rollouts, sampled_together
from prefloop.pairing.self_play import self_play
from prefloop.pairing.siblings import siblings
from prefloop.pairing.side_by_side import side_by_side, side_by_side_text
from prefloop.pairing.step_pairs import better_steps, first_bad_steps
from prefloop.pairing.teacher import teacher
from prefloop.pairing.tokens import Tokens
from prefloop.pairing.tournament import tournament
from prefloop.pairing.unpaired import threshold_labels, unpaired
from prefloop.pairing.win_rates import win_rates
from prefloop.pairing.worst_of_k import worst_of_k

__all__ = [
    "NO_RATING",
    "REFERENCE_CATEGORIES",
    "VERDICTS",
    "Dropped",
    "Rule",
    "SetConstant",
    "Tokens",
    "all_pairs",
    "best_worst",
    "better_steps",
    "chance_to_win",
    "clear_pairs",
    "corrupted_numbers",
    "cut_open",
    "degraded",
    "demonstrations",
    "dice",
    "edited",
    "editing",
    "editing_text",
    "ensemble",
    "explored",
    "find_rule",
    "finished",
    "first_bad_steps",
    "given",
    "goal_labelled",
    "graded_versions",
    "grading_messages",
    "iid",
    "instructed",
    "judge_prompt_name",
    "key_phrases",
    "learnable",
    "length_corrected",
    "max_max",
    "max_min",
    "max_min_length",
    "max_random",
    "member",
    "not_outdone",
    "own_answer",
    "pair",
    "pair_messages",
    "pair_winner",
    "preference_messages",
    "preferred",
    "prompt_writing",
    "prompted",
    "ranking",
    "rating",
    "rollouts",
    "rule",
    "rules",
    "sampled_together",
    "scores",
    "self_play",
    "siblings",
    "side_by_side",
    "side_by_side_text",
    "spliced",
    "teacher",
    "threshold_labels",
    "tournament",
    "unpaired",
    "verdict",
    "verdict_messages",
    "win_rates",
    "with_goal",
    "worst_of_k",
    "written_prompts",
    "wrong_choices",
]

"""Rules: pure functions from groups to examples or derived prompts, and what they share. Never imports torch."""

from prefloop.pairing.best_worst import best_worst
from prefloop.pairing.given import given
from prefloop.pairing.goals import goal_labelled
from prefloop.pairing.groups import finished, member, pair, scores
from prefloop.pairing.online import iid, max_max, max_min, max_min_length, max_random
from prefloop.pairing.own_answer import own_answer
from prefloop.pairing.prompted import prompted
from prefloop.pairing.registry import Dropped, Rule, find_rule, rule, rules
from prefloop.pairing.teacher import teacher
from prefloop.pairing.tournament import tournament
from prefloop.pairing.win_rates import win_rates
from prefloop.pairing.worst_of_k import worst_of_k

__all__ = [
    "Dropped",
    "Rule",
    "best_worst",
    "find_rule",
    "finished",
    "given",
    "goal_labelled",
    "iid",
    "max_max",
    "max_min",
    "max_min_length",
    "max_random",
    "member",
    "own_answer",
    "pair",
    "prompted",
    "rule",
    "rules",
    "scores",
    "teacher",
    "tournament",
    "win_rates",
    "worst_of_k",
]

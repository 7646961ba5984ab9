"""Rules: pure functions from groups to examples or derived prompts, and what they share. Never imports torch."""

from prefloop.pairing.best_worst import best_worst
from prefloop.pairing.given import given
from prefloop.pairing.groups import finished, member, pair, scores
from prefloop.pairing.registry import Dropped, Rule, find_rule, rule, rules

__all__ = [
    "Dropped",
    "Rule",
    "best_worst",
    "find_rule",
    "finished",
    "given",
    "member",
    "pair",
    "rule",
    "rules",
    "scores",
]

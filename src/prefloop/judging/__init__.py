"""Judges: they only ask and record."""

from prefloop.judging.answers import Answers, Budget, KeptJudge, Remembering
from prefloop.judging.human import OPEN, Human, ReadAnswers, read_answers
from prefloop.judging.make import JudgeMachine, check_judge, fetch_judge, make_judge, read_from_outside
from prefloop.judging.protocol import Ask, Judge, Verdict
from prefloop.judging.record import ask_each, judgments
from prefloop.judging.reward_model import RewardModel

__all__ = [
    "OPEN",
    "Answers",
    "Ask",
    "Budget",
    "Human",
    "Judge",
    "JudgeMachine",
    "KeptJudge",
    "ReadAnswers",
    "Remembering",
    "RewardModel",
    "Verdict",
    "ask_each",
    "check_judge",
    "fetch_judge",
    "judgments",
    "make_judge",
    "read_answers",
    "read_from_outside",
]

"""Judges: they only ask and record."""

from prefloop.judging.accounting import Totals, added, disagreement, figures, totals
from prefloop.judging.answers import Answers, Budget, KeptJudge, Price, Remembering, Taken
from prefloop.judging.apart import Apart, alone
from prefloop.judging.designs import Plan, asked, most_calls, plan_of
from prefloop.judging.human import OPEN, Human, ReadAnswers, read_answers
from prefloop.judging.judge_prompt import judge_prompt
from prefloop.judging.likelihoods import Likelihood
from prefloop.judging.llm import Llm
from prefloop.judging.llm_steps import LlmSteps
from prefloop.judging.make import (
    LAST_STEP,
    JudgeMachine,
    check_judge,
    fetch_judge,
    make_judge,
    prompt_of,
    read_from_outside,
)
from prefloop.judging.pairwise_model import PairwiseModel
from prefloop.judging.protocol import Ask, AsksAnother, Judge, Kind, Verdict
from prefloop.judging.record import ask_each, judgments
from prefloop.judging.reward_model import RewardModel

__all__ = [
    "LAST_STEP",
    "OPEN",
    "Answers",
    "Apart",
    "Ask",
    "AsksAnother",
    "Budget",
    "Human",
    "Judge",
    "JudgeMachine",
    "KeptJudge",
    "Kind",
    "Likelihood",
    "Llm",
    "LlmSteps",
    "PairwiseModel",
    "Plan",
    "Price",
    "ReadAnswers",
    "Remembering",
    "RewardModel",
    "Taken",
    "Totals",
    "Verdict",
    "added",
    "alone",
    "ask_each",
    "asked",
    "check_judge",
    "disagreement",
    "fetch_judge",
    "figures",
    "judge_prompt",
    "judgments",
    "make_judge",
    "most_calls",
    "plan_of",
    "prompt_of",
    "read_answers",
    "read_from_outside",
    "totals",
]

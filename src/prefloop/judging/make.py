"""From what a recipe says of a judge to the judge."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from prefloop.config import (
    ArithmeticStepsJudge,
    ExactMatchJudge,
    FinalNumberJudge,
    HumanJudge,
    ImplicitRewardJudge,
    JudgeConfig,
    LengthWindowJudge,
    LogLikelihoodJudge,
    LongerJudge,
    PythonJudge,
    RegexJudge,
    RewardModelJudge,
    RubricJudge,
    ShorterJudge,
    VaderJudge,
)
from prefloop.judging.arithmetic import ArithmeticSteps, TextOf
from prefloop.judging.human import Human
from prefloop.judging.likelihoods import Likelihood, PoliciesAsked
from prefloop.judging.protocol import Judge
from prefloop.judging.python_function import PythonFunction, function_of, source_of
from prefloop.judging.reward_model import (
    RewardModel,
    fetch_reward_model,
    identity_of_reward_model,
    reward_model_files,
)
from prefloop.judging.rules import length_window, longer, regex, rubric, shorter, vader
from prefloop.judging.verifiers import exact_match, final_number

RULES: Mapping[type, Callable[[Any], Judge]] = {
    VaderJudge: vader,
    ShorterJudge: lambda _config: shorter(),
    LongerJudge: lambda _config: longer(),
    LengthWindowJudge: length_window,
    RegexJudge: regex,
    RubricJudge: rubric,
    ExactMatchJudge: exact_match,
    FinalNumberJudge: final_number,
    PythonJudge: PythonFunction,
    HumanJudge: Human,
}
"""By the class of a configuration: what makes the judge of it, where that needs no model."""


@dataclass(frozen=True)
class JudgeMachine:
    """Where judges that are models run."""

    device: torch.device
    tokens_per_batch: int
    """Tokens that pass through a model at once."""
    text_of: TextOf | None = None
    """What tokens of the policy say."""
    policies: PoliciesAsked | None = None
    """Those of the run that the judge asks."""


ANYWHERE = JudgeMachine(torch.device("cpu"), tokens_per_batch=2048)


def make_judge(config: JudgeConfig, machine: JudgeMachine = ANYWHERE) -> Judge:
    """The judge that a configuration describes; what it needs is loaded when it is first asked."""
    if isinstance(config, RewardModelJudge):
        return RewardModel(config, machine.device, machine.tokens_per_batch)
    if isinstance(config, ArithmeticStepsJudge):
        return ArithmeticSteps(machine.text_of)
    if isinstance(config, ImplicitRewardJudge | LogLikelihoodJudge):
        return Likelihood(config, machine.policies)
    return RULES[type(config)](config)


def check_judge(config: JudgeConfig) -> None:
    """Finds out, before a run starts, whether a judge could be asked; no weight is read.

    Raises:
        PrefloopError: it could not; says why.
    """
    match config:
        case PythonJudge():
            function_of(config)
        case RewardModelJudge():
            reward_model_files(config.model)
        case _:
            pass


def fetch_judge(config: JudgeConfig) -> None:
    """Downloads what a judge needs, as far as the recipe names it (ModelError where that fails)."""
    if isinstance(config, RewardModelJudge):
        fetch_reward_model(config.model)


def read_from_outside(config: JudgeConfig) -> Mapping[str, str]:
    """Identities of what a judge reads from outside the run."""
    match config:
        case PythonJudge():
            return source_of(config)
        case RewardModelJudge():
            return {"judge model": identity_of_reward_model(config.model)}
        case _:
            return {}

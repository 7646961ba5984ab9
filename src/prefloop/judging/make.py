"""From what a recipe says of a judge to the judge."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
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
    LlmJudge,
    LlmStepsJudge,
    LogLikelihoodJudge,
    LongerJudge,
    PairwiseModelJudge,
    PythonJudge,
    RegexJudge,
    RewardModelJudge,
    RewardServerJudge,
    RubricJudge,
    ShorterJudge,
    Shown,
    VaderJudge,
)
from prefloop.errors import RecipeError
from prefloop.judging.arithmetic import ArithmeticSteps, TextOf
from prefloop.judging.chat import Chat, LocalChat, ServerChat
from prefloop.judging.human import Human
from prefloop.judging.judge_prompt import JudgePrompt, judge_prompt
from prefloop.judging.likelihoods import Likelihood
from prefloop.judging.llm import Llm
from prefloop.judging.llm_steps import LlmSteps
from prefloop.judging.pairwise_model import PairwiseModel
from prefloop.judging.protocol import Judge
from prefloop.judging.python_function import PythonFunction, function_of, source_of
from prefloop.judging.reward_model import (
    RewardModel,
    fetch_reward_model,
    identity_of_reward_model,
    reward_model_files,
)
from prefloop.judging.reward_server import RewardServer
from prefloop.judging.rules import length_window, longer, regex, rubric, shorter, vader
from prefloop.judging.verifiers import exact_match, final_number
from prefloop.policy import ChatCodec, PolicyFiles, Workbench, check_model, describe_model, resolve_model
from prefloop.sampling import authorization

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
    RewardServerJudge: RewardServer,
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
    bench: Workbench | None = None
    """The owner of the run's models."""
    policies: Mapping[str, PolicyFiles] = field(default_factory=dict[str, PolicyFiles])
    """Policies of the run that a judge is made of, by the part that each plays."""


ANYWHERE = JudgeMachine(torch.device("cpu"), tokens_per_batch=2048)


def make_judge(config: JudgeConfig, machine: JudgeMachine = ANYWHERE, shows: Shown = "one") -> Judge:
    """The judge that a configuration describes; what it needs is loaded when it is first asked.

    Args:
        config: of the judge.
        machine: where models run.
        shows: how many answers it is shown in one ask.
    """
    if isinstance(config, LlmJudge):
        prompt = prompt_of(config, shows)
        llm = Llm(config, prompt, _model_name(config, machine), lambda: _chat(config, machine))
        return LlmSteps(config, llm, machine.text_of) if isinstance(config, LlmStepsJudge) else llm
    if isinstance(config, RewardModelJudge):
        return RewardModel(config, machine.device, machine.tokens_per_batch)
    if isinstance(config, PairwiseModelJudge):
        classifier = RewardModelJudge(type="reward_model", model=config.model)
        return PairwiseModel(config, RewardModel(classifier, machine.device, machine.tokens_per_batch))
    if isinstance(config, ArithmeticStepsJudge):
        return ArithmeticSteps(machine.text_of, config.steps)
    if isinstance(config, ImplicitRewardJudge | LogLikelihoodJudge):
        return Likelihood(config, machine.bench, machine.policies, machine.tokens_per_batch)
    return RULES[type(config)](config)


LAST_STEP = "last_step_at_once"
"""Which shipped prompt asks about the steps of solutions."""


def prompt_of(config: LlmJudge, shows: Shown) -> JudgePrompt:
    """What the judge is asked by (RecipeError where that is unfit)."""
    if not isinstance(config, LlmStepsJudge):
        return judge_prompt(config.prompt, shows)
    found = judge_prompt(config.prompt or LAST_STEP, "one")
    if found.file.reads != "choice":
        raise RecipeError(
            f"judge.prompt {found.name} reads a {found.file.reads}, but steps are right or wrong. Take one that reads "
            f"a choice, such as {LAST_STEP}."
        )
    return found


def _model_name(config: LlmJudge, machine: JudgeMachine) -> str:
    """The model that a judge is, by name and as far as it is known by content."""
    if config.server is not None:
        return config.server.model
    if config.policy is not None:
        judge = machine.policies.get("judge")
        return config.policy if judge is None else f"{config.policy}:{judge.identity[:12]}"
    assert config.model is not None
    return f"{Path(config.model).name}:{_identity(config.model)[:12]}"


def _identity(spec: str) -> str:
    return describe_model(spec).identity or f"not here: {spec}"


def _chat(config: LlmJudge, machine: JudgeMachine) -> Chat:
    if config.server is not None:
        return ServerChat(config.server)
    if config.model is None:
        assert machine.bench is not None
        return LocalChat(machine.bench, machine.policies["judge"], machine.tokens_per_batch)
    source = resolve_model(config.model)
    bench = Workbench(source, ChatCodec.load(source.directory, {}), machine.device)
    return LocalChat(bench, PolicyFiles(source.identity, source.directory), machine.tokens_per_batch)


def check_judge(config: JudgeConfig, shows: Shown = "one") -> None:
    """Finds out, before a run starts, whether a judge could be asked; no weight is read.

    Raises:
        PrefloopError: it could not; says why.
    """
    match config:
        case PythonJudge():
            function_of(config)
        case RewardModelJudge() | PairwiseModelJudge():
            reward_model_files(config.model)
        case RewardServerJudge():
            authorization(config.server.key, "judge.server.key")
        case LlmJudge():
            prompt_of(config, shows)
            if config.model is not None:
                check_model(config.model)
            if config.server is not None:
                authorization(config.server.key, "judge.server.key")
        case _:
            pass


def fetch_judge(config: JudgeConfig) -> None:
    """Downloads what a judge needs, as far as the recipe names it (ModelError where that fails)."""
    if isinstance(config, RewardModelJudge | PairwiseModelJudge):
        fetch_reward_model(config.model)
    if isinstance(config, LlmJudge) and config.model is not None:
        resolve_model(config.model)


def read_from_outside(config: JudgeConfig, shows: Shown = "one") -> Mapping[str, str]:
    """Identities of what a judge reads from outside the run."""
    match config:
        case PythonJudge():
            return source_of(config)
        case RewardModelJudge() | PairwiseModelJudge():
            return {"judge model": identity_of_reward_model(config.model)}
        case LlmJudge():
            prompt = {"judge prompt": prompt_of(config, shows).identity}
            return prompt if config.model is None else {**prompt, "judge model": _identity(config.model)}
        case _:
            return {}

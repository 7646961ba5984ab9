"""Step type `judge`: what a judge says of every answer."""

from collections.abc import Mapping

from prefloop.config import JudgeStep, Recipe, StepConfig
from prefloop.judging import JudgeMachine, ask_each, judgments, make_judge, read_from_outside
from prefloop.loop.artifact import Inputs
from prefloop.loop.scope import Scope
from prefloop.loop.steps.train import TOKENS_PER_BATCH
from prefloop.loop.steps.work import StepType, Work, nearest
from prefloop.records import Judgment, Prompt, Response, shard_name, write_records


def make_judgments(work: Work) -> Mapping[str, float]:
    """Asks about each answer alone and records what was said."""
    settings = work.settings
    assert isinstance(settings, JudgeStep)
    judge = make_judge(settings.judge, machine_of(work))
    count = invalid = 0
    for shard in range(work.num_shards("responses")):
        asks = ask_each(work.records("prompts", Prompt, shard), work.records("responses", Response, shard))
        said = list(judgments(judge, asks))
        write_records(work.out / shard_name(shard), said)
        count += len(said)
        invalid += sum(value is None for judgment in said for value in judgment.values)
    return {"judgments": count, "invalid": invalid}


def machine_of(work: Work) -> JudgeMachine:
    """Where judges that are models run: as the run's own models do."""
    tokens = work.resources.machine.tokens_per_batch
    return JudgeMachine(work.resources.bench.device, TOKENS_PER_BATCH if tokens == "auto" else tokens)


def _inputs(_name: str, settings: StepConfig, scope: Scope) -> Inputs:
    assert isinstance(settings, JudgeStep)
    responses = nearest(settings, scope, Response)
    prompts = {asked.identity: asked for answers in responses for asked in answers.inputs.get("prompts", (answers,))}
    return {"prompts": tuple(prompts.values()), "responses": responses}


def _external(_name: str, settings: StepConfig, _recipe: Recipe) -> Mapping[str, str]:
    assert isinstance(settings, JudgeStep)
    return read_from_outside(settings.judge)


JUDGE = StepType(make_judgments, _inputs, holds=lambda _settings: {Judgment: "."}, external=_external)

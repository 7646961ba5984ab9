"""Step type `judge`: what a judge says of every answer."""

import json
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

from prefloop.config import JudgeConfig, JudgeStep, Recipe, StepConfig
from prefloop.errors import ResumableError
from prefloop.judging import (
    OPEN,
    Answers,
    Ask,
    Budget,
    Human,
    Judge,
    JudgeMachine,
    KeptJudge,
    Remembering,
    RewardModel,
    ask_each,
    judgments,
    make_judge,
    read_from_outside,
)
from prefloop.loop.artifact import Inputs
from prefloop.loop.scope import Scope
from prefloop.loop.steps.train import TOKENS_PER_BATCH, member_name, members_of
from prefloop.loop.steps.work import StepType, Work, nearest
from prefloop.records import Judgment, Prompt, Response, in_pieces, read_records, shard_name, write_records
from prefloop.training import ABOUT

WAVE = 1024
"""Answers that a model judges and a crash can cost. Batches lie within a wave, so that a restart changes no byte."""

Ways = Callable[[int, Sequence[Ask]], Sequence[Judgment]]
"""How the asks of a shard become judgments."""


def make_judgments(work: Work) -> Mapping[str, float]:
    """Asks about each answer alone and records what was said.

    Raises:
        ResumableError: answers are open, or the next call would exceed the budget; what was answered is kept.
    """
    settings = work.settings
    assert isinstance(settings, JudgeStep)
    count = invalid = 0
    with _ways_to_ask(work, settings) as say:
        for shard in range(work.num_shards("responses")):
            said = say(shard, _asks(work, shard))
            write_records(work.out / shard_name(shard), said)
            count += len(said)
            invalid += sum(value is None for judgment in said for value in judgment.values)
    return {"judgments": count, "invalid": invalid}


@contextmanager
def _ways_to_ask(work: Work, settings: JudgeStep) -> Generator[Ways]:
    """One judge; or the reward models of a train step, one after the other."""
    if trained_judge(settings.judge, work.recipe) is None:
        with _way_to_ask(work, settings, make_judge(settings.judge, _machine(work))) as say:
            yield say
    else:
        models = list(_trained(work, settings.judge))

        def said(shard: int, asks: Sequence[Ask]) -> list[Judgment]:
            return [one for number, judge in enumerate(models) for one in _in_waves(work, judge, shard, asks, number)]

        yield said


def trained_judge(judge: JudgeConfig, recipe: Recipe) -> str | None:
    """The train step whose reward model a judge is, or whose reward models; None where it is from elsewhere."""
    if judge.type != "reward_model" or judge.model not in set(recipe.names()):
        return None
    return judge.model


def judge_name(judge: JudgeConfig, recipe: Recipe) -> str:
    """What a judge is called in a summary; of one that the run trains no content is known beforehand."""
    step = trained_judge(judge, recipe)
    return make_judge(judge).name if step is None else f"reward_model:{step}"


def _trained(work: Work, judge: JudgeConfig) -> Iterator[RewardModel]:
    """The reward models that a train step of the run made, each with the mean that it measured subtracted."""
    assert judge.type == "reward_model"
    machine, place = _machine(work), work.path("model")
    folders = members_of(place)
    for number, folder in enumerate(folders):
        center = json.loads((folder / ABOUT).read_text(encoding="utf-8"))["center"]
        config = judge.model_copy(update={"model": str(folder / "model"), "center": judge.center + center})
        called = judge.model if len(folders) == 1 else f"{judge.model}#{number}"
        yield RewardModel(config, machine.device, machine.tokens_per_batch, called=called)


@contextmanager
def _way_to_ask(work: Work, settings: JudgeStep, judge: Judge) -> Generator[Ways]:
    """Rules are simply asked; models in waves that survive a crash; whoever is outside once, and no more than allowed.

    People are asked about all shards at once, before anything is written.
    """
    if isinstance(judge, RewardModel):
        yield lambda shard, asks: _in_waves(work, judge, shard, asks)
    elif settings.judge.kept:
        price = settings.judge.price_of_a_call
        lasting = price > 0 or isinstance(judge, Human)
        with Answers.of_run(work.run, survives_power_loss=lasting) as answers:
            budget = Budget(settings.max_calls, settings.max_cost)
            asked = Remembering(cast("KeptJudge", judge), answers, work.artifact.step, price, budget)
            if isinstance(judge, Human):
                _wait_for_people(work, judge, asked)
            yield lambda _shard, asks: list(judgments(asked, asks))
    else:
        yield lambda _shard, asks: list(judgments(judge, asks))


def _in_waves(work: Work, judge: Judge, shard: int, asks: Sequence[Ask], member: int = 0) -> list[Judgment]:
    """What a model says; a wave that was complete before a crash is not judged again."""
    said: list[Judgment] = []
    folder = work.scratch / member_name(member)
    folder.mkdir(exist_ok=True)
    for wave, some in enumerate(in_pieces(asks, WAVE)):
        kept = folder / f"{shard_name(shard)}.wave-{wave:05d}"
        if not kept.exists():
            aside = kept.with_suffix(".writing")
            write_records(aside, judgments(judge, some))
            with aside.open("rb") as written:
                os.fsync(written.fileno())
            aside.rename(kept)
        said += read_records(kept, Judgment)
        work.report("answers judged", len(said), len(asks))
    return said


def _wait_for_people(work: Work, judge: Human, asked: Remembering) -> None:
    """Writes down what is open, and stops the run until it is answered."""
    waiting: dict[str, Ask] = {}
    for shard in range(work.num_shards("responses")):
        waiting |= asked.open(_asks(work, shard))
    if not waiting:
        (work.run / OPEN).unlink(missing_ok=True)
        return
    asked.require_room(len(waiting))
    judge.write_open(work.run, waiting, work.artifact.step, asked.price)
    raise ResumableError(
        f"{work.artifact.path}: {len(waiting)} answers wait for a person in {work.run / OPEN}. Fill in `values`, read "
        f"them with `prefloop judge {work.run} --answers FILE`, and run the same command again."
    )


def _asks(work: Work, shard: int) -> list[Ask]:
    return ask_each(work.records("prompts", Prompt, shard), work.records("responses", Response, shard))


def _machine(work: Work) -> JudgeMachine:
    """Where judges that are models run: as the run's own models do."""
    tokens = work.resources.machine.tokens_per_batch
    return JudgeMachine(work.resources.bench.device, TOKENS_PER_BATCH if tokens == "auto" else tokens)


def _inputs(_name: str, settings: StepConfig, scope: Scope) -> Inputs:
    assert isinstance(settings, JudgeStep)
    responses = nearest(settings, scope, Response)
    prompts = {asked.identity: asked for answers in responses for asked in answers.inputs.get("prompts", (answers,))}
    read = {"prompts": tuple(prompts.values()), "responses": responses}
    step = trained_judge(settings.judge, scope.recipe)
    return read if step is None else {**read, "model": scope.find(step)}


def _external(_name: str, settings: StepConfig, recipe: Recipe) -> Mapping[str, str]:
    assert isinstance(settings, JudgeStep)
    return {} if trained_judge(settings.judge, recipe) is not None else read_from_outside(settings.judge)


JUDGE = StepType(make_judgments, _inputs, holds=lambda _settings: {Judgment: "."}, external=_external)

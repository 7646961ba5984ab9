"""Step type `judge`: what a judge says of answers, one by one, side by side, or two at a time."""

import json
import os
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from prefloop.config import (
    AgainstDesign,
    ComparingDesign,
    JudgeConfig,
    JudgeStep,
    LlmJudge,
    LlmStepsJudge,
    PairwiseModelJudge,
    Recipe,
    RewardModelJudge,
    Shown,
    StepConfig,
)
from prefloop.errors import ResumableError
from prefloop.judging import (
    OPEN,
    Answers,
    Apart,
    Ask,
    AsksAnother,
    Budget,
    Human,
    Judge,
    JudgeMachine,
    KeptJudge,
    Likelihood,
    Llm,
    LlmSteps,
    PairwiseModel,
    Plan,
    Price,
    Remembering,
    RewardModel,
    Totals,
    Verdict,
    added,
    alone,
    asked,
    disagreement,
    figures,
    judgments,
    make_judge,
    plan_of,
    read_from_outside,
    totals,
)
from prefloop.judging.arithmetic import TextOf
from prefloop.loop.artifact import Inputs
from prefloop.loop.scope import Scope
from prefloop.loop.steps.train import TOKENS_PER_BATCH, members_of
from prefloop.loop.steps.work import StepType, Work, nearest
from prefloop.records import Judgment, Prompt, Response, in_pieces, read_records, shard_name, write_records
from prefloop.training import ABOUT

TRAINED = (RewardModelJudge, PairwiseModelJudge)
"""Judges that a train step of the recipe may make."""
POLICY = "policy_"
"""Before the part that a policy of the run plays in a judge: the slot that it is in."""
WAVE = 1024
"""Answers that a model judges and a crash can cost. Batches lie within a wave, so that a restart changes no byte."""
WAVE_OF_A_LANGUAGE_MODEL = 64
"""The same of a judge that writes its verdicts."""


def make_judgments(work: Work) -> Mapping[str, float]:
    """Asks what the design says and records what was said.

    Raises:
        ResumableError: answers are open, or the next call would exceed the budget; what was answered is kept.
    """
    settings = work.settings
    assert isinstance(settings, JudgeStep)
    count = invalid = 0
    spent: Counter[str] = Counter()
    found: Totals = {}
    with _asked_here(work, settings) as asked_here:
        judges = [_as_designed(judge, settings, work.resources.bench.codec.text_of) for judge in asked_here]
        for shard in range(work.num_shards("responses")):
            by_judge = [list(_said(judge, _plan(work, settings, shard))) for judge in judges]
            said = [one for of_judge in by_judge for one in of_judge]
            write_records(work.out / shard_name(shard), said)
            count += len(said)
            invalid += sum(value is None for judgment in said for value in judgment.values)
            spent.update(
                calls=sum(one.calls for one in said),
                tokens_in=sum(one.tokens_in for one in said),
                tokens_out=sum(one.tokens_out for one in said),
            )
            shown_to_it = list(_judged(work, settings, shard))
            for of_judge in by_judge:
                found = added(found, totals(of_judge, shown_to_it))
            if len(by_judge) > 1:
                found = added(found, disagreement(by_judge, shown_to_it))
        paid = _paid(asked_here, spent["calls"])
    used = {name: number for name, number in spent.items() if number or name == "calls"}
    return {"judgments": count, "invalid": invalid, **used, **paid, **figures(found)}


def _paid(judges: Iterable[Judge], calls: int) -> dict[str, float]:
    """Of the calls that a step's answers took, those that were made before, and US dollars for the others."""
    for judge in judges:
        if isinstance(judge, Remembering):
            made, price = judge.answers.paid(judge.asked, judge.place)
            return {"cache_hits": calls - made, "price": price}
    return {}


def _judged(work: Work, settings: JudgeStep, shard: int) -> Iterator[Response]:
    """All answers that the judge is shown."""
    yield from work.records("responses", Response, shard)
    if isinstance(settings.design, AgainstDesign):
        yield from work.records("opponents", Response, shard)


@dataclass
class InWaves(AsksAnother[Judge]):
    """A model that judges in waves; one that was complete before a crash is not judged again."""

    work: Work
    size: int
    member: int = 0
    """Of several models that judge one after the other."""
    waves: int = 0

    def judge(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Verdict]]:
        """What the model says, wave by wave."""
        done = 0
        for some in in_pieces(asks, self.size):
            kept = self.work.scratch / f"{self.member:02d}-wave-{self.waves:06d}"
            self.waves += 1
            if not kept.exists():
                aside = kept.with_suffix(".writing")
                write_records(aside, judgments(self.judged_by, some))
                with aside.open("rb") as written:
                    os.fsync(written.fileno())
                aside.rename(kept)
            for place, said in enumerate(read_records(kept, Judgment)):
                yield done + place, Verdict(said.values, said.raw, said.tokens_in, said.tokens_out, said.calls)
            done += len(some)
            self.work.report("answers judged", done, len(asks))


@contextmanager
def _asked_here(work: Work, settings: JudgeStep) -> Generator[list[Judge]]:
    """Rules are simply asked; models in waves that survive a crash; whoever is outside once, and no more than allowed.

    It is one judge; of a train step that trained several reward models, each of them.

    People are asked about all shards at once, before anything is written.
    """
    if trained_judge(settings.judge, work.recipe) is not None:
        models = _trained(work, settings)
        yield [InWaves(model, work, WAVE, member) for member, model in enumerate(models)]
        return
    judge = make_judge(settings.judge, _machine(work, settings), shown(settings))
    if isinstance(judge, LlmSteps):
        judge = judge.last_step  # what is counted, paid and kept is an answer about a step
    if isinstance(judge, RewardModel | PairwiseModel | Likelihood):
        yield [InWaves(judge, work, WAVE)]
    elif isinstance(judge, Llm) and not settings.judge.kept:
        yield [InWaves(judge, work, WAVE_OF_A_LANGUAGE_MODEL)]
    elif settings.judge.kept:
        with remembering_in(work.run, settings, judge, work.artifact.step, work.artifact.path) as remembering:
            if isinstance(judge, Human):
                _wait_for_people(work, settings, judge, remembering)
            yield [remembering]
    else:
        yield [judge]


@contextmanager
def remembering_in(
    folder: Path, settings: JudgeStep, judge: Judge, step: str, place: str = ""
) -> Generator[Remembering]:
    """A judge outside the program, asked within the budget and about nothing that a folder has an answer to.

    Args:
        folder: with the answers.
        settings: with the budget.
        judge: that is asked.
        step: that asks.
        place: as of `Remembering`.
    """
    lasting = settings.judge.price_of_a_call > 0 or isinstance(judge, Human)
    with Answers.of_run(folder, survives_power_loss=lasting) as answers:
        budget = Budget(settings.max_calls, settings.max_cost)
        yield Remembering(cast("KeptJudge", judge), answers, step, price_of(settings.judge, judge), budget, place)


def trained_judge(judge: JudgeConfig, recipe: Recipe) -> str | None:
    """The train step whose model a judge is, or whose models; None where it is from elsewhere."""
    if not isinstance(judge, TRAINED) or judge.model not in set(recipe.names()):
        return None
    return judge.model


def judge_name(settings: JudgeStep, recipe: Recipe) -> str:
    """What a judge is called in a summary; of one that the run trains no content is known beforehand."""
    step = trained_judge(settings.judge, recipe)
    return make_judge(settings.judge, shows=shown(settings)).name if step is None else f"{settings.judge.type}:{step}"


def _trained(work: Work, settings: JudgeStep) -> Iterator[RewardModel | PairwiseModel]:
    """The models that a train step of the run made; of rewards the mean that it measured is subtracted."""
    judge = settings.judge
    assert isinstance(judge, TRAINED)
    machine, place = _machine(work, settings), work.path("model")
    folders = members_of(place)
    for number, folder in enumerate(folders):
        called = judge.model if len(folders) == 1 else f"{judge.model}#{number}"
        own = {"model": str(folder / "model")}
        if isinstance(judge, PairwiseModelJudge):
            plain = RewardModelJudge(type="reward_model", model=own["model"])
            model = RewardModel(plain, machine.device, machine.tokens_per_batch, called=called)
            yield PairwiseModel(judge.model_copy(update=own), model)
        else:
            center = json.loads((folder / ABOUT).read_text(encoding="utf-8"))["center"]
            config = judge.model_copy(update={**own, "center": judge.center + center})
            yield RewardModel(config, machine.device, machine.tokens_per_batch, called=called)


def _said(judge: Judge, plan: Plan) -> Iterable[Judgment]:
    return asked(plan, lambda asks: list(judgments(judge, asks)))


def price_of(config: JudgeConfig, judge: Judge) -> Price:
    """US dollars of a call, and of its tokens where these are paid."""
    if not isinstance(config, LlmJudge):
        return Price(config.price_of_a_call)
    assert isinstance(judge, Llm)
    return Price(config.price, config.price_in / 1e6, config.price_out / 1e6, judge.most)


def shown(settings: JudgeStep) -> Shown:
    """How many answers the judge sees in one ask."""
    return settings.design.shows if settings.design.shows in settings.judge.takes else "one"


def _as_designed(judge: Judge, settings: JudgeStep, text_of: TextOf) -> Judge:
    """The judge, asked step by step, or about answers one by one where it cannot be shown what the design shows."""
    if isinstance(settings.judge, LlmStepsJudge):
        return LlmSteps(settings.judge, judge, text_of)
    if settings.design.shows == shown(settings):
        return judge
    return Apart(judge, compares=isinstance(settings.design, ComparingDesign))


def _wait_for_people(work: Work, settings: JudgeStep, judge: Human, remembering: Remembering) -> None:
    """Writes down what is open, and stops the run until it is answered."""
    waiting: dict[str, Ask] = {}
    for shard in range(work.num_shards("responses")):
        first_wave = next(_plan(work, settings, shard), ())
        waiting |= remembering.open([one for ask in first_wave for one in alone(ask)])
    if not waiting:
        (work.run / OPEN).unlink(missing_ok=True)
        return
    remembering.require_room(list(waiting.values()))
    judge.write_open(work.run, waiting, work.artifact.path, remembering.price.call)
    raise ResumableError(
        f"{work.artifact.path}: {len(waiting)} answers wait for a person in {work.run / OPEN}. Fill in `values`, read "
        f"them with `prefloop judge {work.run} --answers FILE`, and run the same command again."
    )


def _plan(work: Work, settings: JudgeStep, shard: int) -> Plan:
    opponents = work.records("opponents", Response, shard) if isinstance(settings.design, AgainstDesign) else ()
    return plan_of(
        settings.design,
        work.records("prompts", Prompt, shard),
        work.records("responses", Response, shard),
        opponents,
        (work.recipe.seed, work.artifact.step, work.turn),
    )


def _machine(work: Work, settings: JudgeStep) -> JudgeMachine:
    """Where judges that are models run: as the run's own models do."""
    tokens = work.resources.machine.tokens_per_batch
    bench = work.resources.bench
    return JudgeMachine(
        bench.device,
        TOKENS_PER_BATCH if tokens == "auto" else tokens,
        bench.codec.text_of,
        bench,
        {part: work.policy(f"{POLICY}{part}") for part in settings.judge.policies},
    )


def _inputs(_name: str, settings: StepConfig, scope: Scope) -> Inputs:
    assert isinstance(settings, JudgeStep)
    responses = nearest(settings, scope, Response)
    design = settings.design
    met = {"opponents": scope.find(design.opponents)} if isinstance(design, AgainstDesign) else {}
    read = (*responses, *met.get("opponents", ()))
    prompts = {asked.identity: asked for answers in read for asked in answers.inputs.get("prompts", (answers,))}
    policies = {f"{POLICY}{part}": (scope.policy(name),) for part, name in settings.judge.policies.items()}
    step = trained_judge(settings.judge, scope.recipe)
    trained = {} if step is None else {"model": scope.find(step)}
    return {"prompts": tuple(prompts.values()), "responses": responses, **met, **policies, **trained}


def _external(_name: str, settings: StepConfig, recipe: Recipe) -> Mapping[str, str]:
    assert isinstance(settings, JudgeStep)
    trained = trained_judge(settings.judge, recipe) is not None
    return {} if trained else read_from_outside(settings.judge, shown(settings))


JUDGE = StepType(make_judgments, _inputs, holds=lambda _settings: {Judgment: "."}, external=_external)

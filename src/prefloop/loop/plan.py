"""What a run would do and need, worked out from the recipe with no weight loaded; and how that compares afterwards."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from prefloop.config import JudgeConfig, JudgeStep, LoadedRecipe, Recipe
from prefloop.loop.amounts import Counts, Ledger, StepAmounts
from prefloop.loop.appraisal import Appraiser, Models, uses_cuda
from prefloop.loop.artifact import Artifact
from prefloop.loop.forecast import Forecast, Status, forecast
from prefloop.loop.journal import FILE as JOURNAL
from prefloop.loop.journal import Journal
from prefloop.loop.machine import peak_memory
from prefloop.loop.needs import Need
from prefloop.loop.precision import settled
from prefloop.loop.rounds import rounds
from prefloop.loop.scope import Scope
from prefloop.loop.wiring import Rehearsal, identity_of, model_artifact, rehearse
from prefloop.policy import ChatCodec, Part, describe_model

TOTALS = ("answers", "tokens", "judge_calls", "pairs", "optimiser_steps")
"""What is added up over a run."""


@dataclass(frozen=True)
class PlannedStep:
    """One step, in the order in which steps run."""

    path: str
    """Relative to the run folder, such as `round-00/samples`."""
    type: str
    status: Status
    """`kept`: done already. `found`: done before a change that is taken back. `again`: done, but something changed.
    `new`: never done."""
    at_most: Counts
    expected: Counts
    """By the mean length and the share of usable pairs that the steps before it had; without what is not known."""
    actual: Counts
    """As the journal has it; empty until the step is done."""
    price: float | None
    """What its judge calls cost, or have cost, in US dollars; None where nothing is judged."""
    memory: int | None
    """Bytes at the peak of the step; None where no model is loaded, or nothing is known of it."""
    rows: int | None = None
    """Answers that grow together, where the step samples in this process."""


@dataclass(frozen=True)
class Plan:
    """What `prefloop run` would do with a recipe in a folder."""

    recipe: str
    run: str
    model: str
    steps: tuple[PlannedStep, ...]
    needs: tuple[Need, ...]
    """The largest of each kind of work, part by part."""
    available: int | None
    """Bytes of memory that this process can still get, what it holds included."""
    disk: tuple[Part, ...]
    unknown: tuple[str, ...]
    """What is not known, and why."""
    precision: str | None = None
    """What samplers whose precision is `auto` compute in, and why."""


@dataclass(frozen=True)
class Compared:
    """A number that was predicted, beside what came out."""

    name: str
    """One of the counts, or `memory` or `disk` in bytes."""
    at_most: int | None
    expected: int | None
    """Of the steps for which something had been measured before."""
    actual_of_expected: int | None
    """Of the same steps."""
    actual: int


def plan_recipe(loaded: LoadedRecipe, run: Path) -> Plan:
    """Plans a recipe by the description of its models.

    Raises:
        PrefloopError: the recipe cannot work.
    """
    recipe = loaded.recipe
    rehearse(loaded)
    kwargs = recipe.model.chat_template_kwargs
    found = {spec: describe_model(spec) for spec in (recipe.model.path, recipe.initial) if spec is not None}
    artifacts = {
        spec: model_artifact(
            identity_of(described.identity or f"not here: {spec}", kwargs), described.directory or Path()
        )
        for spec, described in found.items()
    }
    directory = found[recipe.model.path].directory
    models = Models(
        initial=artifacts[recipe.initial or recipe.model.path],
        model=artifacts[recipe.model.path],
        directory=directory,
        codec=None if directory is None else ChatCodec.load(directory, dict(kwargs)),
    )
    unknown = [
        f"{'which steps are done' if one.directory else 'memory, disk and which steps are done'}: {one.missing}"
        for one in found.values()
        if one.missing is not None
    ]
    if directory is None:
        return plan(loaded, run, models, unknown)
    loaded, trial = settled(loaded, run, directory)
    return replace(plan(loaded, run, models, unknown), precision=None if trial is None else str(trial))


def plan(loaded: LoadedRecipe, run: Path, models: Models, unknown: Sequence[str] = ()) -> Plan:
    """Plans a recipe whose models are known."""
    recipe = loaded.recipe
    ledger = Ledger(recipe)
    appraiser = Appraiser(recipe, models)
    steps: list[PlannedStep] = []
    needs: dict[str, Need] = {}
    for step, counted in walked(loaded, run, models):
        amounts = ledger.add(step.artifact, counted)
        need = appraiser.need(step.artifact)
        if need is not None and (need.work not in needs or need.bytes > needs[need.work].bytes):
            needs[need.work] = need
        steps.append(_planned(step, amounts, recipe, need))
    return Plan(
        recipe=recipe.name,
        run=str(run),
        model=recipe.model.path,
        steps=tuple(steps),
        needs=tuple(needs.values()),
        available=appraiser.available,
        disk=appraiser.disk(ledger),
        unknown=tuple(unknown),
    )


def walked(loaded: LoadedRecipe, run: Path, models: Models) -> Iterator[tuple[Forecast, Mapping[str, float] | None]]:
    """Every step with what the journal knows of it, and what was counted if it is done."""
    recipe = loaded.recipe
    scope = Scope(recipe, models.initial, models.model)
    if not (run / JOURNAL).is_file():
        for artifact in rounds(recipe, scope, Rehearsal(loaded.where)):
            yield Forecast(artifact, "new"), None
        return
    with closing(Journal(run, read_only=True)) as journal:
        for step in forecast(recipe, scope, journal, run):
            entry = journal.find(step.artifact.identity) if step.status in {"kept", "found"} else None
            yield step, None if entry is None else entry.counts


def _planned(step: Forecast, amounts: StepAmounts, recipe: Recipe, need: Need | None) -> PlannedStep:
    artifact = step.artifact
    settings = recipe.step(artifact.step, artifact.place.round or 0)
    return PlannedStep(
        path=artifact.path,
        type=artifact.step_type,
        status=step.status,
        at_most=amounts.at_most,
        expected=amounts.expected,
        actual=amounts.actual,
        price=_price(settings.judge, amounts) if isinstance(settings, JudgeStep) else None,
        memory=None if need is None else need.bytes,
        rows=None if need is None else need.rows,
    )


def _price(judge: JudgeConfig, amounts: StepAmounts) -> float:
    """Of all calls that a step makes. What was asked before is not paid again, which is known only when it is asked."""
    calls = {**amounts.at_most, **amounts.expected, **amounts.actual}.get("judge_calls", 0)
    return calls * judge.price_of_a_call


def ends_at(artifact: Artifact, until: str | None) -> bool:
    """Whether `--until` names this step."""
    return until in {artifact.step, f"round-{artifact.place.round or 0:02d}/{artifact.step}"}


def compared(before: Plan, loaded: LoadedRecipe, models: Models, made: Sequence[str]) -> tuple[Compared, ...]:
    """Predictions beside what came out, over the steps that are done; memory over those that ran in this process.

    Args:
        before: the plan as it was before the run.
        loaded: the recipe.
        models: its models.
        made: paths of the steps that ran.
    """
    run, ledger = Path(before.run), Ledger(loaded.recipe)
    found = [(step, ledger.add(step.artifact, counted)) for step, counted in walked(loaded, run, models)]
    done = [amounts for _, amounts in found if amounts.actual]
    rows = [_compared_count(name, done) for name in TOTALS]
    needs = [step.memory for step in before.steps if step.path in made and step.memory is not None]
    if needs:
        rows.append(Compared("memory", None, max(needs), None, peak_memory(on_cuda=uses_cuda(loaded.recipe))))
    if all(step.status == "kept" for step, _ in found):
        predicted = sum(part.bytes for part in before.disk if part.name != "checkpoints")
        size = sum(file.stat().st_size for file in run.rglob("*") if file.is_file())
        rows.append(Compared("disk", None, predicted, None, size))
    return tuple(row for row in rows if row.actual)


def _compared_count(name: str, done: Sequence[StepAmounts]) -> Compared:
    with_basis = [amounts for amounts in done if name in amounts.expected and name in amounts.actual]
    return Compared(
        name=name,
        at_most=sum(amounts.at_most.get(name, 0) for amounts in done if name in amounts.actual),
        expected=sum(amounts.expected[name] for amounts in with_basis),
        actual_of_expected=sum(amounts.actual[name] for amounts in with_basis),
        actual=sum(amounts.actual.get(name, 0) for amounts in done),
    )

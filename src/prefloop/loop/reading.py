"""What comes from outside, as the steps of a run read it: checked, and without the prompts of the run's evaluations."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from prefloop.config import DataStep, LoadedRecipe, PromptsStep, Recipe, StepConfig, TrainStep, ValidationSource
from prefloop.data import Check, DataSource, Reading, Seen, find_source, leaks_of, read_answers
from prefloop.errors import CheckFailedError
from prefloop.loop.remembered import Remembered
from prefloop.policy import ChatCodec
from prefloop.policy.token_checks import token_checks
from prefloop.records import digest, file_digest


def reading_of(
    step: str,
    source: DataSource,
    recipe: Recipe,
    *,
    format: str | None = None,
    checks: Sequence[Check] = (),
    quarantine: Path | None = None,
    seen: Seen | None = None,
) -> Reading:
    """One pass over a source of a step of type prompts or data.

    Args:
        step: its name.
        source: the rows.
        recipe: whose evaluations keep their prompts for themselves.
        format: name of the rows' format; None recognises it.
        checks: more than a step makes.
        quarantine: file for refused rows.
        seen: what rows of the step's other sources said.
    """
    leaks = [leaks_of(name) for name in held_out(step, recipe)]
    return Reading(source, format=format, checks=[*leaks, *checks], quarantine=quarantine, seen=seen)


def external(step: str, settings: StepConfig, recipe: Recipe) -> Mapping[str, str]:
    """Identities of what a step of type prompts or data reads from outside the run."""
    assert isinstance(settings, PromptsStep | DataStep)
    identities = [find_source(source).identity for source, _ in sources_of(settings)]
    data = identities[0] if len(identities) == 1 else digest(identities)
    found = {"data": data, **left_out(step, settings, recipe)}
    if isinstance(settings, PromptsStep) and settings.references is not None:
        read_answers(Path(settings.references))  # before the run starts, so that a wrong file is said then
        found["references"] = file_digest(Path(settings.references))
    return found


def left_out(step: str, settings: PromptsStep | DataStep, recipe: Recipe) -> Mapping[str, str]:
    """What belongs to a step's identity because of the recipe's evaluations: which prompts they take from its data.

    Nothing where they take none, so that another suite runs only the evaluations again.
    """
    names = held_out(step, recipe)
    if not names:
        return {}
    taken = [prompt for source, format in sources_of(settings) for prompt in _taken(step, source, format, recipe)]
    return {"evaluation prompts in": digest(taken)} if taken else {}


def sources_of(settings: PromptsStep | DataStep) -> tuple[tuple[str, str | None], ...]:
    """Every source that a step reads, with the format that the recipe gives it."""
    if isinstance(settings, PromptsStep):
        return ((settings.data, settings.format),)
    mixed = tuple((one.source, one.format) for one in settings.sources)
    held = settings.validation
    return (*mixed, (held.source, held.format)) if isinstance(held, ValidationSource) else mixed


def held_out(step: str, recipe: Recipe) -> tuple[str, ...]:
    """Prompt sets of the recipe's evaluations, for steps that must not read them: all but the evaluations' own."""
    own = evaluation_prompts(recipe)
    if step in own:
        return ()
    sets: list[str] = []
    for name in own:
        settings = recipe.step(name)
        assert isinstance(settings, PromptsStep)
        sets.append(settings.data)
    return tuple(dict.fromkeys(sets))


def evaluation_prompts(recipe: Recipe) -> tuple[str, ...]:
    """Names of the steps that read the evaluations' prompts."""
    return tuple(f"{name}-prompts" for name in recipe.names() if recipe.type_of(name) == "evaluate")


def require_clean(loaded: LoadedRecipe, codec: ChatCodec) -> None:
    """Every row that the run would read is accepted without a warning, by its model's tokenizer and template as well.

    Args:
        loaded: the recipe.
        codec: of its model; what training would leave out or cut by its settings is found too.

    Raises:
        CheckFailedError: one is not; says the source, the codes and their counts.
    """
    recipe = loaded.recipe
    for name in recipe.names():
        settings = recipe.step(name)
        if not isinstance(settings, PromptsStep | DataStep):
            continue
        trains = [] if name in evaluation_prompts(recipe) else _train_steps(recipe)
        with closing(Seen()) as seen:
            for source, format in sources_of(settings):
                checks = [token_checks(codec, one.max_length, one.truncation) for one in trains]
                reading = reading_of(name, find_source(source), recipe, format=format, checks=checks, seen=seen)
                for _ in reading:
                    pass
                if (line := reading.report.line()) is None:
                    continue
                options = "".join(f" --against {other}" for other in held_out(name, recipe))
                if trains:
                    shortest = min(one.max_length for one in trains)
                    options += f" --model {recipe.model.path} --max-length {shortest}"
                raise CheckFailedError(
                    f"{loaded.where}: {name}: --strict: {line}. `prefloop lint {source}{options}` says more."
                )


def _train_steps(recipe: Recipe) -> list[TrainStep]:
    return [settings for name in recipe.names() if isinstance(settings := recipe.step(name), TrainStep)]


def _taken(step: str, name: str, format: str | None, recipe: Recipe) -> tuple[str, ...]:
    """Prompts of a source that are an evaluation's."""
    source = find_source(name)
    against = held_out(step, recipe)

    def read() -> tuple[str, ...]:
        leaks = [leaks_of(other) for other in against]
        return tuple(
            given.prompt.prompt_id
            for given in Reading(source, format=format)
            if any(problem.fate == "refused" for leak in leaks for problem in leak(given))
        )

    return _TAKEN.found(digest([source.identity, format, *(find_source(other).identity for other in against)]), read)


_TAKEN = Remembered[tuple[str, ...]]()

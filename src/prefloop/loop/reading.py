"""What comes from outside, as the steps of a run read it: checked, and without the prompts of the run's evaluations."""

from collections.abc import Mapping
from pathlib import Path

from prefloop.config import DataStep, LoadedRecipe, PromptsStep, Recipe
from prefloop.data import DataSource, Leaks, Reading, find_source
from prefloop.errors import CheckFailedError
from prefloop.records import digest

_LEFT_OUT: dict[str, tuple[str, ...]] = {}
"""Prompts that were found to be an evaluation's, by what was read: a process reads a source for it once."""


def reading_of(
    step: str, source: DataSource, recipe: Recipe, *, format: str | None = None, quarantine: Path | None = None
) -> Reading:
    """One pass over what a step of type prompts or data reads.

    Args:
        step: its name.
        source: its data.
        recipe: whose evaluations keep their prompts for themselves.
        format: of its rows, where the recipe names it.
        quarantine: file for refused rows.
    """
    return Reading(source, format=format, checks=_leaks(step, recipe), quarantine=quarantine)


def left_out(step: str, source: DataSource, recipe: Recipe) -> Mapping[str, str]:
    """What belongs to a step's identity because of the recipe's evaluations: which prompts they take from its data.

    Nothing where they take none, so that another suite runs only the evaluations again.
    """
    names = held_out(step, recipe)
    if not names:
        return {}
    key = digest([source.identity, *(find_source(name).identity for name in names)])
    if key not in _LEFT_OUT:
        leaks = _leaks(step, recipe)
        _LEFT_OUT[key] = tuple(
            given.prompt.prompt_id
            for given in Reading(source)
            if any(problem.fate == "refused" for leak in leaks for problem in leak(given))
        )
    found = _LEFT_OUT[key]
    return {"evaluation prompts in": digest(list(found))} if found else {}


def held_out(step: str, recipe: Recipe) -> tuple[str, ...]:
    """Prompt sets of the recipe's evaluations, for steps that must not read them: all but the evaluations' own."""
    own = [f"{name}-prompts" for name in recipe.names() if recipe.type_of(name) == "evaluate"]
    if step in own:
        return ()
    sets: list[str] = []
    for name in own:
        settings = recipe.step(name)
        assert isinstance(settings, PromptsStep)
        sets.append(settings.data)
    return tuple(dict.fromkeys(sets))


def require_clean(loaded: LoadedRecipe) -> None:
    """Every row that the run would read is accepted without a warning.

    Raises:
        CheckFailedError: one is not; says the source, the codes and their counts.
    """
    recipe = loaded.recipe
    for name in recipe.names():
        settings = recipe.step(name)
        if not isinstance(settings, PromptsStep | DataStep):
            continue
        data = settings.data if isinstance(settings, PromptsStep) else settings.source
        reading = reading_of(name, find_source(data), recipe)
        for _ in reading:
            pass
        if (line := reading.report.line()) is not None:
            against = "".join(f" --against {other}" for other in held_out(name, recipe))
            raise CheckFailedError(
                f"{loaded.where}: {name}: --strict: {line}. `prefloop lint {data}{against}` says more."
            )


def _leaks(step: str, recipe: Recipe) -> list[Leaks]:
    return [Leaks(given.prompt for given in Reading(find_source(name))) for name in held_out(step, recipe)]

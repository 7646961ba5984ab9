"""What a prompts step reads: the prompts of its source, each once; and which of them a round takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prefloop.config import PromptsStep, Recipe
from prefloop.data import (
    LintReport,
    UniquePrompts,
    find_source,
    prompts_of_turn,
    read_answers,
    require_rows,
    with_references,
)
from prefloop.loop.artifact import Artifact, turn_at
from prefloop.loop.reading import held_out, reading_of
from prefloop.loop.remembered import Remembered
from prefloop.records import Prompt, digest, seed_for


@dataclass(frozen=True)
class PromptSet:
    """The usable prompts of a source."""

    prompts: UniquePrompts
    report: LintReport


_SETS = Remembered[PromptSet]()


def prompt_set(step: str, settings: PromptsStep, recipe: Recipe, quarantine: Path | None = None) -> PromptSet:
    """The prompts of a step's source; read once a process while the file stays as it is.

    Args:
        step: its name.
        settings: what it is told.
        recipe: that it belongs to.
        quarantine: file for refused rows; the source is read anew for it.

    Raises:
        DataError: no row is usable.
    """
    named = (settings.data, *held_out(step, recipe))
    key = digest([settings.format, *(find_source(name).identity for name in named)])

    def read() -> PromptSet:
        reading = reading_of(step, find_source(settings.data), recipe, format=settings.format, quarantine=quarantine)
        prompts = UniquePrompts(reading)
        require_rows(reading.report, settings.data)
        return PromptSet(prompts, reading.report)

    return _SETS.found(key, read, anew=quarantine is not None)


def prompts_at(artifact: Artifact, settings: PromptsStep, recipe: Recipe) -> Sequence[Prompt]:
    """The prompts of a step's turn, with their reference answers where a file of them is named."""
    prompts = prompt_set(artifact.step, settings, recipe).prompts
    chosen = prompts_of_turn(
        prompts, settings.count, turn_at(artifact.place, recipe), seed_for(recipe.seed, artifact.step)
    )
    if settings.references is None:
        return chosen
    references = read_answers(Path(settings.references))
    return [with_references(prompt, references) for prompt in chosen]

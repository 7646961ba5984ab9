"""Step types `prompts` and `data`: what comes from outside."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from prefloop.config import DataStep, PromptsStep, StepConfig
from prefloop.data import GivenGroup, chosen_at_turn
from prefloop.loop.artifact import Inputs
from prefloop.loop.data_set import QUARANTINE, DataSet, data_set
from prefloop.loop.prompt_set import prompt_set, prompts_at
from prefloop.loop.reading import external
from prefloop.loop.scope import Scope
from prefloop.loop.steps.work import OF_GROUPS, VALIDATION, StepType, Work
from prefloop.records import (
    PROMPTS_PER_SHARD,
    Judgment,
    Prompt,
    Response,
    in_pieces,
    seed_for,
    shard_name,
    write_records,
)


def make_prompts(work: Work) -> Mapping[str, float]:
    """Takes this turn's part of a prompt set."""
    settings = work.settings
    assert isinstance(settings, PromptsStep)
    found = prompt_set(work.artifact.step, settings, work.recipe, work.out / QUARANTINE)
    if (line := found.report.line()) is not None:
        work.report.note(line)
    chosen = prompts_at(work.artifact, settings, work.recipe)
    for number, shard in enumerate(in_pieces(chosen, PROMPTS_PER_SHARD)):
        write_records(work.out / shard_name(number), shard)
    return {"prompts": len(chosen), **found.report.counts()}


def make_data(work: Work) -> Mapping[str, float]:
    """Takes a data set apart into prompts, given responses and given judgments; what is for validation lies apart."""
    settings = work.settings
    assert isinstance(settings, DataStep)
    with data_set(work.artifact.step, settings, work.recipe, work.out) as found:
        for report in found.reports:
            if (line := report.line()) is not None:
                work.report.note(line)
        taken = {} if settings.count is None else {"prompts": settings.count, "pairs": 0}
        counts = Counter({**found.counts, **taken})

        def counted(groups: Iterable[GivenGroup]) -> Iterator[GivenGroup]:
            for group in groups:
                counts["pairs"] += sum(judgment.kind == "preference" for judgment in group.judgments)
                yield group

        _write(work.out, found.groups() if settings.count is None else counted(_of_turn(work, settings.count, found)))
        if settings.validation is not None:
            _write(work.out / VALIDATION, found.groups(validation=True))
        return {name: count for name, count in counts.items() if count}


def _of_turn(work: Work, count: int, found: DataSet) -> Iterator[GivenGroup]:
    """The prompts of this turn with what was given for them, in the order of the data set."""
    seed = seed_for(work.recipe.seed, work.artifact.step)
    taken = {*chosen_at_turn(found.counts["prompts"], count, work.turn, seed, f"{work.artifact.step}.count")}
    return (group for number, group in enumerate(found.groups()) if number in taken)


def _write(folder: Path, groups: Iterable[GivenGroup]) -> None:
    for number, shard in enumerate(in_pieces(groups, PROMPTS_PER_SHARD)):
        name = shard_name(number)
        write_records(folder / OF_GROUPS[Prompt] / name, (group.prompt for group in shard))
        write_records(folder / OF_GROUPS[Response] / name, (one for group in shard for one in group.responses))
        write_records(folder / OF_GROUPS[Judgment] / name, (one for group in shard for one in group.judgments))


def _nothing(_name: str, _settings: StepConfig, _scope: Scope) -> Inputs:
    return {}


PROMPTS = StepType(make_prompts, _nothing, holds=lambda _settings: {Prompt: "."}, external=external)
DATA = StepType(make_data, _nothing, holds=lambda _settings: OF_GROUPS, external=external, format=3)

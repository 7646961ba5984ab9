"""Step type `mix`: examples of one step with a part of those of others."""

from collections.abc import Iterator, Mapping

from prefloop.config import MixStep, StepConfig
from prefloop.loop.artifact import Inputs
from prefloop.loop.scope import Scope
from prefloop.loop.steps.work import VALIDATION, StepType, Work
from prefloop.pairing.replay import drawn, offline_and_generated, replayed
from prefloop.records import PROMPTS_PER_SHARD, Example, in_pieces, shard_name, write_records

FIRST = "first"


def earlier_slot(number: int) -> str:
    """Where the examples of the step with a share of this number are read from."""
    return f"earlier_{number}"


def make_mixture(work: Work) -> Mapping[str, float]:
    """Takes all examples of the first step, or as many as an exact share needs, and of the others what shares allow."""
    settings = work.settings
    assert isinstance(settings, MixStep)
    slots = [FIRST, *map(earlier_slot, range(len(settings.shares)))]
    ids = {FIRST: [one.example_id for one in work.records(FIRST, Example)]}
    roots = {one.prompt.root_id for one in work.records(FIRST, Example)} if settings.other_prompts else set[str]()
    for slot in slots[1:]:
        ids[slot] = [one.example_id for one in work.records(slot, Example) if one.prompt.root_id not in roots]
    counts = _counts(settings, [len(ids[slot]) for slot in slots])
    taken = {
        slot: drawn(ids[slot], count, work.recipe.seed, work.artifact.step, work.turn, slot)
        for slot, count in zip(slots, counts, strict=True)
    }
    _write(work, ".", (one for slot in slots for one in work.records(slot, Example) if one.example_id in taken[slot]))
    _write(work, VALIDATION, work.records(FIRST, Example, part=VALIDATION))
    named = zip(settings.reads[1:], counts[1:], strict=True)
    return {"examples": sum(counts), **{f"of {name}": count for name, count in named if count}}


def _counts(settings: MixStep, available: list[int]) -> list[int]:
    """How many examples of each step are taken, the first step's first."""
    first, *others = available
    if settings.exact:
        return list(offline_and_generated(settings.shares[0], others[0], first))
    return [first, *replayed(first, others, settings.shares)]


def _write(work: Work, part: str, examples: Iterator[Example]) -> None:
    for number, shard in enumerate(in_pieces(examples, PROMPTS_PER_SHARD)):
        write_records(work.out / part / shard_name(number), shard)


def _inputs(_name: str, settings: StepConfig, scope: Scope) -> Inputs:
    assert isinstance(settings, MixStep)
    first, *others = (scope.find(name) for name in settings.reads)
    return {FIRST: first, **{earlier_slot(number): found for number, found in enumerate(others)}}


MIX = StepType(make_mixture, _inputs, holds=lambda _settings: {Example: "."})

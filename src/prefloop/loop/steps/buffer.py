"""Step type `buffer`: examples of this and of earlier blocks, of which those to train on are drawn."""

import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path

from prefloop.config import BufferStep, StepConfig
from prefloop.loop.artifact import Inputs
from prefloop.loop.scope import Scope
from prefloop.loop.steps.work import StepType, Work, nearest
from prefloop.pairing.segments import ReplayBuffer
from prefloop.records import (
    PROMPTS_PER_SHARD,
    Example,
    in_pieces,
    read_folder,
    seed_for,
    shard_name,
    write_records,
)

DRAWN, HELD, TIMES = "drawn", "held", "times_drawn.json"
NEW, BEFORE = "new", "before"
"""Slots: examples of this block, and the buffer as the last block left it."""


def make_buffer(work: Work) -> Mapping[str, float]:
    """Puts this block's examples in, lets the oldest go, and draws what is trained on."""
    settings = work.settings
    assert isinstance(settings, BufferStep)
    buffer: ReplayBuffer[Example] = ReplayBuffer(settings.size)
    for before in work.artifact.inputs[BEFORE]:
        path = work.paths[before.identity]
        times: list[int] = json.loads((path / TIMES).read_text(encoding="utf-8"))
        for example in read_folder(path / HELD, Example):
            buffer.add(example)
        buffer.times_drawn = times[-len(buffer.items) :] if buffer.items else []
    held = len(buffer.items)
    new = list(work.records(NEW, Example))
    for example in new:
        buffer.add(example)
    places = buffer.draw(settings.draws, random.Random(seed_for(work.recipe.seed, work.artifact.step, work.turn)))
    drawn = [buffer.items[place] for place in places]
    for place in places:
        buffer.times_drawn[place] += 1
    _write(work.out / DRAWN, drawn)
    _write(work.out / HELD, buffer.items)
    (work.out / TIMES).write_text(json.dumps(buffer.times_drawn) + "\n", encoding="utf-8")
    earlier = sum(place < len(buffer.items) - len(new) for place in places)
    gone = held + len(new) - len(buffer.items)
    return {"examples": len(drawn), "of earlier blocks": earlier, "held": len(buffer.items), "gone": gone}


def _write(folder: Path, examples: Iterable[Example]) -> None:
    for number, shard in enumerate(in_pieces(examples, PROMPTS_PER_SHARD)):
        write_records(folder / shard_name(number), shard)


def _inputs(name: str, settings: StepConfig, scope: Scope) -> Inputs:
    assert isinstance(settings, BufferStep)
    return {NEW: nearest(settings, scope, Example), BEFORE: scope.made_last(name)}


BUFFER = StepType(make_buffer, _inputs, holds=lambda _settings: {Example: DRAWN})

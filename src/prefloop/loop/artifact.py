"""What a step made, before anybody has opened it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from prefloop.config import Recipe
from prefloop.records import Record

Inputs = Mapping[str, tuple["Artifact", ...]]


@dataclass(frozen=True)
class Place:
    """When a step runs: in the set-up, in a round, or in a block of a round."""

    round: int | None = None
    block: int | None = None

    def __str__(self) -> str:
        if self.round is None:
            return "setup"
        return f"round-{self.round:02d}" + ("" if self.block is None else f"/block-{self.block:02d}")


@dataclass(frozen=True)
class Artifact:
    """A step's result by identity. Its files are looked at only when `open` is called."""

    step: str
    step_type: str
    identity: str
    place: Place
    path: str
    """Relative to the run folder."""
    inputs: Inputs
    holds: Mapping[type[Record], str]
    """Kinds of records in it, and the subfolder of each ("." for its own folder)."""
    open: Callable[[], Path]
    """Verifies what is on disk, makes it again where it is missing or damaged, and returns its path."""
    made_from: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What the identity is the hash of, by name, and the settings that are at their defaults beside it."""


def turn_at(place: Place, recipe: Recipe) -> int:
    """How many blocks of the run come before a place; 0 in the set-up."""
    return (place.round or 0) * recipe.blocks + (place.block or 0)


def unmixed(examples: Iterable[Artifact]) -> Iterator[Artifact]:
    """The pair steps that examples come from, behind all mixing."""
    for artifact in examples:
        if artifact.step_type in {"mix", "buffer"}:
            yield from unmixed(chain.from_iterable(artifact.inputs.values()))
        else:
            yield artifact

"""What every step type is made of: what it reads, what it holds, and the driver that makes it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import JsonValue

from prefloop.config import MachineConfig, ReadingStep, Recipe, StepConfig
from prefloop.loop.artifact import Artifact, Inputs, turn_at
from prefloop.loop.progress import Report
from prefloop.loop.scope import Scope
from prefloop.policy import ChatCodec, ModelSource, PolicyFiles, Workbench
from prefloop.policy.model_heads import HEADS_FILE
from prefloop.records import Judgment, Prompt, Record, Response, read_folder, shard_name, shards_in
from prefloop.sampling import DEFAULT_ROWS

R = TypeVar("R", bound=Record)

VALIDATION = "validation"
"""Subfolder of an artifact with what is not trained on, in the same form as the rest."""
OF_GROUPS: Mapping[type[Record], str] = {Prompt: "prompts", Response: "responses", Judgment: "judgments"}
"""Subfolders of an artifact that holds prompts with answers and what is said of them."""


@dataclass(frozen=True)
class Resources:
    """What the machine gives a run; models are loaded when the first step asks."""

    source: ModelSource
    chat_template_kwargs: Mapping[str, JsonValue]
    machine: MachineConfig
    recomputed: set[str] = field(default_factory=set[str])
    """Paths of train steps that would not fit unless layers are computed again; known when a run begins."""
    rows: dict[str, int] = field(default_factory=dict[str, int])
    """Answers that grow together, by path of the step that samples them; known when a run begins."""

    def rows_of(self, path: str) -> int:
        """Answers that grow together in a step."""
        wanted = self.machine.rows
        return self.rows.get(path, DEFAULT_ROWS) if wanted == "auto" else wanted

    @cached_property
    def bench(self) -> Workbench:
        """The owner of all loaded models."""
        codec = ChatCodec.load(self.source.directory, dict(self.chat_template_kwargs))
        return Workbench(self.source, codec, device_of(self.machine))


def device_of(machine: MachineConfig) -> torch.device:
    """The device that models are held on, from now on with as many threads as the machine says."""
    if machine.threads is not None:
        torch.set_num_threads(machine.threads)
    return torch.device(devices_here()[0] if machine.device == "auto" else machine.device)


def devices_here() -> list[str]:
    """The devices that torch sees, the fastest first."""
    seen = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [device for device, there in seen.items() if there]


@dataclass(frozen=True)
class Work:
    """One step that runs now: its settings, what it reads, and where it writes."""

    artifact: Artifact
    recipe: Recipe
    settings: StepConfig
    out: Path
    """Written aside; gets its name when it is complete."""
    scratch: Path
    """Survives a crash: what is complete there need not be done again."""
    paths: Mapping[str, Path]
    """Verified paths of everything that it reads, by identity."""
    counts: Mapping[str, Mapping[str, float]]
    """What was counted when it was made, by identity."""
    resources: Resources
    report: Report
    run: Path
    """The run folder, for what belongs to no artifact: answers from outside the program."""

    def path(self, slot: str) -> Path:
        """The path of the only artifact in a slot."""
        (artifact,) = self.artifact.inputs[slot]
        return self.paths[artifact.identity]

    def records(self, slot: str, kind: type[R], shard: int | None = None, part: str = ".") -> Iterator[R]:
        """Records of a kind over all artifacts of a slot; of one aligned shard, or of all; of a part, or the whole."""
        for artifact in self.artifact.inputs[slot]:
            if kind in artifact.holds:
                folder = self.paths[artifact.identity] / part / artifact.holds[kind]
                yield from read_folder(folder, kind, None if shard is None else shard_name(shard))

    def num_shards(self, slot: str, part: str = ".") -> int:
        """Shards of the artifacts in a slot, which are aligned."""
        folders = [
            self.paths[artifact.identity] / part / subfolder
            for artifact in self.artifact.inputs[slot]
            for subfolder in artifact.holds.values()
        ]
        return max(len(shards_in(folder)) for folder in folders)

    def policy(self, slot: str) -> PolicyFiles:
        """The policy in a slot, as the Workbench takes it."""
        (policy,) = self.policies(slot)
        return policy

    def policies(self, slot: str) -> tuple[PolicyFiles, ...]:
        """All policies in a slot."""
        return tuple(map(self._policy, self.artifact.inputs[slot]))

    def _policy(self, artifact: Artifact) -> PolicyFiles:
        return self.policy_at(artifact, self.paths[artifact.identity])

    def policy_at(self, artifact: Artifact, path: Path) -> PolicyFiles:
        """The policy whose files lie in a folder."""
        if artifact.step_type == "model":
            return PolicyFiles(artifact.identity, path)
        model, heads = path / "model", path / HEADS_FILE
        kept = heads if heads.is_file() else None
        if (model / "adapter_config.json").is_file():
            return PolicyFiles(artifact.identity, self.resources.source.directory, model, kept)
        return PolicyFiles(artifact.identity, model, None, kept)

    @property
    def turn(self) -> int:
        """How many blocks of the run came before this one; 0 in the set-up."""
        return turn_at(self.artifact.place, self.recipe)


def nearest(
    settings: ReadingStep, scope: Scope, kind: type[Record], *, all_earlier: bool = False
) -> tuple[Artifact, ...]:
    """What a step reads of a kind: what `reads` names, or the last such artifact before it in its block (or all)."""
    if settings.reads:
        candidates: Iterable[Artifact] = [found for name in settings.reads for found in scope.find(name)]
        return tuple(artifact for artifact in candidates if kind in artifact.holds)
    earlier = [artifact for artifact in scope.made_before() if kind in artifact.holds]
    return tuple(earlier if all_earlier else earlier[-1:])


@dataclass(frozen=True)
class StepType:
    """A type of step."""

    make: Callable[[Work], Mapping[str, float]]
    """The driver: reads, calls pure functions, writes, counts."""
    inputs: Callable[[str, StepConfig, Scope], Inputs]
    """What a step of this name reads here, by slot; empty slots where there is nothing."""
    holds: Callable[[StepConfig], Mapping[type[Record], str]] = field(default=lambda _settings: {})
    external: Callable[[str, StepConfig, Recipe], Mapping[str, str]] = field(
        default=lambda _name, _settings, _recipe: {}
    )
    """Identities of what it reads from outside the run."""
    suffix: str = ""
    """Empty: the artifact is a folder. Otherwise it is one file with this ending."""
    format: int = 1
    """Raised when the meaning of the stage changes, so that older results are not taken for new ones."""

"""A recipe: a graph of named steps and what each is told, resolved round by round."""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, JsonValue, model_validator

from prefloop.config.base import Config, is_mapping
from prefloop.config.gate import GateConfig, MonitorsConfig
from prefloop.config.margin import GAMMA, RATIO
from prefloop.config.steps import STEP_CLASSES, Precision, StepConfig

RawStep = dict[str, JsonValue]


class ModelConfig(Config):
    """Which model, and how its chat template is rendered."""

    main: ClassVar[str | None] = "path"
    path: str
    """A directory, `builtin:NAME` or `org/name@revision`."""
    chat_template_kwargs: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    """Passed to the template wherever it is rendered: sampling, scoring, training, export."""


class MachineConfig(Config):
    """What this machine offers; never part of an identity."""

    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads; None: one a core."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """Where models are held; `auto` takes the first of these that torch sees."""
    tokens_per_batch: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Tokens that pass through the model at once in training; the optimiser step does not depend on it. An example that
    has more passes answer by answer, at the price of a second pass; with `auto` it passes alone, whole."""
    layout: Literal["auto", "rows"] = "auto"
    """How training lays answers out: `rows` pads them, one behind each prompt; `auto` passes what begins alike once and
    pads nothing, where the model takes that. The optimiser step is the same but for rounding."""
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    """Whether layers keep only what they read and compute the rest again going backward: a third slower, far less
    memory, the same numbers. `auto` where the memory that `plan` prints would not be enough otherwise."""
    rows: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Answers that grow together; `auto`: 128, on a GPU 512, or as many as fit into memory."""
    checkpoint_steps: Annotated[int, Field(ge=1)] = 10
    """Optimiser steps between checkpoints: what a crash in training can cost."""
    keep_last: Annotated[int, Field(ge=1)] = 1
    """Checkpoints that are kept while a train step runs. Should the newest be damaged, training goes on from the one
    before it; without any it begins again."""


class Recipe(Config):
    """Everything that decides what a run computes (and `machine`, which does not)."""

    name: str
    paper: str | None = None
    """Where the method comes from, as arXiv:NUMBER."""
    title: str | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    """All randomness of the run comes from it."""
    model: ModelConfig
    """The model that is aligned."""
    initial: str | None = None
    """Another model as the policy called `initial`; None: `model` itself."""
    start: str | None = None
    """A train step of the set-up: the first round starts from its policy. None: from the model."""
    rounds: Annotated[int, Field(ge=1)] = 3
    """Rounds are evaluated, gated and exported."""
    blocks: Annotated[int, Field(ge=1)] = 1
    """Refreshes of the sampling policy inside a round."""
    setup: tuple[str, ...] = ()
    block: tuple[str, ...]
    round: tuple[str, ...] = ()
    gate: GateConfig = GateConfig()
    monitors: MonitorsConfig = MonitorsConfig()
    machine: MachineConfig = MachineConfig()
    steps: dict[str, RawStep]
    """Settings of each step as written, numbers by round included."""

    @model_validator(mode="after")
    def _starts_from_set_up(self) -> "Recipe":
        if self.start is not None and (self.start not in self.setup or self.type_of(self.start) != "train"):
            raise ValueError(f"start is '{self.start}', which is no train step of the set-up")
        return self

    def step(self, name: str, round_number: int = 0) -> StepConfig:
        """A step's settings in one round (ValidationError where they are wrong)."""
        raw = at_round(self.steps[name], round_number)
        assert isinstance(raw, dict)
        return STEP_CLASSES[str(raw["type"])].model_validate(raw)

    def type_of(self, name: str) -> str:
        """The type of a step."""
        return str(self.steps[name]["type"])

    def sampling_in(self, precision: Precision) -> "Recipe":
        """The same recipe, with this wherever the precision of a sampler is `auto`."""
        steps = {name: _settled(raw, precision) for name, raw in self.steps.items()}
        return self.model_copy(update={"steps": steps})

    def names(self) -> Iterator[str]:
        """All steps in the order in which they run."""
        yield from (*self.setup, *self.block, *self.round)


def at_round(value: JsonValue, round_number: int) -> JsonValue:
    """A value with every `{by_round: [...]}` replaced by its entry; the last entry holds for later rounds."""
    if isinstance(value, dict):
        entries = value.get("by_round")
        if len(value) == 1 and isinstance(entries, list) and entries:
            return entries[min(round_number, len(entries) - 1)]
        return {key: at_round(item, round_number) for key, item in value.items()}
    if isinstance(value, list):
        return [at_round(item, round_number) for item in value]
    return value


def _settled(step: RawStep, precision: Precision) -> RawStep:
    sampler = step.get("sampler")
    if not isinstance(sampler, dict) or sampler.get("precision") != "auto":
        return step
    return {**step, "sampler": {**sampler, "precision": precision}}


def main_field(settings: type[Config] | None) -> str | None:
    """The field of a configuration that a plain string sets."""
    return settings.main if settings is not None else None


NESTED_MAIN: Mapping[str, str] = {
    "judge": "type",
    "sampler": "type",
    "design": "type",
    "objective": "name",
    "lora": "r",
    "model": "path",
    "gate": "require",
}
"""Where a plain value below a step or at the top stands for one field of a mapping."""

DISCRIMINATORS = ("type", "name", "rule")
"""Fields that choose between alternatives: when one changes, the other fields of the old one are dropped."""

KINDS_OF_FIT = ("fitted", "length_ratio")
"""Keys that say how a number is found: another one takes the place of the old one and of what belonged to it."""

SAME_NUMBER = ((GAMMA, RATIO), (RATIO, GAMMA), ("warmup", "warmup_steps"), ("warmup_steps", "warmup"))
"""Keys that say one number in two ways: the one takes the place of the other."""

REPLACED_WHOLE = frozenset({"references", "reads"})
"""Mappings that are one decision: a change names all of it."""


def merge(base: Any, change: Any) -> Any:
    """A recipe value overlaid with a change: mappings are merged by key, everything else is replaced."""
    if not (is_mapping(base) and is_mapping(change)):
        return change
    switched = any(key in base and key in change and base[key] != change[key] for key in DISCRIMINATORS) or any(
        old in base and new in change and old != new for old, new in product(KINDS_OF_FIT, repeat=2)
    )
    kept = {"type": base["type"]} if "type" in base and "rule" in change else {}
    said_anew = {other for key, other in SAME_NUMBER if key in change}
    merged = {key: value for key, value in (kept if switched else base).items() if key not in said_anew}
    for key, value in change.items():
        merged[key] = value if key in REPLACED_WHOLE else merge(merged.get(key), value)
    return merged


def spelled_out(value: Any, own_main: str | None = None, below: str | None = None) -> Any:
    """Plain values written as the mapping that they stand for, at every known place.

    Args:
        value: of a recipe, or of a part of it.
        own_main: the field that a plain value stands for.
        below: the key of the mapping; the `model` of a judge is a plain name, that of a recipe a mapping.
    """
    if not is_mapping(value):
        if own_main is None or value is None:
            return value
        return {own_main: spelled_out(value, NESTED_MAIN.get(own_main))}
    mains = {key: main for key, main in NESTED_MAIN.items() if below is None or key != "model"}
    return {key: spelled_out(item, mains.get(key), key) for key, item in value.items()}

"""What a call of `train` says, sorted by the step that it is for."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prefloop.api.trl_names import TRL_NAMES, option_names
from prefloop.config import MachineConfig, SampleStep, TrainStep
from prefloop.errors import RecipeError, did_you_mean
from prefloop.objectives import Objective, objectives
from prefloop.pairing.registry import Rule

Raw = dict[str, Any]

NOT_SAID = {"type", "objective", "start", "references", "reads", "ensemble"}
"""Fields of a train step that the call itself decides."""
CALL = ("model", "tokenizer", "data", "objective", "reference", "eval_data", "judge", "rule", "run", "seed", "device")
"""Arguments of `train` that are no setting."""


@dataclass
class Settings:
    """Settings by the part of a recipe that they belong to."""

    call: Raw = field(default_factory=Raw)
    """Arguments of the call itself that came under TRL's names."""
    policy: Raw = field(default_factory=Raw)
    objective: Raw = field(default_factory=Raw)
    samples: Raw = field(default_factory=Raw)
    pairs: Raw = field(default_factory=Raw)
    machine: Raw = field(default_factory=Raw)
    batch: Raw = field(default_factory=Raw)
    none: Raw = field(default_factory=Raw)

    def put(self, place: str, value: Any, name: str) -> None:
        """Puts a value where it belongs.

        Raises:
            RecipeError: something else was put there under another name.
        """
        part, _, key = place.partition(".")
        values: Raw = vars(self)[part]
        if key and key in values:
            raise RecipeError(f"train: {name} and another argument both say {key}. Keep one of them.")
        if key:
            values[key] = value


def from_trl(arguments: Mapping[str, Any]) -> tuple[Settings, Raw]:
    """TRL's names in our places, and the arguments that are not in the table.

    Raises:
        RecipeError: a value has no equal here.
    """
    settings, others = Settings(), dict[str, Any]()
    for name, value in arguments.items():
        if (known := TRL_NAMES.get(name)) is None:
            others[name] = value
            continue
        try:
            settings.put(known.place, known.value(value), name)
        except ValueError as error:
            raise RecipeError(f"train: {name} is {value!r}, but it {error} ({known.effect}).") from None
    if settings.batch:
        examples = settings.batch.get("examples", 8) * settings.batch.get("times", 1)  # 8 is TRL's
        settings.put("policy.batch_size", examples, "per_device_train_batch_size")
    return settings, others


def sort(settings: Settings, others: Mapping[str, Any], objective: Objective, rule: Rule, *, online: bool) -> None:
    """Puts what is not TRL's alone where it belongs: train step, objective, sampling, the rule, machine.

    Raises:
        RecipeError: a name means nothing here; the nearest that does is said.
    """
    trl_options = option_names(objective)
    places: Mapping[str, Callable[[str], str | None]] = {
        "policy": _in(set(TrainStep.model_fields) - NOT_SAID),
        "objective": lambda name: name if name in objective.options.model_fields else trl_options.get(name),
        "samples": _in(set(SampleStep.model_fields) - {"type", "policy", "reads"} if online else ()),
        "pairs": _in((*rule.options.model_fields, "finished_only") if online else ()),
        "machine": _in(MachineConfig.model_fields),
    }
    for name, value in others.items():
        found = next(((part, ours) for part, place in places.items() if (ours := place(name)) is not None), None)
        if found is None:
            fields = {*TrainStep.model_fields} - NOT_SAID
            known = {*fields, *objective.options.model_fields, *trl_options, *TRL_NAMES, *MachineConfig.model_fields}
            known |= {*CALL, *(SampleStep.model_fields if online else ())}
            raise RecipeError(
                f"train: {name} means nothing here, with objective {objective.name}. {_hint(name, objective, known)}"
                "docs/python.md lists what does."
            )
        settings.put(".".join(found), value, name)


def _hint(name: str, objective: Objective, known: Iterable[str]) -> str:
    """Which objectives have such an option; else the nearest name, if one is near."""
    owners = [one.name for one in objectives().values() if name in (*one.options.model_fields, *option_names(one))]
    if owners:
        akin = sorted(owners, key=lambda owner: (objective.name not in owner, owner))
        return f"It is an option of {', '.join(akin[:5])}. "
    sentence = did_you_mean(name, known)
    return f"{sentence.partition('?')[0]}? " if sentence.startswith("Did you mean") else ""


def _in(known: Iterable[str]) -> Callable[[str], str | None]:
    names = set(known)
    return lambda name: name if name in names else None

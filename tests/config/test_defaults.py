"""Defaults are part of what old results mean: identities leave them out."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from prefloop.config import Config, TrainStep
from prefloop.objectives import objectives
from prefloop.pairing import rules

KNOWN = Path(__file__).with_name("defaults.json")


def written(base: type[Config] = Config) -> Iterator[type[Config]]:
    """Configuration classes that stand in a file."""
    for kind in base.__subclasses__():
        if kind.__module__.startswith("prefloop.config.") and not kind.__name__.startswith("_"):
            yield kind
            yield from written(kind)


def defaults_of(kind: type[Config]) -> dict[str, Any]:
    return {
        name: TypeAdapter(Any).dump_python(field.get_default(call_default_factory=True), mode="json")
        for name, field in kind.model_fields.items()
        if not field.is_required()
    }


def all_defaults() -> dict[str, dict[str, Any]]:
    named = {kind.__name__: kind for kind in written()}
    named |= {name: found.options for name, found in {**objectives(), **rules()}.items()}
    return {name: defaults_of(kind) for name, kind in named.items() if defaults_of(kind)}


def test_no_default_changes_unsaid() -> None:
    """A changed default gives older results a wrong name: raise the step type's `format`, then write the file anew.

    python tests/config/test_defaults.py
    """
    assert all_defaults() == json.loads(KNOWN.read_text(encoding="utf-8"))


def test_a_setting_that_a_later_version_adds_changes_no_identity() -> None:
    class Later(TrainStep):
        new: int = 3

    recipe = {"type": "train", "objective": {"name": "dpo"}, "batch_size": 8, "epochs": 1}
    now, later = TrainStep.model_validate(recipe), Later.model_validate(recipe)

    assert later.told() != now.told()
    assert later.said() == now.said() == {"type": "train", "objective": {"name": "dpo"}, "batch_size": 8}
    assert later.model_copy(update={"new": 4}).said() != now.said()


if __name__ == "__main__":
    KNOWN.write_text(json.dumps(all_defaults(), indent=1, sort_keys=True) + "\n", encoding="utf-8")

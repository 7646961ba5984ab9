"""Every value of a recipe that holds, defaults included, and where each comes from. Never imports torch."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, TypeAdapter

from prefloop.config.base import Config, is_mapping
from prefloop.config.load import SET, TOP_LEVEL, Composition
from prefloop.config.margin import GAMMA, RATIO
from prefloop.config.recipe import SAME_NUMBER, Recipe
from prefloop.config.steps import STEP_CLASSES
from prefloop.config.suite import loop_defaults, suite_defaults

DEFAULT = "default"
"""Where a value comes from that nobody gave."""
HEADS = frozenset({"name", "paper", "title"})
"""Keys that only say what a recipe is called."""
WIDEST = 60
"""Column at which comments stand at the latest, where lines allow it."""

OptionsOf = Callable[[str, str], type[Config] | None]
"""The options of a rule or an objective: takes `rule` or `objective`, and its name."""
Keys = tuple[str, ...]


@dataclass(frozen=True)
class Sourced:
    """A recipe with all values written out."""

    values: Mapping[str, Any]
    origins: Mapping[str, str]
    """`a.b.c` -> a recipe file, `--set`, `as STEP` and `suite NAME` for what an evaluation takes
    from the loop and its suite, or `default`."""


@dataclass(frozen=True)
class Difference:
    """A key in which two recipes differ; None where one of them does not have it."""

    key: str
    a: Any
    b: Any
    a_from: str | None
    b_from: str | None


def sourced(recipe: Composition, options_of: OptionsOf) -> Sourced:
    """A recipe with every default written out, and where each value comes from.

    Args:
        recipe: the recipe; evaluations are shown as they are written, not as the steps that they become.
        options_of: finds the defaults of what stands in a registry.
    """
    raw = recipe.raw
    values = {name: raw.get(name, _default(Recipe, name)) for name in _ordered_top(raw)}
    values = {name: _filled(value, Recipe.model_fields[name].annotation) for name, value in values.items()}
    steps = {name: value for name, value in raw.items() if name not in TOP_LEVEL}
    evaluations = [name for name, value in steps.items() if value["type"] == "evaluate"]
    origins = dict(_given(recipe))
    for name in evaluations:
        suite = {key: value for key, value in suite_defaults(steps[name]).items() if key not in steps[name]}
        origins |= {
            inner: f"suite {steps[name]['suite']}" for key in suite for inner, _ in leaves(suite[key], (name, key))
        }
        steps[name] = {**steps[name], **suite}
        taken = {key: found for key, found in loop_defaults(raw, name).items() if key not in steps[name]}
        steps[name] = {**steps[name], **{key: value for key, (_, value) in taken.items()}}
        for key, (step, value) in taken.items():
            origins |= {inner: f"as {step}" for inner, _ in leaves(value, (name, key))}
    tree = {**values, **{name: _step(value, options_of) for name, value in steps.items()}}
    return Sourced(tree, {key: origins.get(key, DEFAULT) for key, _ in leaves(tree)})


def differences(a: Sourced, b: Sourced) -> tuple[Difference, ...]:
    """Where two recipes differ; what they are called counts only where nothing else differs."""
    ours, theirs = dict(leaves(a.values)), dict(leaves(b.values))
    found = [
        Difference(key, ours.get(key), theirs.get(key), a.origins.get(key), b.origins.get(key))
        for key in dict.fromkeys((*ours, *theirs))
        if ours.get(key, _ABSENT) != theirs.get(key, _ABSENT)
    ]
    return tuple([one for one in found if one.key not in HEADS] or found)


def as_yaml(recipe: Sourced) -> str:
    """A recipe as YAML that can be run, with the origin of each value behind it."""
    lines = list(_lines(recipe.values, recipe.origins, ()))
    column = max((len(text) for text, _ in lines if len(text) <= WIDEST), default=0)
    return "".join(f"{text:<{column}}  # {origin}\n" if origin else f"{text}\n" for text, origin in lines)


def leaves(value: Any, path: Keys = ()) -> Iterator[tuple[str, Any]]:
    """The values of a recipe by their keys; a list, an empty mapping and `{by_round: ...}` are one value."""
    if is_mapping(value) and value and "by_round" not in value:
        for key, inner in value.items():
            yield from leaves(inner, (*path, str(key)))
    else:
        yield ".".join(path), value


_ABSENT = object()


def _given(recipe: Composition) -> Iterator[tuple[str, str]]:
    """Which layer gave each value; the last one counts."""
    for layer in recipe.layers:
        where = layer.where if layer.where == SET else Path(layer.where.removeprefix("recipe ")).name
        for key, _ in leaves(layer.value):
            yield key, where
            if key.endswith(f".{RATIO}"):
                yield key.removesuffix(RATIO) + GAMMA, where


def _ordered_top(raw: Mapping[str, Any]) -> list[str]:
    return [name for name in Recipe.model_fields if name in TOP_LEVEL and (name in raw or _has_default(Recipe, name))]


def _step(raw: Mapping[str, Any], options_of: OptionsOf) -> Mapping[str, Any]:
    """A step with its defaults, and those of its rule or objective."""
    kind = STEP_CLASSES[raw["type"]]
    own = {key: value for key, value in raw.items() if key in kind.model_fields}
    beside = {key: value for key, value in raw.items() if key not in kind.model_fields}
    filled = {**_filled(own, kind), **beside}
    if "rule" in kind.model_fields and isinstance(filled.get("rule"), str):
        filled = {**filled, **_option_defaults(options_of("rule", filled["rule"]), filled)}
    objective = filled.get("objective")
    if is_mapping(objective) and isinstance(objective.get("name"), str):
        defaults = _option_defaults(options_of("objective", objective["name"]), objective)
        filled = {**filled, "objective": {**objective, **defaults}}
    return filled


def _option_defaults(options: type[Config] | None, given: Mapping[str, Any]) -> dict[str, Any]:
    names = () if options is None else options.model_fields
    return {
        name: _default(options, name)
        for name in names
        if options is not None and name not in given and _has_default(options, name)
    }


def _filled(value: Any, kind: Any) -> Any:
    """A value with the defaults of the configuration class that it is of."""
    if not is_mapping(value) or "by_round" in value:
        return value
    config = _class_of(value, kind)
    if config is None:
        return value
    said_otherwise = {other for key, other in SAME_NUMBER if value.get(key) is not None}
    names = [*value, *(name for name in config.model_fields if name not in {*value, *said_otherwise})]
    return {
        name: _filled(value[name] if name in value else _default(config, name), _annotation(config, name))
        for name in names
        if name != "options" and (name in value or _has_default(config, name))
    }


def _class_of(value: Mapping[str, Any], kind: Any) -> type[Config] | None:
    """Which configuration class of a type a mapping is of: the only one, or the one that its `type` names."""
    found = list(_classes(kind))
    tagged = [cls for cls in found if value.get("type") in get_args(_annotation(cls, "type"))]
    return (tagged or found)[0] if len(found) == 1 or tagged else None


def _classes(kind: Any) -> Iterator[type[Config]]:
    if isinstance(kind, type) and issubclass(kind, Config):
        yield kind
    for part in get_args(kind):
        yield from _classes(part)


def _annotation(config: type[Config], name: str) -> Any:
    field = config.model_fields.get(name)
    return None if field is None else field.annotation


def _has_default(config: type[Config], name: str) -> bool:
    return not config.model_fields[name].is_required()


def _default(config: type[Config], name: str) -> Any:
    field = config.model_fields[name]
    if field.is_required():
        return None
    value = field.get_default(call_default_factory=True, validated_data={})
    return (
        value.model_dump(mode="json")
        if isinstance(value, BaseModel)
        else TypeAdapter(Any).dump_python(value, mode="json")
    )


def _lines(value: Any, origins: Mapping[str, str], path: Keys) -> Iterator[tuple[str, str | None]]:
    """Lines of YAML with the origin of the value in each; None for a line that only opens a mapping."""
    for name, inner in value.items():
        here = (*path, str(name))
        indent = "  " * len(path)
        if is_mapping(inner) and inner and "by_round" not in inner:
            yield f"{indent}{name}:", None
            yield from _lines(inner, origins, here)
        else:
            yield f"{indent}{name}: {_inline(inner)}", origins[".".join(here)]


def _inline(value: Any) -> str:
    """A value on one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6, sort_keys=False)
    return text.removesuffix("...\n").strip()

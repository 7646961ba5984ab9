"""From a recipe file or a shipped name to a checked recipe; every mistake is one line that says where."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import reduce
from importlib.resources import files
from pathlib import Path
from typing import Any, cast, get_args, get_origin

import yaml
from pydantic import ValidationError

from prefloop.config.base import Config, is_mapping
from prefloop.config.margin import in_units_of_reward
from prefloop.config.recipe import Recipe, main_field, merge, spelled_out
from prefloop.config.spoken import numbers, setting
from prefloop.config.steps import STEP_CLASSES
from prefloop.config.suite import expand_evaluations
from prefloop.config.tokens import expand_training
from prefloop.errors import RecipeError, did_you_mean

Raw = dict[str, Any]
SET = "--set"
"""Where a value comes from that the command line gave."""
TOP_LEVEL = frozenset(Recipe.model_fields) - {"steps"}


@dataclass(frozen=True)
class Layer:
    """What one file, or one `--set`, says."""

    where: str
    value: Raw
    """With plain values spelled out, in our words; without `extends`."""
    notes: tuple[str, ...] = ()
    """What was translated, to be said aloud."""


@dataclass(frozen=True)
class Composition:
    """A recipe before its values are checked."""

    raw: Raw
    where: str
    layers: tuple[Layer, ...]
    """What it was put together from, the most general file first."""
    notes: tuple[str, ...]
    """What was translated, to be said aloud."""


@dataclass(frozen=True)
class LoadedRecipe:
    """A checked recipe, and what is needed to talk about it."""

    recipe: Recipe
    raw: Raw
    """Resolved, before evaluations are expanded: what is saved with a run and can be run again."""
    where: str
    """How messages call it."""
    notes: tuple[str, ...]
    """What was translated or left out, to be said aloud."""


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package, twins included."""
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in files("prefloop.recipes").iterdir()
        if entry.name.endswith(".yaml")
    )


def load_recipe(spec: str, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Reads, extends, overrides and checks a recipe.

    Args:
        spec: a file, or the name of a shipped recipe.
        overrides: `a.b=c` each, the value in YAML.

    Raises:
        RecipeError: anything is wrong; nothing has been loaded or written.
    """
    made = compose_recipe(spec, overrides)
    notes = list(made.notes)
    recipe = _validated(expand_training(expand_evaluations(made.raw, notes)), made.where)
    return LoadedRecipe(recipe=recipe, raw=made.raw, where=made.where, notes=tuple(notes))


def recipe_of(raw: Raw, where: str) -> LoadedRecipe:
    """A recipe that the program itself wrote, step by step; checked like any other.

    Raises:
        RecipeError: a value in it is wrong.
    """
    checked = _checked_steps(spelled_out(raw), where)
    return LoadedRecipe(recipe=_validated(checked, where), raw=checked, where=where, notes=())


def compose_recipe(spec: str, overrides: Sequence[str] = ()) -> Composition:
    """A recipe put together from its files and overrides; its keys are checked, its values are not.

    Raises:
        RecipeError: a key is none, or a step has no known type.
    """
    layers = recipe_layers(spec)
    told, where = _overlaid(layers), layers[-1].where
    raw = told
    for override in overrides:
        layer = _layer(where, _override(override, raw), raw, says=SET)
        layers, raw = (*layers, layer), _merged(raw, layer.value)
    said = {key for layer in layers if layer.where == SET for key in layer.value}
    raw = _without_unlisted(raw, told, said)
    notes = [note for layer in layers for note in layer.notes]
    raw = in_units_of_reward(_checked_steps(raw, where), where, notes)
    return Composition(raw, where, layers, tuple(notes))


def recipe_layers(spec: str, seen: tuple[str, ...] = ()) -> tuple[Layer, ...]:
    """A recipe file and all that it extends, the most general first, before anything is checked.

    Raises:
        RecipeError: there is no such recipe, it is no mapping, or it extends itself.
    """
    raw, where = _read(spec)
    if where in seen:
        raise RecipeError(f"{seen[-1]}: extends itself: {' -> '.join((*seen, where))}.")
    parent_name = raw.pop("extends", None)
    if parent_name is None:
        return (_layer(where, spelled_out(raw), {}),)
    parents = recipe_layers(str(parent_name), (*seen, where))
    base = _overlaid(parents)
    change = {key: spelled_out(spelled_out({key: value})[key], _own_main(base, key)) for key, value in raw.items()}
    return (*parents, _layer(where, change, base))


def _layer(where: str, change: Raw, base: Raw, *, says: str | None = None) -> Layer:
    """A change in our words; what a step's words mean depends on its type, which may stand in what it changes."""
    notes: list[str] = []
    types = {key: merge(base.get(key), value).get("type") for key, value in change.items() if is_mapping(value)}
    steps = {
        key: _translated(change[key], STEP_CLASSES[kind], key, where, notes)
        for key, kind in types.items()
        if kind in {*STEP_CLASSES}
    }
    return Layer(where if says is None else says, {**change, **steps}, tuple(notes))


def _overlaid(layers: Sequence[Layer]) -> Raw:
    return reduce(_over, layers, Raw())


def _over(raw: Raw, layer: Layer) -> Raw:
    """A recipe with a layer on top, without what was said of steps that the layer no longer lists."""
    return _without_unlisted(_merged(raw, layer.value), raw, layer.value)


def _merged(raw: Raw, change: Raw) -> Raw:
    """A recipe's name is the last one's, never merged."""
    return {**raw, **merge({key: value for key, value in raw.items() if key != "name"}, change)}


def _without_unlisted(raw: Raw, before: Raw, said: Collection[str]) -> Raw:
    """A recipe without the steps that were listed before and are no longer, unless something is said of them anew."""
    gone = {*_listed(before)} - {*_listed(raw)} - {*said}
    return {key: value for key, value in raw.items() if key not in gone}


def _listed(raw: Raw) -> list[str]:
    """Names of steps; what is no list is reported where its values are checked."""
    lists = [raw.get(group) for group in ("setup", "block", "round")]
    return [name for names in lists if isinstance(names, list) for name in cast("list[Any]", names)]


def _own_main(raw: Raw, key: str) -> str | None:
    """The field that a plain value of a step sets."""
    step = raw.get(key)
    return main_field(STEP_CLASSES.get(step.get("type", ""))) if is_mapping(step) else None


def _read(spec: str) -> tuple[Raw, str]:
    path = Path(spec)
    if path.is_file():
        where = spec
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise RecipeError(f"{spec}: not UTF-8 text at byte {error.start}. Is this a recipe?") from error
        stem = path.name.removesuffix(".yaml").removesuffix(".yml")
    elif spec in shipped_recipes():
        text, where, stem = (
            (files("prefloop.recipes") / f"{spec}.yaml").read_text(encoding="utf-8"),
            f"recipe {spec}",
            spec,
        )
    else:
        raise RecipeError(
            f"{spec}: no such recipe file, and no shipped recipe has this name. "
            f"{did_you_mean(spec, shipped_recipes(), 'prefloop recipes list')}"
        )
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{where}: not YAML: {' '.join(str(error).split())}") from error
    if not is_mapping(raw):
        raise RecipeError(
            f"{where}: found {type(raw).__name__}, expected a mapping of recipe keys such as `extends: loop`."
        )
    return {"name": stem, **raw}, where


def _override(text: str, raw: Raw) -> Raw:
    ((key, value),) = setting(text, example="policy.learning_rate=1e-5").items()
    return {key: spelled_out(spelled_out({key: value})[key], _own_main(raw, key))}


def _checked_steps(raw: Raw, where: str) -> Raw:
    """Every key is a recipe key or a step, and every step has a known type."""
    listed = [name for group in ("setup", "block", "round") for name in _names(raw, group, where)]
    for name in listed:
        if listed.count(name) > 1 or name == "summary":
            why = "every round ends with one already" if name == "summary" else "it is listed twice"
            raise RecipeError(f"{where}: step '{name}': {why}. Give each step a name of its own.")
    checked: Raw = {}
    for key, value in raw.items():
        if key in TOP_LEVEL:
            checked[key] = numbers(value)
            continue
        if key not in listed:
            known = {*TOP_LEVEL, *listed, "extends"}
            raise RecipeError(
                f"{where}: '{key}' is neither a recipe key nor a step of this recipe. {did_you_mean(key, known)}"
            )
        if not is_mapping(value):
            raise RecipeError(f"{where}: {key}: found {value!r}, expected the settings of a step, with its `type`.")
        if value.get("type") not in (*STEP_CLASSES,):
            found = f"type is '{value['type']}'" if "type" in value else "it has no `type`"
            raise RecipeError(f"{where}: {key}: {found}. {did_you_mean(str(value.get('type', '')), STEP_CLASSES)}")
        checked[key] = numbers(value)
    for name in listed:
        if name not in checked:
            raise RecipeError(f"{where}: step '{name}' is listed but has no settings. Add `{name}: {{type: ...}}`.")
    return checked


def _names(raw: Raw, group: str, where: str) -> list[str]:
    names = raw.get(group, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in cast("list[Any]", names)):
        raise RecipeError(f"{where}: {group}: found {names!r}, expected a list of step names.")
    return cast("list[str]", names)


def _translated(step: Raw, kind: type[Config], name: str, where: str, notes: list[str]) -> Raw:
    translated: Raw = {}
    for key, value in step.items():
        ours = kind.aliases.get(key, key)
        if ours in translated or (ours != key and ours in step):
            raise RecipeError(f"{where}: {name}.{key} and {name}.{ours} are the same setting. Keep one of them.")
        values = kind.alias_values.get(key)
        if values is not None:
            if value not in (*values,):
                known = did_you_mean(str(value), values)
                raise RecipeError(f"{where}: {name}.{key} is '{value}', which has no equal here. {known}")
            notes.append(f"{name}.{key}: {value} is read as {name}.{ours}: {values[value]}")
            translated[ours] = values[value]
            continue
        if ours != key:
            notes.append(f"{name}.{key} is read as {name}.{ours}")
        translated[ours] = value
    return translated


def _validated(full: Raw, where: str) -> Recipe:
    top = {key: value for key, value in full.items() if key in TOP_LEVEL}
    steps = {key: value for key, value in full.items() if key not in TOP_LEVEL}
    if "model" not in top:
        raise RecipeError(f"{where}: `model` is missing. Give a directory, builtin:NAME or org/name@revision.")
    if "block" not in top:
        raise RecipeError(
            f"{where}: it has no `block`. Start it with `extends: loop` or `extends: offline`, or list its steps."
        )
    steps["summary"] = {"type": "close", "gate": top.get("gate", {}), "monitors": top.get("monitors", {})}
    top["round"] = [*top.get("round", ()), "summary"]
    try:
        recipe = Recipe.model_validate({**top, "steps": steps})
    except ValidationError as error:
        raise RecipeError(f"{where}: {_first(error, '', Recipe)}") from error
    for number in range(recipe.rounds):
        for name in steps:
            try:
                recipe.step(name, number)
            except ValidationError as error:
                raise RecipeError(f"{where}: {_first(error, name, STEP_CLASSES[steps[name]['type']])}") from error
    return recipe


_SECRET = {
    "key": "expected the name of an environment variable, in capitals, that holds the key; no recipe holds keys.",
    "url": "expected http or https, a host, a port and a path, such as http://localhost:8000/v1, without a password.",
}
"""What is said of settings where a secret may stand by mistake, which is then not repeated."""


def _first(error: ValidationError, prefix: str, kind: type[Config]) -> str:
    """The first problem of a validation error as "key: what is wrong, found ...", with a hint for unknown keys."""
    found = error.errors()[0]
    path = [str(part) for part in found["loc"]]
    unknown = [path.pop()] if found["type"] == "extra_forbidden" else []
    keys, fields = _followed(kind, path)
    shown = ".".join(part for part in (prefix, *keys, *unknown) if part)
    if unknown:
        return f"{shown} is not a setting. {did_you_mean(unknown[0], fields)}"
    if found["type"] == "missing":
        return f"{shown} is missing and has no default."
    if found["type"] == "union_tag_invalid":
        context = found.get("ctx", {})
        tag, expected = str(context["tag"]), str(context["expected_tags"]).replace("'", "").split(", ")
        return f"{shown}.type is '{tag}'. {did_you_mean(tag, expected)}"
    if found["type"] == "value_error" and is_mapping(found["input"]):  # of several fields together
        return f"{shown}: {found['msg'].removeprefix('Value error, ')}"
    if keys and keys[-1] in _SECRET:
        return f"{shown}: {_SECRET[keys[-1]]}"
    return f"{shown}: {found['msg']}, found {found['input']!r}."


def _followed(kind: Any, path: Sequence[str]) -> tuple[list[str], list[str]]:
    """The keys of pydantic's path as the user wrote them, and the fields that are known where it leads.

    In the path also stands which alternative was tried ("judge", "vader", "bias"), which nobody wrote.
    """
    keys: list[str] = []
    for part in path:
        classes = _classes(kind)
        inner = [cls.model_fields[part].annotation for cls in classes if part in cls.model_fields]
        if inner:
            keys.append(part)
            kind = inner[0]
        elif get_origin(kind) is dict:
            keys.append(part)
            kind = get_args(kind)[1]
        else:
            kind = next((cls for cls in classes if part in _tags(cls)), kind)
    return keys, [name for cls in _classes(kind) for name in cls.model_fields]


def _classes(kind: Any) -> list[type[Config]]:
    """The configuration classes in a type: itself, or the alternatives inside its unions and annotations."""
    inside = [found for part in get_args(kind) for found in _classes(part)]
    return [kind, *inside] if isinstance(kind, type) and issubclass(kind, Config) else inside


def _tags(cls: type[Config]) -> tuple[str, ...]:
    return get_args(cls.model_fields["type"].annotation) if "type" in cls.model_fields else ()

"""The JSON Schema of a recipe file as people write it: partial, with plain values and names of other tools.

Draft 7, the one that editors know. It is made from the configuration classes and the options of rules and objectives,
and written by `scripts/recipe_schema.py`.
"""

from collections.abc import Iterable, Mapping
from typing import Any, cast

from prefloop.config.base import Config, is_mapping
from prefloop.config.load import TOP_LEVEL, recipe_layers, shipped_recipes
from prefloop.config.margin import GAMMA, RATIO, WITH_MARGIN
from prefloop.config.recipe import NESTED_MAIN, Recipe
from prefloop.config.steps import STEP_CLASSES

Schema = dict[str, Any]
DRAFT = "http://json-schema.org/draft-07/schema#"
OF_USERS = tuple(name for name in STEP_CLASSES if name not in {"close", "tokens"})
"""Types of step that a recipe lists; `close` ends every round, and `tokens` precedes training, by themselves."""


def recipe_schema(rules: Mapping[str, type[Config]], objectives: Mapping[str, type[Config]]) -> Schema:
    """The schema of recipe files.

    Args:
        rules: options of every rule, by name.
        objectives: options of every objective, by name and by alias.
    """
    made = _Definitions()
    for name, cls in STEP_CLASSES.items():
        if name in OF_USERS:
            made.add_step(name, cls)
    made.add_choice("objective", "name", objectives)
    made.add_choice("pair", "rule", rules)
    top = {name: made.value(name, part) for name, part in made.properties(Recipe).items() if name in TOP_LEVEL}
    extends = {
        "type": "string",
        "description": "A shipped recipe or a file whose values hold where this one says nothing.",
        "examples": shipped_recipes(),
    }
    made.definitions["step"] = {
        "if": {"type": "object", "required": ["type"]},
        "then": {
            "properties": {"type": {"enum": list(OF_USERS)}},
            "allOf": [_when("type", name, _ref(name)) for name in OF_USERS],
        },
        "else": {"anyOf": [_ref(name) for name in OF_USERS]},
    }
    return {
        "$schema": DRAFT,
        "title": "prefloop recipe",
        "description": "What a run of prefloop computes; only what differs from the recipe that it extends.",
        "type": "object",
        "properties": {"extends": extends, **top, **_known_steps(), "steps": False, "summary": False},
        "additionalProperties": _ref("step"),
        "if": {"required": ["extends"]},
        "else": {"required": ["model", "block"]},
        "definitions": made.definitions,
    }


class _Definitions:
    """Configuration classes as definitions that leave out what is inherited, with plain values for main fields."""

    def __init__(self) -> None:
        self.definitions: dict[str, Schema] = {}

    def properties(self, cls: type[Config]) -> dict[str, Schema]:
        """The fields of a class; the classes in them become definitions."""
        schema = cls.model_json_schema(ref_template="#/definitions/{model}")
        for name, inner in schema.pop("$defs", {}).items():
            if name not in self.definitions:
                is_class = "properties" in inner
                self.definitions[name] = self._mapping(inner) if is_class else _plain_schema(inner)
        return schema["properties"]

    def add_step(self, name: str, cls: type[Config]) -> None:
        """A type of step: each field may be given by round, and under the names of other tools."""
        own = self.properties(cls)
        fields = {key: self.value(key, part) for key, part in own.items() if key != "options"}
        by_round = {key: part if key in {"type", "reads"} else _or_by_round(part) for key, part in fields.items()}
        also = {other: by_round[ours] for other, ours in cls.aliases.items() if other not in cls.alias_values}
        also |= {other: {"enum": list(values)} for other, values in cls.alias_values.items()}
        mapping = {"type": "object", "properties": {**by_round, **also}, "additionalProperties": False}
        self.definitions[name] = _described(_or_plain(mapping, fields, cls.main), cls.__doc__)

    def add_choice(self, name: str, key: str, choices: Mapping[str, type[Config]]) -> None:
        """A mapping whose `key` names an entry of a registry, with that entry's options beside it."""
        step = self.definitions.get(name, {})
        common: Mapping[str, Any] = {}
        if step:
            (mapping, *_) = step["anyOf"]
            common = {field: part for field, part in mapping["properties"].items() if field != key}
        names: Schema = {"enum": sorted(choices)}
        options = {choice: self._options(cls) for choice, cls in choices.items()}
        wrap = _or_by_round if step else _as_it_is
        every = {field: wrap(part) for field, part in _of_any(options.values()).items()}

        def mapping_of(named: Schema, fields: Mapping[str, Any]) -> Schema:
            return {"properties": {key: named, **common, **fields}, "additionalProperties": False}

        chosen = [
            _when(key, choice, mapping_of({"const": choice}, {field: wrap(part) for field, part in own.items()}))
            for choice, own in options.items()
        ]
        unnamed = {"if": {"not": {"required": [key]}}, "then": mapping_of(names, every)}
        mapping: Schema = {"type": "object", "properties": {key: names}, "allOf": [*chosen, unnamed]}
        self.definitions[name] = {**step, "anyOf": [mapping, names]}

    def value(self, key: str, part: Schema) -> Schema:
        """A field as it may be written: where a plain value stands for a mapping, either."""
        if key == "objective":
            return _ref("objective")
        part = _plain_schema(part)
        main = NESTED_MAIN.get(key)
        if main is None:
            return part
        inner = [self.definitions[name]["properties"][main] for name in _refs(part)]
        return {"anyOf": [part, *inner]} if inner else part

    def _options(self, cls: type[Config]) -> dict[str, Schema]:
        """Options of a rule or an objective; what can be fitted may be `fitted`."""
        options = {
            name: {"anyOf": [part, {"const": "fitted"}]} if "ScaledFit" in _refs(part) else part
            for name, part in ((name, _plain_schema(part)) for name, part in self.properties(cls).items())
        }
        if cls.__name__ in WITH_MARGIN:
            options[RATIO] = {key: value for key, value in options[GAMMA].items() if key != "default"}
        return options

    def _mapping(self, schema: Schema) -> Schema:
        fields = {key: self.value(key, part) for key, part in schema["properties"].items()}
        mapping = {"type": "object", "properties": fields, "additionalProperties": False}
        return _described(mapping, schema.get("description"))


def _of_any(options: Iterable[Mapping[str, Schema]]) -> dict[str, Schema]:
    """Options where the choice is inherited and stands elsewhere: what any choice would take."""
    forms: dict[str, list[Schema]] = {}
    for own in options:
        for field, part in own.items():
            known = forms.setdefault(field, [])
            known += [part] * (part not in known)
    return {field: {"anyOf": known} if len(known) > 1 else known[0] for field, known in forms.items()}


def _known_steps() -> dict[str, Schema]:
    """Steps of the shipped recipes: without a `type` they have the one that they have there."""
    types = {
        key: value["type"]
        for name in shipped_recipes()
        for layer in recipe_layers(name)
        for key, value in layer.value.items()
        if is_mapping(value) and value.get("type") in OF_USERS
    }
    typed = {"type": "object", "required": ["type"]}
    return {name: {"if": typed, "then": _ref("step"), "else": _ref(kind)} for name, kind in sorted(types.items())}


def _plain_schema(part: Any) -> Any:
    """Pydantic's schema without titles, and without what draft 7 does not know or what a partial file may lack."""
    if is_mapping(part):
        kept = {key: _plain_schema(value) for key, value in part.items() if key not in {"title", "discriminator"}}
        if "oneOf" in kept:
            kept["anyOf"] = kept.pop("oneOf")
        if "$ref" in kept and len(kept) > 1:  # in draft 7 nothing beside a reference counts
            kept = {"allOf": [{"$ref": kept.pop("$ref")}], **kept}
        return kept
    return [_plain_schema(value) for value in cast("list[Any]", part)] if isinstance(part, list) else part


def _refs(part: Any) -> list[str]:
    """Names of the definitions that a schema refers to."""
    if is_mapping(part):
        own = [str(part["$ref"]).rpartition("/")[2]] if "$ref" in part else []
        return [*own, *(name for value in part.values() for name in _refs(value))]
    return [name for value in cast("list[Any]", part) for name in _refs(value)] if isinstance(part, list) else []


def _or_by_round(part: Schema) -> Schema:
    entries = {"type": "array", "minItems": 1, "items": part}
    by_round = {
        "type": "object",
        "properties": {"by_round": entries},
        "required": ["by_round"],
        "additionalProperties": False,
    }
    return _described({"anyOf": [part, by_round]}, part.get("description"))


def _as_it_is(part: Schema) -> Schema:
    return part


def _or_plain(mapping: Schema, fields: Mapping[str, Schema], main: str | None) -> Schema:
    return {"anyOf": [mapping, *([fields[main]] if main is not None else [])]}


def _described(schema: Schema, text: str | None) -> Schema:
    return {"description": " ".join(text.split()), **schema} if text else schema


def _when(key: str, value: str, then: Schema) -> Schema:
    return {"if": {"required": [key], "properties": {key: {"const": value}}}, "then": then}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name}"}

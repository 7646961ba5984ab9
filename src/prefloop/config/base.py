"""The base of every configuration class, and options that are read off a function's signature."""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, ClassVar, TypeGuard, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, create_model

from prefloop.errors import RecipeError, did_you_mean


def is_mapping(value: object) -> TypeGuard[dict[str, Any]]:
    """A YAML mapping."""
    return isinstance(value, dict)


class Config(BaseModel):
    """Frozen settings: an unknown key is an error, and the line under a field is its documentation."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    main: ClassVar[str | None] = None
    """The field that a plain string sets."""
    aliases: ClassVar[Mapping[str, str]] = {}
    """Names that other tools use -> ours."""
    alias_values: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    """By such a name: its values -> ours, where they differ as well."""


class ScaledFit(Config):
    """A multiple of the value that is fitted on the round's data."""

    fitted: Annotated[float, Field(gt=0)]
    """Factor on the fitted value: 0.5 is half of it."""


class LengthHeld(Config):
    """The fitted value, corrected after every round so that the policy's own answers keep their length."""

    length_ratio: Annotated[float, Field(gt=0)]
    """Mean tokens of the policy's own answers that is aimed at, as a multiple of the first round's."""
    gain: Annotated[float, Field(gt=0)] = 5.0
    """How strongly a deviation is answered: nats of margin that a pair with a typical gap of lengths gets or loses when
    the answers are e times as long as they should be. Large gains overshoot."""


Options = dict[str, JsonValue]


class _OfSignature(Config):
    """What `options_class` makes: no class body stands in any file, and to look for one takes 20 ms each time."""

    model_config = ConfigDict(use_attribute_docstrings=False)


def options_class(
    function: Callable[..., object], fitted: Collection[str] = (), held: Collection[str] = ()
) -> type[Config]:
    """The keyword-only parameters of a function as a configuration class: names, types, ranges, defaults.

    Args:
        function: whose signature is read; annotations carry the ranges.
        fitted: parameters that may also be `fitted` or `{fitted: factor}`.
        held: those of them that may also be `{length_ratio: target}`.
    """
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            kind = hints[name] | ScaledFit if name in fitted else hints[name]
            kind = kind | LengthHeld if name in held else kind
            fields[name] = (kind, ... if parameter.default is inspect.Parameter.empty else parameter.default)
    return create_model(function.__name__, __base__=_OfSignature, **fields)


def check_options(function_name: str, kind: type[Config], options: Options, where: str) -> Config:
    """Options checked against a class made by `options_class`.

    Raises:
        RecipeError: an option is unknown or out of range; `where` is said first.
    """
    plain = {key: {"fitted": 1.0} if value == "fitted" else value for key, value in options.items()}
    takes = ", ".join(kind.model_fields) or "no options"
    for name in plain:
        if name not in kind.model_fields:
            known = did_you_mean(name, kind.model_fields) if kind.model_fields else "It takes no options."
            raise RecipeError(f"{where}.{name} is not an option of {function_name}. {known}")
    for name, value in plain.items():
        if is_mapping(value) and (forms := _mappings(kind.model_fields[name].annotation)):
            _check_form(value, forms, f"{where}.{name}", options[name])
    try:
        return kind.model_validate(plain)
    except ValidationError as error:
        found = error.errors()[0]
        name = str(found["loc"][0])
        raise RecipeError(
            f"{where}.{name}: {found['msg']}, found {options.get(name)!r}. {function_name} takes {takes}."
        ) from error


def _mappings(annotation: object) -> list[type[Config]]:
    """The mappings that may stand for a number: `{fitted: ...}`, `{length_ratio: ...}`."""
    return [form for form in get_args(annotation) if isinstance(form, type) and issubclass(form, Config)]


def _check_form(value: Mapping[str, Any], forms: Sequence[type[Config]], where: str, found: object) -> None:
    """Checks a mapping against the form that its first key belongs to, so that the error is about what was meant."""
    known = {name: form for form in forms for name in form.model_fields}
    expected = ", ".join("{" + ": ..., ".join(form.model_fields) + ": ...}" for form in forms)
    for name in value:
        if name not in known:
            raise RecipeError(f"{where}.{name} says nothing. {did_you_mean(name, known)} Or a number, or fitted.")
    try:
        known.get(next(iter(value), ""), forms[0]).model_validate(value)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join((where, *map(str, problem["loc"])))
        raise RecipeError(f"{place}: {problem['msg']}, found {found!r}. Expected one of {expected}.") from error

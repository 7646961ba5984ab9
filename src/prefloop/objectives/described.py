"""What an objective's docstring and signature say, in parts."""

import inspect
import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from prefloop.objectives.registry import Objective

SIGNS = {Gt: (">", "gt"), Ge: (">=", "ge"), Lt: ("<", "lt"), Le: ("<=", "le")}
SECTIONS = re.compile(r"^(Limits|Args|Returns|Example):", re.MULTILINE)


@dataclass(frozen=True)
class Parameter:
    """A hyper-parameter."""

    name: str
    meaning: str
    range: str
    """What it may be, in words."""
    default: Any


@dataclass(frozen=True)
class Description:
    """An objective in words."""

    summary: str
    formula: str
    """With the sentences around it, as text."""
    limits: str
    quantities: Mapping[str, str]
    """Name -> what it is, in the words of the formula."""
    parameters: tuple[Parameter, ...]


def described(objective: Objective) -> Description:
    """Takes apart the docstring of an objective, which the contract's tests hold to one form."""
    text = inspect.getdoc(objective.function) or ""
    pieces = SECTIONS.split(text)
    sections = dict(zip(pieces[1::2], pieces[2::2], strict=True))
    summary, _, formula = pieces[0].partition("\n\n")
    meanings = dict(_arguments(sections.get("Args", "")))
    fields = objective.options.model_fields
    parameters = tuple(
        Parameter(
            name,
            meanings.get(name, ""),
            _range(field, fitted=name in objective.fit),
            None if field.is_required() else field.default,
        )
        for name, field in fields.items()
    )
    return Description(
        summary=_joined(summary),
        formula=formula.strip("\n"),
        limits=_joined(sections.get("Limits", "")),
        quantities={quantity.name: meanings.get(quantity.name, "") for quantity in objective.quantities},
        parameters=parameters,
    )


def _arguments(section: str) -> Iterator[tuple[str, str]]:
    """Names and meanings, each with the lines that go on with it."""
    for entry in re.split(r"\n {4}(?=\w+: )", section):
        name, _, meaning = entry.strip().partition(": ")
        yield name, _joined(meaning)


def _joined(text: str) -> str:
    return " ".join(text.split())


def _range(field: FieldInfo, *, fitted: bool) -> str:
    """The values that a hyper-parameter may have."""
    words = [str(choice) for choice in choices(field.annotation)]
    if words:
        several = any(get_origin(part) in {tuple, list} for part in get_args(field.annotation))
        return " or ".join([*words, *(["a list of numbers"] if several else [])])
    bounds = [f"{SIGNS[type(bound)][0]} {getattr(bound, SIGNS[type(bound)][1])}" for bound in _bounds(field)]
    return ", ".join([*bounds, *(["or fitted"] if fitted else [])]) or "any number"


def _bounds(field: FieldInfo) -> Iterator[Gt | Ge | Lt | Le]:
    found = [*field.metadata, *(bound for part in get_args(field.annotation) for bound in _metadata(part))]
    yield from (bound for bound in found if isinstance(bound, Gt | Ge | Lt | Le))


def _metadata(part: Any) -> Iterator[Any]:
    for said in getattr(part, "__metadata__", ()):
        yield from said.metadata if isinstance(said, FieldInfo) else (said,)


def choices(kind: Any) -> Iterator[Any]:
    """The values of a hyper-parameter that is a choice, from its type; none for a number."""
    if kind is bool:
        yield from (False, True)
    elif get_origin(kind) is Literal:
        yield from get_args(kind)
    elif get_origin(kind) in {Union, types.UnionType}:
        for part in get_args(kind):
            yield from choices(part)


def facts(objective: Objective) -> dict[str, Any]:
    """Everything that is known of an objective, as JSON."""
    words = described(objective)
    defaults = {parameter.name: parameter.default for parameter in words.parameters}
    return {
        "name": objective.name,
        "aliases": list(objective.aliases),
        "summary": words.summary,
        "source": objective.source,
        "formula": words.formula,
        "limits": words.limits,
        "quantities": [
            {
                "name": quantity.name,
                "meaning": words.quantities[quantity.name],
                "shape": quantity.shape,
                "unit": quantity.what.unit,
                "computed_by": quantity.model or "data",
                "gradient": quantity.gradient,
            }
            for quantity in objective.quantities
        ],
        "parameters": [
            {
                "name": parameter.name,
                "meaning": parameter.meaning,
                "range": parameter.range,
                "default": parameter.default,
            }
            for parameter in words.parameters
        ],
        "at_reference": None if objective.at_reference is None else objective.at_reference(defaults),
        "couples_batch": objective.couples_batch,
        "state": objective.state is not None,
        "soft_labels": objective.swappable,
        "not_softened": objective.not_softened,
        "exponential": objective.exponential,
        "not_trained": objective.not_trained,
        "elsewhere": [
            {
                "tool": one.tool,
                "name": one.name,
                "parameters": dict(one.parameters),
                "translated": one.translated,
                "note": one.note,
            }
            for one in objective.elsewhere
        ],
    }


def behaviour(objective: Objective) -> list[str]:
    """What training has to know of it, a sentence each."""
    said: list[str] = []
    if objective.at_reference is not None:
        defaults = objective.options().model_dump()
        value = f"{objective.at_reference(defaults):.6g}"
        where = ", in the mean over a step," if objective.couples_batch else ""
        said.append(f"While the policy is its reference, the loss{where} is {value} at the defaults.")
    if objective.couples_batch:
        said.append("Examples depend on each other: a whole optimiser step is computed at once.")
    if objective.state is not None:
        said.append("It keeps running statistics from step to step.")
    if objective.swappable:
        said.append("Labels can be softened (`soft_labels: true`).")
    else:
        said.append(f"Labels cannot be softened: {objective.not_softened}.")
    if objective.exponential is not None:
        said.append(f"It is an exponential: {objective.exponential}.")
    if objective.not_trained is not None:
        said.append(f"It cannot be trained yet: {objective.not_trained}.")
    return said

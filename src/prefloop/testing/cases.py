"""Runs one published case through the product's own functions: a file's names, flags and lists to ours, and back."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any, cast

import torch
from pydantic import BaseModel, ConfigDict, JsonValue
from torch import Tensor

from prefloop.config import Options
from prefloop.errors import DataError
from prefloop.objectives import Objective, State, find_objective, parse_quantity
from prefloop.pairing import find_rule
from prefloop.records import Example, Group, Judgment, Message, Prompt, Response

Fields = dict[str, Any]
"""Result fields of a case, named and nested as the published files have them."""
Flags = Mapping[str, Any]
"""Hyper-parameters and flags of a case, as published."""


class VectorCase(BaseModel):
    """One case; fields beyond these are its expected results."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str
    op: str | None = None
    hyper: Options = {}
    inputs: dict[str, JsonValue]

    @property
    def expected(self) -> Fields:
        """What was published; empty where the case is only to be computed."""
        return dict(self.model_extra or {})


Compute = Callable[[VectorCase, str], Fields]
"""Runs a case, which stands at a place that errors name."""


# ------------------------------------------------------------------------------------------------ files of kind `loss`


@dataclass(frozen=True)
class Switch:
    """Which objective a file's flags mean: two formulas are one file there and two functions here."""

    flags: tuple[str, ...]
    names: Mapping[tuple[Any, ...], str]
    """Values of the flags, in their order -> objective."""
    default: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Values of flags that a case may leave out."""

    def __call__(self, flags: Flags, where: str) -> str:
        """The objective of a case (DataError where no objective is meant)."""
        found = tuple(flags.get(flag, self.default.get(flag)) for flag in self.flags)
        for values, name in self.names.items():
            if found == values:
                return name
        said = " and ".join(f"{flag} = {value!r}" for flag, value in zip(self.flags, found, strict=True))
        known = "; ".join(", ".join(map(str, values)) for values in self.names)
        raise DataError(f"{where}: {said} is not known. Known: {known}.")


def switch(flag: str, names: Mapping[Any, str], *, default: Any = None) -> Switch:
    """A switch on one flag: its value -> objective."""
    return Switch((flag,), {(value,): name for value, name in names.items()}, {flag: default})


@dataclass(frozen=True)
class Run:
    """A case as its objective saw it: what further result fields are computed from."""

    objective: Objective
    flags: Flags
    """As published."""
    hyper: Fields
    """As the objective takes it."""
    inputs: Mapping[str, Any]
    """The quantities by our names: float64 tensors, padded, with gradient; and the state after its update."""
    given: Mapping[str, Any]
    """The published inputs by our names, as the file has them."""

    def __getitem__(self, name: str) -> Tensor:
        """A quantity by our name, without gradient; also one that the objective itself does not read."""
        value = self.inputs[name] if name in self.inputs else _quantity(name, self.given)
        return cast(Tensor, value).detach()

    def values(self, *names: str) -> Iterator[Tensor]:
        """Several of them, in this order."""
        return (self[name] for name in names)

    def rows(self, padded: Tensor, like: str) -> list[Any]:
        """The rows of a padded result, as long as those of a published input."""
        return _unpadded(padded, self.given[like])


Extra = Callable[[Run], Mapping[str, Any]]
Mean = Callable[[Tensor, Run], Tensor]


def by_objective(
    name: str | Switch,
    *,
    hyper: Mapping[str, str | None] | Callable[[Flags], Options] | None = None,
    inputs: Mapping[str, str] | None = None,
    defaults: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
    extra: Extra | None = None,
    mean: Mean | None = None,
) -> Compute:
    """A file of kind `loss`: an objective in float64, its batch mean, and the gradient of that by autograd.

    Lists of unequal length are padded, masks, lengths and means of lengths that the objective needs are derived from
    them, and gradients are cut to the lengths again. An input `weights` that the objective does not read multiplies the
    losses, and an input `state` is updated before the loss and comes out as `state_out`.

    Args:
        name: the objective, or the switch that finds it by a file's flags; these are not passed on.
        hyper: published name -> ours, None where it is not passed on; or a function from all published ones to ours.
        inputs: published name -> ours; names that are not here are equal.
        defaults: further inputs by our names, from those that are given by our names.
        extra: result fields beyond the three, as tensors, numbers or lists.
        mean: the file's mean over examples, where it is not the plain one.
    """

    def compute(case: VectorCase, where: str) -> Fields:
        found = find_objective(name if isinstance(name, str) else name(case.hyper, where), "the vector table")
        passed = _passed(case.hyper, hyper, name.flags if isinstance(name, Switch) else ())
        ours = {(inputs or {}).get(key, key): value for key, value in case.inputs.items()}
        published = {(inputs or {}).get(key, key): key for key in case.inputs}
        if defaults:
            ours = {**defaults(ours), **ours}
        options = found.checked(passed, where).model_dump()
        values = _quantities(found, ours, options, where)
        run = Run(found, case.hyper, options, values, ours)
        losses = found.function(**values, **options)
        if "weights" in ours and "weights" not in values:
            losses = _quantity("weights", ours) * losses
        loss = mean(losses, run) if mean else losses.mean()
        learnt = {q.name: values[q.name] for q in found.quantities if q.gradient}
        grads = torch.autograd.grad(loss, tuple(learnt.values()), allow_unused=True, materialize_grads=True)
        state = {"state_out": values["state"]} if "state" in values else {}
        return {
            "loss_per_example": losses.tolist(),
            "loss": loss.item(),
            "grad": {
                published[key]: _unpadded(grad, ours[key])
                for key, grad in zip(learnt, grads, strict=True)
                if key in published
            },
            **cast(Fields, plain(state)),
            **(cast(Fields, plain(dict(extra(run)))) if extra else {}),
        }

    return compute


def _passed(
    flags: Options, hyper: Mapping[str, str | None] | Callable[[Flags], Options] | None, switched: tuple[str, ...]
) -> Options:
    if callable(hyper):
        return hyper(flags)
    names = {flag: (hyper or {}).get(flag, flag) for flag in flags if flag not in switched}
    return {ours: flags[theirs] for theirs, ours in names.items() if ours is not None}


def _quantities(objective: Objective, given: Mapping[str, Any], options: Fields, where: str) -> dict[str, Any]:
    names = [quantity.name for quantity in objective.quantities if quantity.what.kind != "state"]
    try:
        values: dict[str, Any] = {name: _quantity(name, given) for name in names}
        if objective.state:
            values["state"] = _updated(objective.state(**given["state"]), values, given, options)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(
            f"{where}: inputs cannot be read ({error}). Expected lists of numbers: {', '.join(names)}."
        ) from error
    sizes = {name: len(values[name]) for name in names if values[name].ndim}
    if len(set(sizes.values())) > 1:
        said = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise DataError(f"{where}: inputs differ in their numbers of examples: {said}.")
    for quantity in objective.quantities:
        if quantity.gradient:
            values[quantity.name].requires_grad_()
    return values


def _updated(state: State, values: Mapping[str, Any], given: Mapping[str, Any], options: Fields) -> State:
    """The state after this step's update, which takes quantities and hyper-parameters by name."""
    known = {**values, **options}
    names = inspect.signature(state.updated).parameters
    return state.updated(**{name: known[name] if name in known else _quantity(name, given) for name in names})


def _quantity(name: str, given: Mapping[str, Any]) -> Tensor:
    """A quantity as a tensor, in float64 unless its kind is another; derived where the file does not have it."""
    if name not in given:
        return _derived(name, given)
    tensor = torch.tensor(_padded(given[name]), dtype=torch.float64)
    match _kind(name):
        case "int":
            return tensor.long()
        case "bool":
            return tensor.bool()
        case _:
            return tensor


def _kind(name: str) -> str:
    try:
        return parse_quantity(name).what.kind
    except ValueError:  # A published input that is no quantity, asked for by a row of the table.
        return "float"


def _derived(name: str, given: Mapping[str, Any]) -> Tensor:
    """Masks and lengths of rows, and their mean: known to whoever has the rows."""
    if name.startswith("mean_") and name.endswith("_length"):
        return _quantity(f"{name.removeprefix('mean_').removesuffix('_length')}_lengths", given).mean()
    for ending in ("_token_mask", "_mask", "_lengths"):
        role = name.removesuffix(ending)
        rows = _rows(role, given) if role != name else None
        if rows is not None:
            lengths = torch.tensor([float(len(row)) for row in rows], dtype=torch.float64)
            return lengths if ending == "_lengths" else torch.arange(max(map(len, rows))) < lengths[:, None]
    raise KeyError(name)


def _rows(role: str, given: Mapping[str, Any]) -> Sequence[Sequence[Any]] | None:
    """A given quantity of the role that has a row an example."""
    for name, value in given.items():
        if isinstance(value, list) and value and isinstance(value[0], list) and _role(name) == role:
            return cast(list[list[Any]], value)
    return None


def _role(name: str) -> str | None:
    try:
        return parse_quantity(name).role
    except ValueError:
        return None


def _padded(value: Any) -> Any:
    """Lists of unequal length made equal by zeros, at every depth."""
    shape = _shape(value)

    def fill(value: Any, depth: int) -> Any:
        if depth == len(shape):
            return value
        items = [fill(item, depth + 1) for item in value]
        return items + [fill([], depth + 1) if depth + 1 < len(shape) else 0] * (shape[depth] - len(items))

    return fill(value, 0)


def _shape(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list):
        return ()
    inner = [_shape(item) for item in cast(list[Any], value)]
    deepest = max(map(len, inner), default=0)
    return (len(inner), *(max(shape[depth] for shape in inner if len(shape) > depth) for depth in range(deepest)))


def _unpadded(tensor: Tensor, like: Any) -> Any:
    """A tensor as nested lists of the lengths that a published input has."""

    def cut(value: Any, like: Any) -> Any:
        return [cut(part, whole) for part, whole in zip(value, like, strict=False)] if isinstance(like, list) else value

    return cut(tensor.tolist(), like)


def plain(value: Any) -> Any:
    """A result in JSON's own types."""
    if isinstance(value, Tensor):
        return value.tolist()
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in cast(Mapping[str, Any], value).items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in cast(Sequence[Any], value)]
    return value


# ------------------------------------------------------------------------------------------- files of kind `selection`


def by_rule(name: str) -> Compute:
    """A file of kind `selection`: a rule that makes at most one pair of each prompt's scored answers."""
    rule = find_rule(name, "the vector table")

    def compute(case: VectorCase, where: str) -> Fields:
        options = rule.checked(case.hyper, where)
        try:
            groups = [_scored_group(prompt) for prompt in cast(list[dict[str, Any]], case.inputs["prompts"])]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{where}: inputs cannot be read ({type(error).__name__}: {str(error).splitlines()[0]}). "
                "Expected prompts with scores and lengths."
            ) from error
        return {"expected": {"pairs": [_pair(list(rule.apply(group, options))) for group in groups]}}

    return compute


def _scored_group(prompt: Mapping[str, Any]) -> Group:
    """A prompt whose answers are known by their scores and lengths alone, named by their index."""
    root = Prompt.of((Message(role="user", content="?"),))
    responses = tuple(
        Response(
            response_id=str(index),
            prompt_id=root.prompt_id,
            root_id=root.root_id,
            step="given",
            text=f"answer {index}",
            token_ids=(0,) * length,
            finish_reason="stop",
        )
        for index, length in enumerate(prompt["lengths"])
    )
    said = tuple(
        Judgment(judge="vectors", kind="score", subjects=(response.response_id,), values=(score,))
        for response, score in zip(responses, prompt["scores"], strict=True)
    )
    return Group(prompts=(root,), responses=responses, judgments=said)


def _pair(made: Sequence[object]) -> dict[str, int] | None:
    found = [example for example in made if isinstance(example, Example)]
    if not found:
        return None
    (example,) = found
    return {member.role: int(member.response_id) for member in example.members}

"""Runs one published case through the product's own functions: a file's names, flags and lists to ours, and back."""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any, cast

import torch
from pydantic import BaseModel, ConfigDict, JsonValue
from torch import Tensor

from prefloop.config import Options
from prefloop.errors import DataError
from prefloop.objectives import Objective, Quantity, State, find_objective, parse_quantity
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

    def __call__(self, case: VectorCase, where: str) -> str:
        """The objective of a case (DataError where no objective is meant)."""
        found = tuple(case.hyper.get(flag, self.default.get(flag)) for flag in self.flags)
        for values, name in self.names.items():
            if found == values:
                return name
        said = " and ".join(f"{flag} = {value!r}" for flag, value in zip(self.flags, found, strict=True))
        known = "; ".join(", ".join(map(str, values)) for values in self.names)
        raise DataError(f"{where}: {said} is not known. Known: {known}.")


def switch(flag: str, names: Mapping[Any, str], *, default: Any = None) -> Switch:
    """A switch on one flag: its value -> objective."""
    return Switch((flag,), {(value,): name for value, name in names.items()}, {flag: default})


class Inputs:
    """A case's inputs as tensors by our names, each made once, so that gradients find their way back to them.

    In float64 unless the quantity's kind is another; lists of unequal length are padded with zeros. What a file does
    not have but implies is derived: masks and lengths from rows, the step's mean lengths, sums from their tokens.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.given = given
        """As the file has them, by our names."""
        self._made: dict[str, Tensor] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.given or name in self._made

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._made:
            self._made[name] = self._read(name) if name in self.given else self._derived(name)
        return self._made[name]

    def put(self, made: Mapping[str, Tensor]) -> None:
        """Adds what a row of the table makes of the others; what the file has stays."""
        self._made.update({name: tensor for name, tensor in made.items() if name not in self.given})

    def leaves(self) -> dict[str, Tensor]:
        """What the gradients of a case are taken to."""
        return {name: self[name] for name in self.given if _gradient(name)}

    def rows(self, padded: Tensor, like: str) -> list[Any]:
        """The rows of a padded result, as long as those of a published input."""
        return _unpadded(padded, self.given[like])

    def _read(self, name: str) -> Tensor:
        tensor = torch.tensor(_padded(self.given[name]), dtype=torch.float64)
        quantity = _parsed(name)
        match quantity.what.kind if quantity else "float":
            case "int":
                return tensor.long()
            case "bool":
                return tensor.bool()
            case _:
                return tensor.requires_grad_(_gradient(name))

    def _derived(self, name: str) -> Tensor:
        if name.startswith("mean_") and name.endswith("_length"):
            return self[f"{name.removeprefix('mean_').removesuffix('_length')}_lengths"].mean()
        tokens = f"{name.removesuffix('_logps')}_token_logps"
        if name.endswith("_logps") and tokens in self:
            return self[tokens].sum(1)
        for ending in ("_token_mask", "_mask", "_lengths"):
            rows = self._rows_of(name.removesuffix(ending)) if name.endswith(ending) else None
            if rows is not None:
                lengths = torch.tensor([float(len(row)) for row in rows], dtype=torch.float64)
                return lengths if ending == "_lengths" else torch.arange(max(map(len, rows))) < lengths[:, None]
        raise KeyError(name)

    def _rows_of(self, role: str) -> Sequence[Sequence[Any]] | None:
        """A given quantity of the role that has a row an example."""
        for name, value in self.given.items():
            quantity = _parsed(name)
            if quantity and quantity.role == role and isinstance(value, list) and isinstance(value[0], list):
                return cast(list[list[Any]], value)
        return None


def _parsed(name: str) -> Quantity | None:
    """None for a published input that is no quantity, which only a row of the table reads."""
    try:
        return parse_quantity(name)
    except ValueError:
        return None


def _gradient(name: str) -> bool:
    quantity = _parsed(name)
    return quantity is not None and quantity.gradient


@dataclass(frozen=True)
class Run:
    """A case as its objective saw it: what further result fields are computed from."""

    flags: Flags
    """Hyper-parameters as published."""
    hyper: Fields
    """As the objective takes them."""
    inputs: Inputs
    state: State | None
    """After its update."""

    def __getitem__(self, name: str) -> Tensor:
        """A quantity by our name, without gradient; also one that the objective itself does not read."""
        return self.inputs[name].detach()

    def call(self, function: Callable[..., Any], **hyper: Any) -> Any:
        """A function of quantities, called with those that its positional parameters name, and with some options."""
        names = [p.name for p in inspect.signature(function).parameters.values() if p.kind is not p.KEYWORD_ONLY]
        return function(*(self[name] for name in names), **hyper)


Choose = Callable[[VectorCase, str], str]
"""Takes a case and where it stands, returns the name of its objective."""
Make = Callable[[Inputs], Mapping[str, Tensor]]
Extra = Callable[[Run], Mapping[str, Any]]
Mean = Callable[[Tensor, Run], Tensor]


def by_objective(
    name: str | Choose,
    *,
    hyper: Mapping[str, str | None] | Callable[[Flags], Options] | None = None,
    inputs: Mapping[str, str] | None = None,
    make: Make | None = None,
    extra: Extra | None = None,
    mean: Mean | None = None,
    constant: Collection[str] = (),
) -> Compute:
    """A file of kind `loss`: an objective in float64, its batch mean, and the gradient of that by autograd.

    Lists of unequal length are padded, and the gradients cut to their lengths again. An input `weights` that the
    objective does not read multiplies the losses; an input `state` is updated before the loss and comes out as
    `state_out`.

    Args:
        name: the objective, or what finds it for a case, such as a `Switch`, whose flags are not passed on.
        hyper: published name -> ours, None where it is not passed on; or a function from all published ones to ours.
        inputs: published name -> ours; names that are not here are equal.
        make: further quantities, from those that the file has.
        extra: result fields beyond the three, as tensors, numbers or lists.
        mean: the file's mean over examples, where it is not the plain one.
        constant: quantities of the policy by our names, whose gradients the file leaves out.
    """
    renamed = inputs or {}

    def compute(case: VectorCase, where: str) -> Fields:
        found = find_objective(name if isinstance(name, str) else name(case, where), "the vector table")
        passed = _passed(case.hyper, hyper, name.flags if isinstance(name, Switch) else ())
        options = found.checked(passed, where).model_dump()
        published = {renamed.get(theirs, theirs): theirs for theirs in case.inputs}
        known = Inputs({ours: case.inputs[theirs] for ours, theirs in published.items()})
        values, state = _quantities(found, known, make, options, where)
        run = Run(case.hyper, options, known, state)
        losses = found.function(**values, **options)
        if "weights" in known and "weights" not in values:
            losses = known["weights"] * losses
        loss = mean(losses, run) if mean else losses.mean()
        result = {
            **graded(losses, loss, known, published, constant),
            **({"state_out": state} if state else {}),
            **(extra(run) if extra else {}),
        }
        return cast(Fields, plain(result))

    return compute


def graded(
    losses: Tensor, loss: Tensor, inputs: Inputs, published: Mapping[str, str], constant: Collection[str] = ()
) -> Fields:
    """The three result fields of every loss; gradients by their published names."""
    leaves = {ours: leaf for ours, leaf in inputs.leaves().items() if ours not in constant}
    grads = torch.autograd.grad(loss, tuple(leaves.values()), allow_unused=True, materialize_grads=True)
    return {
        "loss_per_example": losses,
        "loss": loss,
        "grad": {published[ours]: inputs.rows(grad, ours) for ours, grad in zip(leaves, grads, strict=True)},
    }


def _passed(
    flags: Options, hyper: Mapping[str, str | None] | Callable[[Flags], Options] | None, switched: tuple[str, ...]
) -> Options:
    if callable(hyper):
        return hyper(flags)
    names = {flag: (hyper or {}).get(flag, flag) for flag in flags if flag not in switched}
    return {ours: flags[theirs] for theirs, ours in names.items() if ours is not None}


def _quantities(
    objective: Objective, inputs: Inputs, make: Make | None, options: Fields, where: str
) -> tuple[dict[str, Any], State | None]:
    names = [quantity.name for quantity in objective.quantities if quantity.what.kind != "state"]
    try:
        inputs.put(make(inputs) if make else {})
        values: dict[str, Any] = {name: inputs[name] for name in names}
        state = _updated(objective.state(**inputs.given["state"]), inputs, options) if objective.state else None
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(
            f"{where}: inputs cannot be read ({error}). Expected lists of numbers: {', '.join(names)}."
        ) from error
    sizes = {name: len(values[name]) for name in names if values[name].ndim}
    if len(set(sizes.values())) > 1:
        said = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise DataError(f"{where}: inputs differ in their numbers of examples: {said}.")
    return ({**values, "state": state} if state else values), state


def _updated(state: State, inputs: Inputs, options: Fields) -> State:
    """The state after this step's update, which takes quantities and hyper-parameters by name."""
    names = inspect.signature(state.updated).parameters
    return state.updated(**{name: options[name] if name in options else inputs[name].detach() for name in names})


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

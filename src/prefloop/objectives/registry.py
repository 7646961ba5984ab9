"""The registry of objectives: named pure functions, with what their signatures say."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from prefloop.config import Config, check_options, options_class
from prefloop.errors import RecipeError, did_you_mean
from prefloop.objectives.quantities import Quantity, parse_quantity

Loss = Callable[..., Tensor]
F = TypeVar("F", bound=Loss)


@dataclass(frozen=True)
class Fit:
    """A hyper-parameter that was fitted on a round's examples."""

    value: float
    warning: str | None = None
    limit: float = inf
    """Beyond this, up or down, no value makes sense."""

    def moved(self, name: str, value: float) -> "Fit":
        """With another value for a reason beside the data, no further than the limit, which is said."""
        kept = min(max(value, -self.limit), self.limit)
        said = f"{name} would be {value:+.3g}, but {kept:+.3g} is as far as it goes."
        return replace(self, value=kept, warning=self.warning if kept == value else said)


@runtime_checkable
class State(Protocol):
    """Running statistics of an objective: a frozen dataclass of numbers or tensors, without gradient."""

    @classmethod
    def initial(cls, hyper: Mapping[str, Any]) -> "State":
        """What holds before the first optimiser step."""
        ...

    def updated(self, *args: Any, **kwargs: Any) -> "State":
        """Takes quantities and hyper-parameters by the names in its signature, makes the state of the next step.

        It sees the whole optimiser step, detached, before that step's loss is computed.
        """
        ...


@dataclass(frozen=True)
class Elsewhere:
    """What the same formula is called in another tool."""

    tool: str
    name: str
    """As it is written there, such as `loss_type=ipo`."""
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])
    """Ours -> theirs; a translation where they differ, such as `gamma = gamma_beta_ratio * beta`."""
    note: str = ""
    """Where it differs."""

    @property
    def translated(self) -> str:
        """Its parameters in a line: where names differ, ours before theirs, or the equation between them."""
        pairs = self.parameters.items()
        return ", ".join(theirs if ours == theirs or "=" in theirs else f"{ours} -> {theirs}" for ours, theirs in pairs)


AtReference = Callable[[Mapping[str, Any]], float]
"""Takes the hyper-parameters, returns the loss of an example when every number of the policy is the reference's.

Where examples are coupled, it is the mean over the step."""
FitFunction = Callable[..., Fit]
"""Takes data quantities of all examples by name, as float64 arrays."""
HoldFunction = Callable[..., float]
"""Takes the same, and `deviation` and `gain`: what is added to the fitted value."""


EXCHANGED = {"chosen": "rejected", "rejected": "chosen"}
"""Roles of a pair whose label is turned round."""


@dataclass(frozen=True)
class Objective:
    """A loss function and everything that its signature declares."""

    name: str
    function: Loss
    source: str
    quantities: tuple[Quantity, ...]
    options: type[Config]
    aliases: tuple[str, ...] = ()
    fit: Mapping[str, FitFunction] = field(default_factory=dict[str, FitFunction])
    hold: Mapping[str, HoldFunction] = field(default_factory=dict[str, HoldFunction])
    elsewhere: tuple[Elsewhere, ...] = ()
    at_reference: AtReference | None = None
    couples_batch: bool = False
    state: type[State] | None = None
    swap: str | None = None
    exponential: str | None = None

    @property
    def not_softened(self) -> str | None:
        """Why labels cannot be softened by exchanging the answers; None where they can."""
        names = {quantity.name for quantity in self.quantities}
        if self.swap is not None:
            return self.swap
        if not {"chosen", "rejected"} <= set(self.roles):
            return "it does not read a chosen and a rejected answer"
        if "prob_chosen_wins" in names:
            return "it reads prob_chosen_wins itself"
        if self.couples_batch or self.state is not None:
            return "its examples depend on each other"
        return None

    @property
    def swappable(self) -> bool:
        """Whether labels can be softened by exchanging the answers."""
        return self.not_softened is None

    @property
    def not_trained(self) -> str | None:
        """Why training cannot use it yet: which quantity is still to come, and with what; None where it can."""
        return next(
            (
                f"{quantity.name} ({quantity.meaning}) is not computed in training yet; "
                f"it is coming with {quantity.coming}"
                for quantity in self.quantities
                if quantity.coming is not None
            ),
            None,
        )

    def needed(self, *, soft_labels: bool) -> tuple[Quantity, ...]:
        """Everything that training has to compute: with soft labels also of the other answer, and how often it wins."""
        if not soft_labels:
            return self.quantities
        exchanged = [quantity.with_roles(EXCHANGED) for quantity in self.quantities]
        return tuple(dict.fromkeys((*self.quantities, *exchanged, parse_quantity("prob_chosen_wins"))))

    @property
    def whole_step(self) -> bool:
        """Whether all examples of an optimiser step have to be there at once."""
        return self.couples_batch or self.state is not None

    @property
    def live(self) -> str | None:
        """The frozen model that has to stay loaded while the policy is trained; None where cached numbers do."""
        return "ref" if any(quantity.what.live_reference for quantity in self.quantities) else None

    @property
    def heads(self) -> tuple[str, ...]:
        """Functionals that the policy computes with a head of its own, in the order of the signature."""
        return tuple(dict.fromkeys(q.functional for q in self.quantities if q.model == "policy" and q.what.head))

    @property
    def told(self) -> Literal["logps", "rewards"]:
        """What is told of each answer in training: its log-probability, or the reward that it has from a head."""
        return "rewards" if "rewards" in self.heads else "logps"

    @property
    def models(self) -> tuple[str, ...]:
        """Frozen models that it reads, in the order of its signature."""
        return tuple(dict.fromkeys(q.model for q in self.quantities if q.model not in {None, "policy"} if q.model))

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles of the answers that it reads, in the order of its signature."""
        return tuple(dict.fromkeys(q.role for q in self.quantities if q.role))

    def checked(self, options: Mapping[str, Any], where: str) -> Config:
        """Hyper-parameters from a recipe, checked against the signature (RecipeError where they do not fit)."""
        return check_options(self.name, self.options, dict(options), where)

    def fit_on(self, parameter: str, data: Mapping[str, NDArray[np.float64]]) -> Fit:
        """The value of a fitted hyper-parameter on a round's examples."""
        function = self.fit[parameter]
        return function(**{name: data[name] for name in inspect.signature(function).parameters})

    def updated(self, state: State, values: Mapping[str, Any], hyper: Mapping[str, Any]) -> State:
        """The state after an optimiser step's quantities were seen, without gradient."""
        known = {name: value.detach() for name, value in values.items() if isinstance(value, Tensor)} | dict(hyper)
        return state.updated(**{name: known[name] for name in inspect.signature(state.updated).parameters})

    def correction(
        self, parameter: str, data: Mapping[str, NDArray[np.float64]], *, deviation: float, gain: float
    ) -> float:
        """What holds the length of the policy's answers adds to a fitted hyper-parameter.

        Args:
            parameter: the hyper-parameter.
            data: data quantities of a round's examples.
            deviation: log of the answers' mean length over what it should be.
            gain: of `LengthHeld`.
        """
        function = self.hold[parameter]
        names = inspect.signature(function).parameters.keys() & data.keys()
        return function(**{name: data[name] for name in names}, deviation=deviation, gain=gain)


_REGISTRY: dict[str, Objective] = {}
_ALIASES: dict[str, str] = {}


def objective(
    *,
    source: str,
    aliases: tuple[str, ...] = (),
    fit: Mapping[str, FitFunction] | None = None,
    hold: Mapping[str, HoldFunction] | None = None,
    elsewhere: tuple[Elsewhere, ...] = (),
    at_reference: AtReference | None = None,
    couples_batch: bool = False,
    state: type[State] | None = None,
    swap: str | None = None,
    exponential: str | None = None,
) -> Callable[[F], F]:
    """Registers a function as an objective under its own name.

    Args:
        source: paper and equation.
        aliases: what the same formula is called elsewhere.
        fit: hyper-parameter -> function that fits it on a round's examples, where a recipe says `fitted`.
        hold: hyper-parameter -> function that corrects the fitted value, where a recipe says `{length_ratio: target}`.
        elsewhere: what it is called, and what its parameters are called, in other tools.
        at_reference: the loss when every number of the policy is the reference's; None where it depends on data.
        couples_batch: an example's loss depends on the others of its optimiser step.
        state: class of running statistics, a frozen dataclass that the function takes as the quantity `state`.
        swap: why labels cannot be softened by exchanging chosen and rejected; None where they can.
        exponential: why the loss overflows at gaps of 10,000 nats; None where it does not.
    """

    def register(function: F) -> F:
        name = getattr(function, "__name__", "")
        parameters = inspect.signature(function).parameters.values()
        quantities = tuple(parse_quantity(p.name) for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY)
        fits, holds = dict(fit or {}), dict(hold or {})
        options = options_class(function, fits.keys(), holds.keys())
        _REGISTRY[name] = Objective(
            name,
            function,
            source,
            quantities,
            options,
            aliases,
            fits,
            holds,
            elsewhere,
            at_reference,
            couples_batch,
            state,
            swap,
            exponential,
        )
        _ALIASES.update(dict.fromkeys(aliases, name))
        return function

    return register


def objectives() -> dict[str, Objective]:
    """All registered objectives by name."""
    return dict(_REGISTRY)


def find_objective(name: str, where: str) -> Objective:
    """The objective of this name or alias.

    Raises:
        RecipeError: there is none; `where` is said first.
    """
    found = _REGISTRY.get(_ALIASES.get(name, name))
    if found is None:
        guess = did_you_mean(name, (*_REGISTRY, *_ALIASES), "prefloop objectives")
        raise RecipeError(f"{where} is '{name}', which is not registered. {guess}")
    return found

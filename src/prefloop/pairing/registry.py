"""The registry of rules: pure functions from a group to examples or derived prompts."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from prefloop.config import Config, Options, check_options, options_class
from prefloop.errors import RecipeError, did_you_mean
from prefloop.records import Example, Group, Prompt, Record, Role


@dataclass(frozen=True)
class Dropped:
    """Why a group gave less than it could have."""

    reason: str


RuleFunction = Callable[..., Iterator[Example | Prompt | Dropped]]
F = TypeVar("F", bound=RuleFunction)


@dataclass(frozen=True)
class Rule:
    """A rule and everything that it declares."""

    name: str
    function: RuleFunction
    writes: type[Record]
    roles: tuple[Role, ...]
    reads_given: bool
    options: type[Config]

    def checked(self, options: Options, where: str) -> Config:
        """Options from a recipe, checked against the signature (RecipeError where they do not fit)."""
        return check_options(self.name, self.options, options, where)

    def apply(self, group: Group, options: Config) -> Iterator[Example | Prompt | Dropped]:
        """What the rule makes of one group."""
        return self.function(group, **{name: getattr(options, name) for name in self.options.model_fields})


_REGISTRY: dict[str, Rule] = {}


def rule(*, writes: type[Record], roles: tuple[Role, ...] = (), reads_given: bool = False) -> Callable[[F], F]:
    """Registers a function as a rule under its own name.

    Args:
        writes: Example, or Prompt for a rule that derives prompts.
        roles: of the members of the examples that it makes.
        reads_given: it reads preferences that a data set brought, which a sampling block does not have.
    """

    def register(function: F) -> F:
        name = getattr(function, "__name__", "")
        assert next(iter(inspect.signature(function).parameters)) == "group"
        _REGISTRY[name] = Rule(name, function, writes, roles, reads_given, options_class(function))
        return function

    return register


def rules() -> dict[str, Rule]:
    """All registered rules by name."""
    return dict(_REGISTRY)


def find_rule(name: str, where: str) -> Rule:
    """The rule of this name.

    Raises:
        RecipeError: there is none; `where` is said first.
    """
    if name not in _REGISTRY:
        raise RecipeError(f"{where} is '{name}', which is not a rule. {did_you_mean(name, _REGISTRY)}")
    return _REGISTRY[name]

"""The registry of rules: pure functions from a group to examples or derived prompts."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar

from prefloop.config import Config, Options, ScaledFit, check_options, options_class
from prefloop.errors import RecipeError, did_you_mean
from prefloop.pairing.tokens import Tokens
from prefloop.records import Example, Group, Prompt, Record, Role


@dataclass(frozen=True)
class Dropped:
    """Why a group gave less than it could have."""

    reason: str


@dataclass(frozen=True)
class SetConstant:
    """An option of a rule that was found on all groups of a step together."""

    value: float
    figures: Mapping[str, float] = field(default_factory=dict[str, float])
    """What else the search saw, for the reader of `fitted.json`."""
    warning: str | None = None


Needs = Literal["responses", "judgments", "examples"]
OfEach = Literal["prompt", "answer", "pair"]
"""A prompt, an answer, or any two answers to a prompt."""
FitFunction = Callable[[Iterable[Group], Mapping[str, Any]], SetConstant]
"""Takes all groups, once, and the rule's other options by name."""
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
    fit: Mapping[str, FitFunction] = field(default_factory=dict[str, FitFunction])
    """Option -> what finds it on the whole set, where a recipe says `fitted`."""
    fit_reads: tuple[str, ...] = ()
    """Options that only a fit reads."""
    needs: tuple[Needs, ...] = ("responses", "judgments")
    """What a step before it must have made, beside prompts."""
    of_each: OfEach = "prompt"
    """Of what it makes at most one example or prompt. A prompt made of an answer may begin with all of it."""
    reads_tokens: bool = False
    """It looks at answers as the policy's tokens, and is handed what makes them (`tokens`)."""

    def checked(self, options: Options, where: str) -> Config:
        """Options from a recipe, checked against the signature (RecipeError where they do not fit)."""
        found = check_options(self.name, self.options, options, where)
        if not any(isinstance(value, ScaledFit) for value in self._values(found).values()):
            for name in self.fit_reads:
                if name in options:
                    fits = " or ".join(self.fit)
                    raise RecipeError(
                        f"{where}.{name} has no effect: nothing is fitted. Say {fits}: fitted, or leave it out."
                    )
        return found

    def fitted(self, groups: Callable[[], Iterable[Group]], options: Config) -> dict[str, dict[str, Any]]:
        """Options that are to be fitted, each with its value and how it came about; empty where none is.

        Args:
            groups: gives all groups of the step, as often as it is called.
            options: of the rule.
        """
        wanted = {name: value for name, value in self._values(options).items() if isinstance(value, ScaledFit)}
        others = {name: value for name, value in self._values(options).items() if name not in wanted}
        found = {name: self.fit[name](groups(), others) for name in wanted}
        return {
            name: {**asdict(constant), "value": constant.value * wanted[name].fitted, "factor": wanted[name].fitted}
            for name, constant in found.items()
        }

    def apply(
        self,
        group: Group,
        options: Config,
        constants: Mapping[str, float] | None = None,
        tokens: Tokens | None = None,
    ) -> Iterator[Example | Prompt | Dropped]:
        """What the rule makes of one group.

        Args:
            group: of a root prompt.
            options: of the rule.
            constants: values of its fitted options, where there are any.
            tokens: of the policy, for a rule that reads them.
        """
        assert not self.reads_tokens or tokens is not None, f"{self.name} reads tokens"
        told = (group, tokens) if self.reads_tokens else (group,)
        return self.function(*told, **{**self._values(options), **(constants or {})})

    def _values(self, options: Config) -> dict[str, Any]:
        return {name: getattr(options, name) for name in self.options.model_fields}


_REGISTRY: dict[str, Rule] = {}


def rule(
    *,
    writes: type[Record],
    roles: tuple[Role, ...] = (),
    reads_given: bool = False,
    fit: Mapping[str, FitFunction] | None = None,
    fit_reads: tuple[str, ...] = (),
    needs: tuple[Needs, ...] = ("responses", "judgments"),
    of_each: OfEach = "prompt",
) -> Callable[[F], F]:
    """Registers a function as a rule under its own name.

    Args:
        writes: Example, or Prompt for a rule that derives prompts.
        roles: of the members of the examples that it makes.
        reads_given: it reads preferences that a data set brought, which a sampling block does not have.
        fit: option -> function that finds it on all groups together, where a recipe says `fitted`.
        fit_reads: options that only such a function reads, which a recipe cannot set without it.
        needs: what a step before it must have made, beside prompts; the rehearsal asks for it.
        of_each: of what it makes at most one example or prompt, for `plan`.
    """
    fits = dict(fit or {})

    def register(function: F) -> F:
        name = getattr(function, "__name__", "")
        parameters = list(inspect.signature(function).parameters.values())
        told = [one.name for one in parameters if one.kind is not inspect.Parameter.KEYWORD_ONLY]
        assert told in (["group"], ["group", "tokens"])
        options = options_class(function, fits.keys())
        assert fits.keys() <= options.model_fields.keys()
        _REGISTRY[name] = Rule(
            name, function, writes, roles, reads_given, options, fits, fit_reads, needs, of_each, "tokens" in told
        )
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

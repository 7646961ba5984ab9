"""Claims about methods: what is known on paper, and how far what the product's code ends at is from it."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from prefloop.worlds.minimise import NoMinimumError

WITHIN = 1e-6
"""Distance up to which a claim holds."""


@dataclass(frozen=True)
class Claim:
    """Something that a method must do in a world."""

    method: str
    name: str
    says: str
    source: str
    error: Callable[[], float]
    """How far it is from what is claimed."""
    within: float
    unit: str
    systems: tuple[str, ...] = ()
    """Recipes that it is a truth of; none: that of the method's name, if there is one."""

    def measured(self) -> float:
        """How far it is; infinitely far where there is no minimum though there should be."""
        try:
            return self.error()
        except NoMinimumError:
            return inf

    def holds(self, error: float) -> bool:
        """Whether a distance is small enough; NaN is not."""
        return error <= self.within


_CLAIMS: dict[str, Claim] = {}


def claim(
    method: str, *, source: str, within: float = WITHIN, unit: str = "", systems: tuple[str, ...] = ()
) -> Callable[[Callable[[], float]], Callable[[], float]]:
    """Registers a function that measures how far a method is from what its docstring says.

    Args:
        method: an objective, a rule or a system, by name.
        source: where the claim is from.
        within: distance up to which it holds, with the reason in the function where it is not the default.
        unit: of the distance, where it is not nats, a probability or a factor.
        systems: recipes that it is a truth of, where the method's name is no recipe, or others are meant too.
    """

    def register(function: Callable[[], float]) -> Callable[[], float]:
        says = (function.__doc__ or "").splitlines()[0]
        _CLAIMS[function.__name__] = Claim(method, function.__name__, says, source, function, within, unit, systems)
        return function

    return register


def claims() -> dict[str, Claim]:
    """All claims by name, those of one method together."""
    found = list(_CLAIMS.values())
    methods = list(dict.fromkeys(one.method for one in found))
    return {one.name: one for one in sorted(found, key=lambda one: methods.index(one.method))}


def beyond(excess: float) -> float:
    """How far a bound is exceeded; 0 where it holds."""
    return 0.0 if excess <= 0 else excess


def unless(condition: bool) -> float:
    """0 where a condition holds, else infinity."""
    return 0.0 if condition else inf

"""The vocabulary of objectives: a parameter's name says which number is meant, and who computes it.

    {policy|ref|prev|aux_ref|old}_{role}_{functional}   what a model computes about an answer
    {role}_{functional}                                 what is known of an answer without a model
    weights                                             what is known of an example

`policy` is the model being trained, the only one through which gradient flows; the other models are frozen and named
by a recipe under `references`.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from prefloop.errors import did_you_mean
from prefloop.records import Role

MODELS = ("policy", "ref", "prev", "aux_ref", "old")


@dataclass(frozen=True)
class Functional:
    """One kind of number about an answer."""

    shape: str
    unit: str
    source: Literal["model", "data"]
    meaning: str


FUNCTIONALS: dict[str, Functional] = {
    "logps": Functional("pairs", "nats", "model", "log probability of the counted tokens, summed, EOS included"),
    "lengths": Functional("pairs", "tokens", "data", "number of counted tokens, EOS included"),
}
"""Everything that training can compute today; a new objective that needs more adds its row and the engine's side."""

EXAMPLE_QUANTITIES: dict[str, str] = {
    "weights": "weight of the example in the mean",
}


@dataclass(frozen=True)
class Quantity:
    """A parsed parameter name."""

    name: str
    model: str | None
    role: str | None
    functional: str | None

    @property
    def gradient(self) -> bool:
        """Gradient flows only through what the policy computes."""
        return self.model == "policy"


def parse_quantity(name: str) -> Quantity:
    """The quantity that a parameter names.

    Raises:
        ValueError: the name does not follow the grammar; says what does.
    """
    if name in EXAMPLE_QUANTITIES:
        return Quantity(name, None, None, None)
    model = next((model for model in MODELS if name.startswith(f"{model}_")), None)
    rest = name.removeprefix(f"{model}_") if model else name
    role = next((role for role in get_args(Role) if rest.startswith(f"{role}_")), None)
    functional = rest.removeprefix(f"{role}_")
    if role is None or functional not in FUNCTIONALS:
        raise ValueError(f"'{name}' is not a quantity. {did_you_mean(functional, FUNCTIONALS)}")
    if (FUNCTIONALS[functional].source == "model") != (model is not None):
        expected = "a model in front of it" if model is None else "no model in front of it"
        raise ValueError(f"'{name}' is not a quantity: {functional} takes {expected}.")
    return Quantity(name, model, role, functional)

"""What a reference may be: a policy by name, several, or a mixture of several."""

from math import fsum
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from prefloop.config.base import Config, is_mapping


class GeometricMixture(Config):
    """prod_k pi_k^weight_k: what KL to several policies at once regularises to.

    A reference takes it of whole answers, not normalised; a sampler of every next token, normalised (Nash-MD).
    """

    policies: Annotated[tuple[str, ...], Field(min_length=2)]
    """Names of policies."""
    weights: tuple[Annotated[float, Field(ge=0)], ...]
    """One a policy; they add up to 1."""

    @model_validator(mode="after")
    def _weighted(self) -> "GeometricMixture":
        if len(self.weights) != len(self.policies):
            raise ValueError(f"{len(self.weights)} weights for {len(self.policies)} policies. Give one a policy.")
        if abs(fsum(self.weights) - 1) > 1e-6:
            raise ValueError(f"weights add up to {fsum(self.weights):.6g}, expected 1.")
        return self


class HarmonicMixture(GeometricMixture):
    """1 / sum_k (weight_k / pi_k) with every policy clipped near the first, the anchor (arXiv:2405.16388)."""

    eta: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """How far a log-probability may be from the anchor's, as a share of it."""


class Geometric(Config):
    """A mixture under the name of its kind."""

    geometric: GeometricMixture


class Harmonic(Config):
    """A mixture under the name of its kind."""

    harmonic: HarmonicMixture


def _form(value: object) -> Literal["name", "several", "geometric", "harmonic"] | None:
    if isinstance(value, str):
        return "name"
    if isinstance(value, (list, tuple)):
        return "several"
    if isinstance(value, Geometric) or (is_mapping(value) and "geometric" in value):
        return "geometric"
    return "harmonic" if isinstance(value, Harmonic) or (is_mapping(value) and "harmonic" in value) else None


Reference = Annotated[
    Annotated[str, Tag("name")]
    | Annotated[tuple[str, ...], Tag("several")]
    | Annotated[Geometric, Tag("geometric")]
    | Annotated[Harmonic, Tag("harmonic")],
    Discriminator(
        _form,
        custom_error_type="reference",
        custom_error_message="expected a policy, a list of policies, {geometric: ...} or {harmonic: ...}",
    ),
]


Sampled = Annotated[
    Annotated[str, Tag("name")] | Annotated[Geometric, Tag("geometric")],
    Discriminator(
        _form, custom_error_type="policy", custom_error_message="expected a policy, or {geometric: ...} of several"
    ),
]
"""Whose answers are sampled: a policy's, or those of a mixture of policies, token by token."""


def mixture_of(reference: Reference) -> GeometricMixture | HarmonicMixture | None:
    """How a reference's policies are mixed; None where they are not."""
    match reference:
        case Geometric():
            return reference.geometric
        case Harmonic():
            return reference.harmonic
        case _:
            return None


def policies_of(reference: Reference) -> tuple[str, ...]:
    """Names of the policies that a reference is, or is made of, in order."""
    if (mixture := mixture_of(reference)) is not None:
        return mixture.policies
    assert isinstance(reference, (str, tuple))
    return (reference,) if isinstance(reference, str) else reference

"""Mixtures of references: pure functions of what each of several policies says of answers."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from prefloop.config import GeometricMixture, HarmonicMixture
from prefloop.objectives import Objective, clipped_to_anchor, geometric_mixture, harmonic_mixture
from prefloop.training.columns import Column
from prefloop.training.loss import Scores, functionals_of

ADDITIVE = frozenset({"logps", "token_logps", "prompt_logps"})
WHOLE = frozenset({"logps"})
"""A harmonic mixture of answers is none of their tokens."""


def not_mixed(mixture: GeometricMixture, objective: Objective, model: str) -> list[str]:
    """What an objective reads of a reference and a mixture does not say."""
    known = WHOLE if isinstance(mixture, HarmonicMixture) else ADDITIVE
    return sorted(functionals_of(objective, model) - known)


def mixed(scores: Sequence[Scores], mixture: GeometricMixture) -> Scores:
    """What the mixture of several policies says.

    Args:
        scores: of each policy, in the mixture's order; the same names and shapes for all.
        mixture: how they are mixed.
    """
    of_answers = _harmonic if isinstance(mixture, HarmonicMixture) else _geometric
    return {name: _each([one[name] for one in scores], lambda logps: of_answers(logps, mixture)) for name in scores[0]}


def _each(columns: Sequence[Column], mix: Callable[[Tensor], Tensor]) -> Column:
    if isinstance(columns[0], Tensor):
        return mix(torch.stack([one for one in columns if isinstance(one, Tensor)], -1))
    return tuple(mix(torch.stack(of_one, -1)) for of_one in zip(*columns, strict=True))


def _geometric(logps: Tensor, mixture: GeometricMixture) -> Tensor:
    return geometric_mixture(logps, logps.new_tensor(mixture.weights).expand_as(logps))


def _harmonic(logps: Tensor, mixture: GeometricMixture) -> Tensor:
    assert isinstance(mixture, HarmonicMixture)
    near = clipped_to_anchor(logps, torch.full_like(logps[:, 0], mixture.eta))
    return harmonic_mixture(near, logps.new_tensor(mixture.weights).expand_as(logps))

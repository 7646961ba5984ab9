"""Minima of smooth functions of a few numbers, to a gradient of 1e-12; and what has none is said to have none."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Scalar = Callable[[Tensor], Tensor]
"""A smooth function of a vector in float64."""

DOWNHILL = 20
"""Steps of L-BFGS before Newton's."""
GRADIENT = 1e-12
"""Largest component of the gradient at a minimum."""
STILL = 1e-9
"""Longest Newton step, in nats, that is none any more."""
MOVING = 1e-6
"""Longest one that may be rounding."""
LAST_STEPS = 6
"""Newton steps that are taken where the gradient is small, so that flat losses come to their minimum too."""
FLAT = 1e-13
"""Share of the largest curvature up to which a direction counts as flat: softmax does not see a constant."""
FARTHEST = 200.0
"""How far logits may go apart; behind this there is no minimum to be found."""


class NoMinimumError(Exception):
    """The function falls for ever, or the search did not come to an end."""


def minimise(loss: Scalar, start: Float[Tensor, " numbers"], *, most: int = 200) -> Float[Tensor, " numbers"]:
    """The minimiser nearest to the start: L-BFGS, then Newton's steps that leave flat directions alone.

    Args:
        loss: to be minimised; twice differentiable.
        start: where the search begins, float64.
        most: Newton steps at most.

    Raises:
        NoMinimumError: the loss falls for ever, or is flat or curved downwards where it should be least.
    """
    began = _Curved.of(_derivatives(loss, start)[1]).rank
    theta, last, size = _downhill(loss, start), 0, 0.0
    for _ in range(most):
        gradient, hessian = _derivatives(loss, theta)
        size = gradient.abs().max().item()
        if float(theta.max() - theta.min()) > FARTHEST or not bool(gradient.isfinite().all()):
            raise NoMinimumError(f"the loss still falls {theta.max() - theta.min():.0f} nats from where it began")
        curved = _Curved.of(hessian)
        step = curved.step(gradient)
        if size >= GRADIENT:
            theta = _shortened(loss, theta, step, gradient)
            continue
        theta, last = theta - step, last + 1
        if step.abs().max().item() < STILL or last == LAST_STEPS:
            curved.must_be_a_minimum(step.abs().max().item(), began)
            return theta
    raise NoMinimumError(f"gradient {size:.1e} after {most} Newton steps")


@dataclass(frozen=True)
class _Curved:
    """How a function curves at a place."""

    values: Tensor
    """Curvatures, the least first."""
    vectors: Tensor
    """Their directions, as columns."""

    @classmethod
    def of(cls, hessian: Float[Tensor, "numbers numbers"]) -> "_Curved":
        return cls(*torch.linalg.eigh(hessian))

    @property
    def is_flat(self) -> Tensor:
        return self.values.abs() <= FLAT * self.values.abs().max()

    @property
    def rank(self) -> int:
        """Directions that the function sees."""
        return int((~self.is_flat).sum())

    def step(self, gradient: Float[Tensor, " numbers"]) -> Float[Tensor, " numbers"]:
        """Newton's, to be taken off; downhill also where the function curves downwards."""
        return self.vectors @ torch.where(self.is_flat, 0.0, self.vectors.T @ gradient / self.values.abs())

    def must_be_a_minimum(self, moved: float, rank_at_start: int) -> None:
        """Where the gradient is small, after a step of so many nats."""
        if moved > MOVING or self.rank < rank_at_start:
            raise NoMinimumError("the gradient and the curvature vanish together: the loss falls for ever")
        if self.values[0] < -FLAT * self.values[-1]:
            raise NoMinimumError(f"a saddle: curvature {self.values[0]:.1e}, the largest is {self.values[-1]:.1e}")


def _downhill(loss: Scalar, start: Tensor) -> Tensor:
    """Near the minimum, if there is one."""
    theta = start.detach().clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [theta], max_iter=DOWNHILL, tolerance_grad=1e-6, tolerance_change=0.0, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        optimizer.zero_grad()
        value = loss(theta)
        value.backward()
        return value.item()

    optimizer.step(closure)
    return theta.detach()


def _derivatives(loss: Scalar, theta: Tensor) -> tuple[Tensor, Tensor]:
    theta = theta.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(theta), theta, create_graph=True)
    (hessian,) = torch.autograd.grad(gradient, theta, torch.eye(len(theta), dtype=theta.dtype), is_grads_batched=True)
    return gradient.detach(), (hessian + hessian.T) / 2


def _shortened(loss: Scalar, theta: Tensor, step: Tensor, gradient: Tensor) -> Tensor:
    """Less a Newton step, halved until the loss does not rise; near the minimum rounding decides and all of it goes."""
    before, slope = loss(theta).item(), float(gradient @ step)
    share = 1.0
    while slope * share > 1e-13 * max(1.0, abs(before)) and not loss(theta - share * step).item() <= before:
        share /= 2
    return theta - share * step

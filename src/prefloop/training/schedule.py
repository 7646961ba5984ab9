"""The learning rate over a round."""

from dataclasses import dataclass
from math import cos, pi
from typing import Literal

Shape = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True)
class Schedule:
    """The learning rates of one train step: the schedule goes on over the blocks of a round."""

    peak: float
    shape: Shape
    warmup: float | None
    """Share of the round's steps in which the rate rises; None where steps are counted."""
    warmup_steps: int | None
    """Optimiser steps of the round in which the rate rises; None where it is a share."""
    steps: int
    """Optimiser steps of this train step."""
    block: int = 0
    """Of this train step in its round."""
    blocks: int = 1
    """Of the round."""
    begun: int = 0
    """Optimiser steps that the round's earlier blocks took."""

    def rate(self, number: int) -> float:
        """Learning rate of a step of this train step, counted from 0."""
        progress = (self.block + (number + 0.5) / self.steps) / self.blocks
        if self.warmup_steps is None:
            assert self.warmup is not None
            return learning_rate_at(progress, peak=self.peak, warmup=self.warmup, schedule=self.shape)
        done = self.begun + number + 0.5
        if done < self.warmup_steps:
            return self.peak * done / self.warmup_steps
        return learning_rate_at(progress, peak=self.peak, warmup=self._warm_at(self.warmup_steps), schedule=self.shape)

    def _warm_at(self, warmup_steps: int) -> float:
        """Share of the round that is done after so many steps; blocks may have different numbers of them."""
        if warmup_steps < self.begun:
            return warmup_steps / self.begun * self.block / self.blocks
        return (self.block + (warmup_steps - self.begun) / self.steps) / self.blocks


def learning_rate_at(progress: float, *, peak: float, warmup: float, schedule: Shape) -> float:
    """Learning rate of the optimiser step in whose middle a share `progress` of the round is done.

    The middle, so that neither the first nor the last step has the rate zero and does nothing.

    Args:
        progress: share of the round's optimiser steps, in (0, 1).
        peak: largest rate.
        warmup: share of the steps in which the rate rises linearly from zero.
        schedule: what follows: hold, fall linearly to zero, or fall as half a cosine.
    """
    if progress < warmup:
        return peak * progress / warmup
    left = (1 - progress) / (1 - warmup)
    if schedule == "constant":
        return peak
    return peak * (left if schedule == "linear" else (1 - cos(pi * left)) / 2)

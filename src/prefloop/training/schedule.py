"""The learning rate over a round."""

from math import cos, pi
from typing import Literal


def learning_rate_at(
    progress: float, *, peak: float, warmup: float, schedule: Literal["constant", "linear", "cosine"]
) -> float:
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

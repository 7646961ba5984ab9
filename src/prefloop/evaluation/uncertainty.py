"""How results say their uncertainty: numbers that JSON can hold, and the name of the interval."""

from math import isfinite

INTERVAL = "95 %, BCa bootstrap over prompts"
PERCENTILE = "95 %, percentile bootstrap over prompts"
"""For fits that length may separate: bias correction would cut the side on which nothing is known."""
JACKKNIFE = "95 %, Student's t, jackknife over prompts"
ANALYTIC = "95 %, Student's t, clustered by prompt"


def finite(value: float) -> float | None:
    """A number, or None where there is none."""
    return value if isfinite(value) else None


def interval_or_none(bounds: tuple[float, float]) -> list[float] | None:
    """Both bounds, or None where either is unknown."""
    return list(bounds) if all(map(isfinite, bounds)) else None

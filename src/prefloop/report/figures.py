"""Numbers as text, the same on the page and in the terminal."""

from math import ceil, floor, isfinite

from prefloop.records import Estimate

_DASH = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"
ABSENT = _DASH


def fixed(value: float, digits: int) -> str:
    """A number with so many decimals and a real minus sign."""
    text = f"{value:.{digits}f}"
    return (text.removeprefix("-") if float(text) == 0 else text).replace("-", _MINUS)


def compact(value: float) -> str:
    """A number of unknown size with three or four significant digits."""
    if not isfinite(value):
        return str(value)
    size = abs(value)
    if size >= 100 or value == int(value):
        return fixed(value, 0)
    if size >= 10:
        return fixed(value, 1)
    if size >= 1:
        return fixed(value, 2)
    return f"{value:.3g}".replace("-", _MINUS)


def count(value: float) -> str:
    """A number of things."""
    return f"{value:,.0f}" if value == int(value) else compact(value)


def interval(estimate: Estimate, digits: int) -> str:
    """Both ends, or nothing where there is no interval."""
    if estimate.interval is None:
        return ""
    low, high = (fixed(end, digits) for end in estimate.interval)
    return f"{low} to {high}" if low.startswith(_MINUS) else f"{low}{_DASH}{high}"


def with_interval(estimate: Estimate, digits: int = 1) -> str:
    """`68.1 (61.2–75.0)`."""
    ends = interval(estimate, digits)
    return fixed(estimate.value, digits) + (f" ({ends})" if ends else "")


def with_coarse_interval(estimate: Estimate) -> str:
    """`68.1 (61–75)`: ends as whole numbers, rounded outwards so that they never claim more than was shown."""
    if estimate.interval is None:
        return fixed(estimate.value, 1)
    low, high = estimate.interval
    between = " to " if low < 0 else _DASH
    return f"{fixed(estimate.value, 1)} ({fixed(floor(low), 0)}{between}{fixed(ceil(high), 0)})"


def rate(estimate: Estimate) -> str:
    """A percentage in a sentence: `68.1 % (61.2–75.0)`; number and sign stay on one line."""
    ends = interval(estimate, 1)
    return f"{fixed(estimate.value, 1)}\N{NO-BREAK SPACE}%" + (f" ({ends})" if ends else "")


def with_error(estimate: Estimate, digits: int = 2) -> str:
    """`3.10 ± 0.22`."""
    error = "" if estimate.standard_error is None else f" ± {fixed(estimate.standard_error, digits)}"
    return fixed(estimate.value, digits) + error


def percent(share: float) -> str:
    """A share as a percentage, without the sign."""
    return fixed(100 * share, 1)

"""Judges whose faults are known, as functions for `judge: {type: python, compares: true, function: ...}`."""

from prefloop.records import seed_for


def always_first(_prompt: str, _first: str, _second: str) -> float:
    """Prefers whatever it is shown first: never consistent, first-position share 1."""
    return 1.0


def always_second(_prompt: str, _first: str, _second: str) -> float:
    """Prefers whatever it is shown last: never consistent, first-position share 0."""
    return 0.0


def coin_flip(prompt: str, first: str, second: str) -> float:
    """A fair coin for every prompt and every order, the same whenever it is asked: consistent half of the time."""
    return float(seed_for("coin flip", prompt, first, second) % 2)


def longer(_prompt: str, first: str, second: str) -> float:
    """Prefers the longer text, in characters: always consistent, with nothing but a length bias."""
    return 0.5 if len(first) == len(second) else float(len(first) > len(second))

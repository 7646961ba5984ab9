"""What was read from outside, remembered for the rest of the process while the files stay as they are."""

from collections.abc import Callable
from typing import Generic, TypeVar

KEPT = 4
"""Results at a time; a recipe rarely reads more sources."""

T = TypeVar("T")


class Remembered(Generic[T]):
    """A few results, by a digest of everything that they were made from."""

    def __init__(self) -> None:
        self._kept: dict[str, T] = {}

    def found(self, key: str, make: Callable[[], T], *, anew: bool = False) -> T:
        """The result of this key: remembered, or made now, or made in any case."""
        if key not in self._kept or anew:
            made = make()
            if len(self._kept) >= KEPT:
                self._kept.clear()
            self._kept[key] = made
        return self._kept[key]

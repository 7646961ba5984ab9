"""Sequences that make what they hold when it is asked for."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar, overload

T_co = TypeVar("T_co", covariant=True)


class Indexed(Sequence[T_co], Generic[T_co]):
    """A sequence by how many it holds and how one of them is made; slices are lists."""

    @abstractmethod
    def at(self, index: int) -> T_co:
        """The one of a number."""

    @overload
    def __getitem__(self, index: int) -> T_co: ...
    @overload
    def __getitem__(self, index: slice) -> list[T_co]: ...
    def __getitem__(self, index: int | slice) -> T_co | list[T_co]:
        if isinstance(index, slice):
            return [self.at(number) for number in range(*index.indices(len(self)))]
        return self.at(index)

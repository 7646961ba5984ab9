"""The processes that train together, and how the micro-batches of an optimiser step are dealt to them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed


@dataclass(frozen=True)
class Processes:
    """Every process has a share of each optimiser step and all of its weights."""

    rank: int = 0
    size: int = 1

    @classmethod
    def joined(cls) -> "Processes":
        """The processes of torch's default group; this one alone where there is none."""
        return cls(distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else cls()

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes, which every one of them gets."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def add_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Every process gets the sum of all gradients; one that had nothing to do adds zeros."""
        if self.size == 1:
            return
        for parameter in parameters:
            parameter.grad = self.total(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)


ALONE = Processes()


def dealt(batches: Sequence[Sequence[int]], sizes: Mapping[int, int], ranks: int) -> list[list[list[int]]]:
    """The micro-batches of each of several processes: as many for each, and about as many tokens.

    A pure function. Micro-batches are halved until there are enough for all; where there are fewer examples than
    processes some get an empty one.

    Args:
        batches: indices of the examples that pass together.
        sizes: tokens of each example.
        ranks: processes.
    """

    def tokens(batch: Sequence[int]) -> int:
        return sum(sizes[index] for index in batch)

    pieces = [list(batch) for batch in batches]
    while len(pieces) % ranks:
        longest = max(pieces, key=lambda piece: (len(piece) > 1, tokens(piece)), default=[])
        if len(longest) > 1:
            place, half = pieces.index(longest), len(longest) // 2
            pieces[place : place + 1] = [longest[:half], longest[half:]]
        else:
            pieces.append([])
    hands: list[list[list[int]]] = [[] for _ in range(ranks)]
    for piece in sorted(pieces, key=tokens, reverse=ranks > 1) if ranks > 1 else pieces:
        open_hands = [hand for hand in hands if len(hand) < len(pieces) // ranks]
        min(open_hands, key=lambda hand: sum(tokens(own) for own in hand)).append(piece)
    return hands

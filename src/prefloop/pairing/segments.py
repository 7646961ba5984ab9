"""Rejected answers made by rewriting a segment of a demonstration, and their buffer (SAPO, arXiv:2405.20830)."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import log
from typing import Any, Generic, TypeVar

T = TypeVar("T")
NOT_REWRITTEN = 3
"""Tokens at the end of an answer that no segment reaches, where the answer is longer than a segment."""


def segment_range(
    response_length: int, prompt_length: int, *, segment_length: int, max_length: int, max_prompt_length: int
) -> tuple[int, tuple[int, int]]:
    """How long the rewritten segment is, and the first and last position at which it may begin.

    Args:
        response_length: tokens, EOS included.
        prompt_length: tokens.
        segment_length: tokens that are rewritten at most.
        max_length: tokens of prompt and answer.
        max_prompt_length: tokens that the prompt is cut to.
    """
    length = min(segment_length, response_length)
    room = max_length - min(prompt_length, max_prompt_length) - length
    return length, (0, max(min(response_length - NOT_REWRITTEN - length, room), 0))


def splice(response: Sequence[int], start: int, segment_length: int, generated: Sequence[int], eos: int) -> list[int]:
    """The answer with a segment rewritten; where the new segment ends the answer, nothing follows it.

    Args:
        response: token ids, EOS included.
        start: first token that is rewritten.
        segment_length: tokens that are taken out.
        generated: what stands there instead.
        eos: the token that ends an answer.
    """
    begun = list(response[:start])
    if eos in generated:
        return [*begun, *generated[: list(generated).index(eos) + 1]]
    return [*begun, *generated, *response[start + segment_length :]]


@dataclass
class ReplayBuffer(Generic[T]):
    """First in, first out; what was drawn less often is likelier to be drawn."""

    size: int
    items: list[T] = field(default_factory=list[Any])
    """The oldest first."""
    times_drawn: list[int] = field(default_factory=list[int])
    """Of each item."""

    def add(self, item: T) -> None:
        """Puts an item in; the oldest goes where there is no room."""
        kept = max(len(self.items) + 1 - self.size, 0)
        self.items = [*self.items, item][kept:]
        self.times_drawn = [*self.times_drawn, 0][kept:]

    def count(self, drawn: Sequence[T]) -> None:
        """Counts what was drawn; what is no longer here is passed over."""
        for item in drawn:
            if item in self.items:
                self.times_drawn[self.items.index(item)] += 1

    def probabilities(self) -> list[float]:
        """Of each item to be drawn next: in proportion to 1 / (1 + times drawn)."""
        weights = [1 / (1 + times) for times in self.times_drawn]
        return [weight / sum(weights) for weight in weights]

    def draw(self, count: int, draw: random.Random) -> list[int]:
        """So many places, in order, none twice: one after the other, each by what the probabilities leave for the rest.

        An exponential variable by its probability is the least of all as often as that says (Efraimidis and Spirakis,
        2006), so that the least ones are such a draw.
        """
        waits = [-log(1 - draw.random()) / chance for chance in self.probabilities()]
        return sorted(sorted(range(len(waits)), key=waits.__getitem__)[:count])

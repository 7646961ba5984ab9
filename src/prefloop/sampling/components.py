"""What an answer grows from: one policy, or a mixture of several, token by token."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from prefloop.policy import Growing, PassedPrompts, shared_length

PASSED_AT_ONCE = 1024
"""Tokens of prompts that pass through the model together, where prompts are not longer: enough for matrix products at
full speed."""


@dataclass(frozen=True)
class Component:
    """A policy of a mixture, in which the next token has the probability prod_k pi_k ^ weight_k, normalised.

    A single policy of weight 1 is itself. Weights that do not add up to 1 are a temperature, negative ones push away.
    """

    model: PreTrainedModel
    weight: float = 1.0


class Components:
    """Answers that grow under every component at once, each behind that one's own prompt. Row i is the same answer."""

    def __init__(
        self, components: Sequence[Component], prompts: Sequence[Sequence[tuple[int, ...]]], rows: int, new_tokens: int
    ) -> None:
        """Nothing grows yet.

        Args:
            components: one or more.
            prompts: of each component, in the order in which they will enter.
            rows: answers that may grow together.
            new_tokens: of the longest answer.
        """
        self._weights = [one.weight for one in components]
        self._each = [
            _Waiting(one.model, of_one, rows, new_tokens) for one, of_one in zip(components, prompts, strict=True)
        ]

    def enter(self, count: int) -> None:
        """So many answers to the next prompt begin to grow, in rows behind the others."""
        for one in self._each:
            one.enter(count)

    def logits(self) -> Float[Tensor, "rows vocab"]:
        """Of the next token of every row, up to a constant a row."""
        first, *others = (one.growing.logits() for one in self._each)
        if not others:
            return first
        mixed = self._weights[0] * first
        for weight, logits in zip(self._weights[1:], others, strict=True):
            mixed.add_(logits, alpha=weight)
        return mixed

    def keep(self, rows: Sequence[int]) -> None:
        """Makes row i what rows[i] is now."""
        for one in self._each:
            one.growing.keep(rows)

    def advance(self, tokens: Int[Tensor, " rows"]) -> None:
        """Passes the next token of every row."""
        for one in self._each:
            one.growing.advance(tokens)


class _Waiting:
    """The prompts of one component, and its answers that grow."""

    def __init__(self, model: PreTrainedModel, prompts: Iterable[tuple[int, ...]], rows: int, new_tokens: int) -> None:
        self.model = model
        self.prompts = deque(prompts)
        self.shared = shared_length(list(set(self.prompts))) if self.prompts else 0
        """Tokens that all prompts begin with."""
        self.growing = Growing(model, rows, new_tokens, self.shared)
        self.passed: PassedPrompts | None = None
        """The prompts that come next have passed already."""
        self.taken = 0
        """Of these."""

    def enter(self, count: int) -> None:
        if self.passed is None or self.taken == len(self.passed.hidden):
            self.passed = None  # so that only one portion's keys and values stand in memory
            self.passed, self.taken = PassedPrompts.of(self.model, self._portion()), 0
        self.growing.enter(self.passed, self.taken, count)
        self.prompts.popleft()
        self.taken += 1

    def _portion(self) -> list[tuple[int, ...]]:
        """Prompts that pass together. What they all begin with passes once more with every portion."""
        portion: list[tuple[int, ...]] = []
        tokens = 0
        for prompt in self.prompts:
            own = len(prompt) - self.shared
            if portion and tokens + own > max(PASSED_AT_ONCE, 2 * self.shared):
                break
            portion.append(prompt)
            tokens += own
        return portion

"""What a sampler is: something that serves policies and answers draws."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from prefloop.records import FinishReason


@dataclass(frozen=True)
class SamplingSettings:
    """How tokens are drawn."""

    temperature: float
    """Softmax temperature; 0 takes the most likely token."""
    top_p: float
    """Smallest set of most likely tokens whose probability reaches this; 1 keeps all."""
    max_new_tokens: int


@dataclass(frozen=True)
class Draw:
    """One answer to be sampled; its seed alone decides its random numbers."""

    prompt_id: str
    index: int
    seed: int
    prompt_ids: tuple[int, ...]
    """Tokens of the prompt with the generation prompt, then the given beginning of the answer."""


@dataclass(frozen=True)
class Answer:
    """What came back for a draw."""

    draw: Draw
    token_ids: tuple[int, ...]
    """Sampled tokens, EOS included when the answer ended by itself."""
    finish_reason: FinishReason
    sum_logp: float
    """Nats, under the distribution that was sampled from."""


class Sampler(Protocol):
    """Answers draws from the policy that it serves."""

    def sample(self, draws: Sequence[Draw], settings: SamplingSettings) -> Iterator[Answer]:
        """One answer a draw, in any order."""
        ...

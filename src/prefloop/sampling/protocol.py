"""What a sampler is: something that serves a policy and answers draws from it."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from prefloop.policy import PolicyFiles
from prefloop.records import FinishReason


@dataclass(frozen=True)
class SamplingSettings:
    """How tokens are drawn; in this order, as transformers applies them."""

    temperature: float
    """Softmax temperature; 0 takes the most likely token."""
    top_p: float
    """Smallest set of most likely tokens whose probability reaches this; 1 keeps all."""
    max_new_tokens: int
    top_k: int | None = None
    """So many of the most likely tokens, before top_p; None keeps all."""
    min_p: float = 0.0
    """Least probability, as a share of the most likely token's, after top_p; 0 keeps all."""
    repetition_penalty: float = 1.0
    """Before everything else, positive logits of tokens that prompt or answer hold are divided by this and negative
    ones multiplied (arXiv:1909.05858 section 4.1); 1 changes nothing."""
    stop: tuple[str, ...] = ()
    """Texts that end an answer; the tokens that complete one are its last."""
    stop_ids: tuple[int, ...] = ()
    """Tokens that end an answer, beside the policy's EOS."""
    num_beams: int = 1
    """Beams of a search for the likeliest answers, at temperature 0; 1 takes token after token."""

    @property
    def is_plain(self) -> bool:
        """The distribution that is sampled from is the policy itself."""
        penalty = self.repetition_penalty
        return (self.temperature, self.top_p, self.top_k, self.min_p, penalty) == (1, 1, None, 0, 1)


@dataclass(frozen=True)
class Draw:
    """One answer to be sampled; its seed alone decides its random numbers."""

    prompt_id: str
    index: int
    seed: int
    prompt_ids: tuple[int, ...]
    """Tokens of the prompt with the generation prompt, then the given beginning of the answer, which is continued.

    `codec.prompt_ids(prompt)` gives both, and `prompt.derived(prefix_ids=...)` a prompt with a beginning. Draws with
    equal tokens pass once; so does a longer beginning of several, such as the nodes of a search tree. What is given
    takes no share of `max_new_tokens`, counts as held for a repetition penalty, and completes no stop text.
    """
    others: tuple[tuple[int, ...], ...] = ()
    """The same for the other policies of a mixture, where each sees a prompt of its own; empty: all see this one."""


@dataclass(frozen=True)
class Answer:
    """What came back for a draw."""

    draw: Draw
    token_ids: tuple[int, ...]
    """Sampled tokens, EOS included when the answer ended by itself."""
    finish_reason: FinishReason
    sum_logp: float | None
    """Nats, under the distribution that was sampled from; None where the sampler does not say."""
    ids_from: Literal["sampler", "text"] = "sampler"
    """`text`: the sampler gave no tokens, so that its text was tokenised again."""


class Serving(Protocol):
    """A policy that answers."""

    def sample(self, draws: Sequence[Draw], settings: SamplingSettings) -> Iterator[Answer]:
        """One answer a draw, in any order."""
        ...


class Sampler(Protocol):
    """Makes policies answer."""

    def serving(self, policy: PolicyFiles) -> AbstractContextManager[Serving]:
        """The policy, loaded or published, and proved to be the one that answers."""
        ...

"""Sampling with the policy itself, in this process."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from prefloop.policy import PolicyFiles, Workbench
from prefloop.sampling.ending import Ending
from prefloop.sampling.padded import grown_padded
from prefloop.sampling.protocol import Answer, Draw, SamplingSettings
from prefloop.sampling.together import grown_together

DEFAULT_ROWS = 128
"""Beyond it two cores win little (benchmarks/results/decode.md)."""


@dataclass(frozen=True)
class LocalPolicies:
    """A sampler in this process: it serves a policy by loading it."""

    bench: Workbench
    rows: int = DEFAULT_ROWS
    """Answers that grow at the same time."""

    @contextmanager
    def serving(self, policy: PolicyFiles) -> Generator["LocalSampler", None, None]:
        """The policy in memory."""
        codec = self.bench.codec
        together = self.bench.grows_answers
        yield LocalSampler(self.bench.for_sampling(policy), codec.eos_ids, self.rows, codec.text_of, together=together)


@dataclass(frozen=True)
class LocalSampler:
    """Answers draws from a model in memory.

    A prompt passes through the model once, however many answers it gets, and so does a beginning that prompts share,
    such as a system prompt. An answer that has ended leaves the batch.
    The random numbers of a draw depend on its seed and the position alone, so that rows, order and restarts change
    an answer at most where float rounding does; and the same call on the same machine gives the same bytes.
    """

    model: PreTrainedModel
    """The policy; of a peft model its `get_base_model()`. It is left in evaluation mode."""
    eos_ids: frozenset[int]
    """Tokens that end an answer."""
    rows: int = DEFAULT_ROWS
    """Answers that grow at the same time. A matter of memory and speed."""
    text_of: Callable[[Sequence[int]], str] | None = None
    """What tokens say; needed for stop texts."""
    together: bool = True
    """Whether the model takes answers that grow behind one copy of their prompts (`policy.grows_answers`). False pads
    prompts and gives every answer its own copy, as transformers does."""

    @torch.inference_mode()
    def sample(self, draws: Sequence[Draw], settings: SamplingSettings) -> Iterator[Answer]:
        """One answer a draw, each as soon as it has ended."""
        self.model.eval()
        grown = grown_together if self.together else grown_padded
        yield from grown(self.model, draws, settings, self.rows, Ending.of(settings, self.eos_ids, self.text_of))

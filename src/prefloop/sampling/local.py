"""Sampling with the policy itself, in this process."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from prefloop.config import Precision
from prefloop.errors import ModelError
from prefloop.policy import PolicyFiles, Workbench, packed_weights
from prefloop.sampling.beams import searched
from prefloop.sampling.components import Component
from prefloop.sampling.ending import Ending
from prefloop.sampling.padded import grown_padded
from prefloop.sampling.protocol import Answer, Draw, SamplingSettings
from prefloop.sampling.together import grown_together

DEFAULT_ROWS = 128
"""Answers that grow together on a CPU, where memory lets them: beyond it two cores win little
(benchmarks/results/decode.md)."""
DEFAULT_ROWS_ON_GPU = 512
"""The same on a GPU, where more rows cost next to nothing until keys and values fill its memory; not measured."""
LEAST_ROWS = 16
"""Fewer do not grow together, however little memory there is."""


@dataclass(frozen=True)
class LocalPolicies:
    """A sampler in this process: it serves a policy by loading it."""

    bench: Workbench
    rows: int = DEFAULT_ROWS
    """Answers that grow at the same time."""
    precision: Precision = "float32"
    """Of the layers."""

    @contextmanager
    def serving(self, policy: PolicyFiles) -> Generator["LocalSampler", None, None]:
        """The policy in memory."""
        codec = self.bench.codec
        together = self.bench.grows_answers
        model = self.bench.for_sampling(policy)
        with packed_weights(model, self.precision):
            yield LocalSampler(model, codec.eos_ids, self.rows, codec.text_of, together=together)

    @contextmanager
    def mixing(
        self, policies: Sequence[PolicyFiles], weights: Sequence[float]
    ) -> Generator["LocalSampler", None, None]:
        """Several policies in memory, of which every next token is drawn together (see `Component`).

        Args:
            policies: two or more; the same one may come again, behind another prompt (`Draw.others`).
            weights: one a policy.

        Raises:
            ModelError: they have not the same tokens, or an attention that cannot be put aside.
        """
        if not self.bench.grows_answers:
            raise ModelError(
                "a mixture of policies is sampled only from models whose attention can be put aside, which this one's "
                "cannot. Sample one policy, or take another model."
            )
        first, *others = self._components(policies, weights)
        sizes = {one.model.config.get_text_config().vocab_size for one in (first, *others)}
        if len(sizes) > 1:
            raise ModelError(
                f"a mixture is of policies with the same tokens, but these have {' and '.join(map(str, sorted(sizes)))}"
                ". Name policies of one model."
            )
        codec = self.bench.codec
        with ExitStack() as packed:
            for model in {one.model for one in (first, *others)}:
                packed.enter_context(packed_weights(model, self.precision))
            yield LocalSampler(
                first.model, codec.eos_ids, self.rows, codec.text_of, weight=first.weight, others=tuple(others)
            )

    def _components(self, policies: Sequence[PolicyFiles], weights: Sequence[float]) -> list[Component]:
        models = {policy.identity: self.bench.for_sampling(policy) for policy in policies}
        return [Component(models[policy.identity], weight) for policy, weight in zip(policies, weights, strict=True)]


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
    weight: float = 1.0
    """Of the policy in a mixture; 1 where it is alone."""
    others: tuple[Component, ...] = ()
    """The rest of a mixture, of models that take answers that grow together."""

    @torch.inference_mode()
    def sample(self, draws: Sequence[Draw], settings: SamplingSettings) -> Iterator[Answer]:
        """One answer a draw, each as soon as it has ended."""
        self.model.eval()
        ending = Ending.of(settings, self.eos_ids, self.text_of)
        if not self.together:
            if settings.num_beams > 1:
                raise ModelError(
                    "beams are searched only with models whose attention can be put aside, which this one's cannot. "
                    "Set num_beams to 1, or take another model."
                )
            assert not self.others
            yield from grown_padded(self.model, draws, settings, self.rows, ending)
            return
        for one in self.others:
            one.model.eval()
        components = [Component(self.model, self.weight), *self.others]
        answers = grown_together if settings.num_beams == 1 else searched
        yield from answers(components, draws, settings, self.rows, ending)

"""Sampling with the policy itself, in this process."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from prefloop.policy import PolicyFiles, Workbench, can_have_gaps, shared_length, widest
from prefloop.sampling.cache import roomy_cache
from prefloop.sampling.choice import choose, penalised
from prefloop.sampling.draws import together
from prefloop.sampling.protocol import Answer, Draw, SamplingSettings

DEFAULT_ROWS = 128
"""Beyond it two cores win little (benchmarks/results/decode.md)."""


_PARTS_OF_CHARACTERS = 4
"""Tokens before a stop text that its first letters may need to be decoded."""


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
        yield LocalSampler(self.bench.for_sampling(policy), codec.eos_ids, self.rows, codec.text_of)


@dataclass(frozen=True)
class LocalSampler:
    """Answers draws from a model in memory.

    A prompt passes through the model once, however many answers it gets, and so does a beginning that all prompts of
    a batch share, such as a system prompt. An answer that has ended leaves the batch.
    The random numbers of a draw depend on its seed and the position alone, so that rows, order and restarts change
    an answer at most where float rounding does.
    """

    model: PreTrainedModel
    """The policy; of a peft model its `get_base_model()`. It is left in evaluation mode."""
    eos_ids: frozenset[int]
    """Tokens that end an answer."""
    rows: int = DEFAULT_ROWS
    """Answers that grow at the same time. A matter of memory and speed."""
    text_of: Callable[[Sequence[int]], str] | None = None
    """What tokens say; needed for stop texts."""

    @torch.inference_mode()
    def sample(self, draws: Sequence[Draw], settings: SamplingSettings) -> Iterator[Answer]:
        """One answer a draw, each as soon as it has ended."""
        self.model.eval()
        for portion in _portions(draws, self.rows):
            yield from self._sample(portion, settings)

    def _sample(self, prompts: list[tuple[Draw, ...]], settings: SamplingSettings) -> Iterator[Answer]:
        batch, logits = self._prefilled(prompts, settings)
        for position in range(settings.max_new_tokens):
            if batch.held is not None:
                logits = penalised(logits, batch.held, settings.repetition_penalty)
            choice = choose(logits, batch.uniforms[:, position], settings)
            batch.tokens[:, position] = choice.tokens
            batch.sum_logps.add_(choice.logps)
            if batch.held is not None:
                batch.held.scatter_(1, choice.tokens[:, None], value=True)
            stopped = self._stopped(batch.tokens[:, : position + 1], settings)
            last = position + 1 == settings.max_new_tokens
            for row in range(len(batch.draws)) if last else stopped.nonzero()[:, 0].tolist():
                yield Answer(
                    draw=batch.draws[row],
                    token_ids=tuple(batch.tokens[row, : position + 1].tolist()),
                    finish_reason="stop" if stopped[row] else "length",
                    sum_logp=batch.sum_logps[row].item(),
                )
            if last or stopped.all():
                return
            batch = batch.without(stopped)
            columns = batch.seen.shape[-1] - settings.max_new_tokens + position + 1
            logits = self._next_logits(batch.tokens[:, position, None], batch.seen[:, :columns], batch.cache)

    def _stopped(self, answers: Int[Tensor, "rows tokens"], settings: SamplingSettings) -> Bool[Tensor, " rows"]:
        """Which answers end with the last of their tokens, none having ended before."""
        ends = torch.tensor(sorted(self.eos_ids | set(settings.stop_ids)), dtype=torch.long, device=answers.device)
        stopped = torch.isin(answers[:, -1], ends)
        if settings.stop:
            assert self.text_of is not None
            width = max(len(text.encode()) for text in settings.stop) + _PARTS_OF_CHARACTERS
            for row, tail in enumerate(answers[:, -width:].tolist()):
                said = self.text_of(tail)
                stopped[row] |= any(text in said for text in settings.stop)
        return stopped

    def _prefilled(
        self, prompts: list[tuple[Draw, ...]], settings: SamplingSettings
    ) -> tuple["_Batch", Float[Tensor, "rows vocab"]]:
        """Pass what all prompts share once, then the rest of every prompt once, then repeat it for each draw."""
        sequences = [of_prompt[0].prompt_ids for of_prompt in prompts]
        cache = roomy_cache(self.model.config)
        shared = shared_length(sequences) if can_have_gaps(cache) else 0
        if shared:
            beginning = torch.tensor([sequences[0][:shared]], device=self.model.device)
            self._next_logits(beginning, torch.ones_like(beginning, dtype=torch.bool), cache)
            cache.batch_select_indices(beginning.new_zeros(len(prompts)))
        ids, seen = (part.to(self.model.device) for part in _left_padded([ids[shared:] for ids in sequences]))
        seen = torch.cat([seen.new_ones(len(prompts), shared), seen], dim=-1)
        logits = self._next_logits(ids, seen, cache)
        draws = [draw for of_prompt in prompts for draw in of_prompt]
        prompt_of_row = torch.tensor(
            [number for number, of_prompt in enumerate(prompts) for _ in of_prompt], device=ids.device
        )
        cache.batch_select_indices(prompt_of_row)
        new = (len(draws), settings.max_new_tokens)
        uniforms = np.stack([uniforms_of(draw.seed, settings.max_new_tokens) for draw in draws])
        batch = _Batch(
            draws=draws,
            uniforms=torch.from_numpy(uniforms).to(widest(ids.device)).to(ids.device),
            tokens=ids.new_zeros(new),
            sum_logps=torch.zeros(len(draws), dtype=widest(ids.device), device=ids.device),
            seen=torch.cat([seen[prompt_of_row], seen.new_ones(new)], dim=-1),
            held=None if settings.repetition_penalty == 1 else _held(sequences, logits)[prompt_of_row],
            cache=cache,
        )
        return batch, logits[prompt_of_row]

    def _next_logits(
        self, ids: Int[Tensor, "rows new"], seen: Bool[Tensor, "rows columns"], cache: DynamicCache
    ) -> Float[Tensor, "rows vocab"]:
        """Pass new tokens, the last columns of `seen`; a token's position counts the tokens seen before it."""
        positions = (seen.cumsum(dim=-1) - 1).clamp(min=0)[:, -ids.shape[-1] :]
        return self.model(
            input_ids=ids,
            attention_mask=seen,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]


@dataclass(frozen=True)
class _Batch:
    """Answers that are growing, one a row."""

    draws: list[Draw]
    uniforms: Float[Tensor, "rows new"]
    tokens: Int[Tensor, "rows new"]
    sum_logps: Float[Tensor, " rows"]
    seen: Bool[Tensor, "rows columns"]
    """What attention may see: all but the padding before a shorter prompt."""
    held: Bool[Tensor, "rows vocab"] | None
    """Which tokens prompt and answer hold; None without a repetition penalty."""
    cache: DynamicCache

    def without(self, stopped: Bool[Tensor, " rows"]) -> "_Batch":
        """The rows that go on. Those from the end take the places that became free, so that few have to move."""
        if not bool(stopped.any()):
            return self
        live = int((~stopped).sum())
        kept = torch.arange(live, device=stopped.device)
        kept[stopped[:live]] = (~stopped[live:]).nonzero()[:, 0] + live
        self.cache.batch_select_indices(kept)
        return _Batch(
            draws=[self.draws[row] for row in kept.tolist()],
            uniforms=self.uniforms[kept],
            tokens=self.tokens[kept],
            sum_logps=self.sum_logps[kept],
            seen=self.seen[kept],
            held=None if self.held is None else self.held[kept],
            cache=self.cache,
        )


def uniforms_of(seed: int, count: int) -> np.ndarray:
    """The random numbers of a draw, one a position, in [0, 1); a longer answer has the same ones first."""
    return np.random.Generator(np.random.Philox(key=seed)).random(count)


def _portions(draws: Sequence[Draw], rows: int) -> Iterator[list[tuple[Draw, ...]]]:
    """Prompts of similar length whose draws fill the rows, longest first so that memory runs out at once or never.

    The draws of a prompt are parted only if they alone are more than the rows.
    """
    prompts = together(draws, key=[draw.prompt_ids for draw in draws])
    prompts.sort(key=lambda of_prompt: -len(of_prompt[0].prompt_ids))
    portion: list[tuple[Draw, ...]] = []
    filled = 0
    for of_prompt in prompts:
        for start in range(0, len(of_prompt), rows):
            part = of_prompt[start : start + rows]
            if filled + len(part) > rows:
                yield portion
                portion, filled = [], 0
            portion.append(part)
            filled += len(part)
    if portion:
        yield portion


def _held(sequences: Sequence[Sequence[int]], logits: Float[Tensor, "rows vocab"]) -> Bool[Tensor, "rows vocab"]:
    """Which tokens of the vocabulary each sequence has."""
    held = torch.zeros_like(logits, dtype=torch.bool)
    for row, sequence in enumerate(sequences):
        held[row, torch.tensor(sequence, device=held.device)] = True
    return held


def _left_padded(sequences: Sequence[Sequence[int]]) -> tuple[Int[Tensor, "rows tokens"], Bool[Tensor, "rows tokens"]]:
    width = max(len(sequence) for sequence in sequences)
    ids = torch.tensor([[0] * (width - len(sequence)) + list(sequence) for sequence in sequences])
    starts = torch.tensor([width - len(sequence) for sequence in sequences])
    return ids, torch.arange(width) >= starts[:, None]

"""Answers of models with an attention of their own: prompts padded on the left, and transformers' cache, row by row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from prefloop.policy import can_have_gaps, closed_up, shared_length, widest
from prefloop.sampling.cache import roomy_cache
from prefloop.sampling.choice import choose, held_by, penalised
from prefloop.sampling.draws import parts_of, uniforms_of
from prefloop.sampling.ending import Ending
from prefloop.sampling.protocol import Answer, Draw, SamplingSettings


def grown_padded(
    model: PreTrainedModel, draws: Sequence[Draw], settings: SamplingSettings, rows: int, ending: Ending
) -> Iterator[Answer]:
    """One answer a draw, each as soon as it has ended; the next come when the last of these has.

    Args:
        model: any causal model.
        draws: that are wanted.
        settings: how tokens are drawn.
        rows: answers that grow at the same time.
        ending: what ends an answer.
    """
    for portion in _portions(draws, rows):
        yield from _Grower(model, settings, ending).grown(portion)


@dataclass(frozen=True)
class _Grower:
    model: PreTrainedModel
    settings: SamplingSettings
    ending: Ending

    def grown(self, prompts: list[tuple[Draw, ...]]) -> Iterator[Answer]:
        batch, logits = self._prefilled(prompts)
        settings = self.settings
        for position in range(settings.max_new_tokens):
            if batch.held is not None:
                logits = penalised(logits, batch.held, settings.repetition_penalty)
            choice = choose(logits, batch.uniforms[:, position], settings)
            batch.tokens[:, position] = choice.tokens
            batch.sum_logps.add_(choice.logps)
            if batch.held is not None:
                batch.held.scatter_(1, choice.tokens[:, None], value=True)
            tails = batch.tokens[:, max(0, position + 1 - self.ending.width) : position + 1].tolist()
            stopped = [self.ending.at(tail) for tail in tails]
            last = position + 1 == settings.max_new_tokens
            for row in range(len(batch.draws)):
                if last or stopped[row]:
                    yield Answer(
                        draw=batch.draws[row],
                        token_ids=tuple(batch.tokens[row, : position + 1].tolist()),
                        finish_reason="stop" if stopped[row] else "length",
                        sum_logp=batch.sum_logps[row].item(),
                    )
            if last or all(stopped):
                return
            batch = batch.without(stopped)
            columns = batch.seen.shape[-1] - settings.max_new_tokens + position + 1
            logits = self._next_logits(batch.tokens[:, position, None], batch.seen[:, :columns], batch.cache)

    def _prefilled(self, prompts: list[tuple[Draw, ...]]) -> tuple["_Batch", Float[Tensor, "rows vocab"]]:
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
        settings = self.settings
        new = (len(draws), settings.max_new_tokens)
        uniforms = np.stack([uniforms_of(draw.seed, settings.max_new_tokens) for draw in draws])
        batch = _Batch(
            draws=draws,
            uniforms=torch.from_numpy(uniforms).to(widest(ids.device)).to(ids.device),
            tokens=ids.new_zeros(new),
            sum_logps=torch.zeros(len(draws), dtype=widest(ids.device), device=ids.device),
            seen=torch.cat([seen[prompt_of_row], seen.new_ones(new)], dim=-1),
            held=None if settings.repetition_penalty == 1 else held_by(sequences, logits)[prompt_of_row],
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

    def without(self, stopped: Sequence[bool]) -> "_Batch":
        """The rows that go on. Those from the end take the places that became free, so that few have to move."""
        if not any(stopped):
            return self
        rows = closed_up(stopped)
        kept = torch.tensor(rows, device=self.tokens.device)
        self.cache.batch_select_indices(kept)
        return _Batch(
            draws=[self.draws[row] for row in rows],
            uniforms=self.uniforms[kept],
            tokens=self.tokens[kept],
            sum_logps=self.sum_logps[kept],
            seen=self.seen[kept],
            held=None if self.held is None else self.held[kept],
            cache=self.cache,
        )


def _portions(draws: Sequence[Draw], rows: int) -> Iterator[list[tuple[Draw, ...]]]:
    """Prompts of similar length whose draws fill the rows."""
    portion: list[tuple[Draw, ...]] = []
    filled = 0
    for part in parts_of(draws, rows):
        if filled + len(part) > rows:
            yield portion
            portion, filled = [], 0
        portion.append(part)
        filled += len(part)
    if portion:
        yield portion


def _left_padded(sequences: Sequence[Sequence[int]]) -> tuple[Int[Tensor, "rows tokens"], Bool[Tensor, "rows tokens"]]:
    width = max(len(sequence) for sequence in sequences)
    ids = torch.tensor([[0] * (width - len(sequence)) + list(sequence) for sequence in sequences])
    starts = torch.tensor([width - len(sequence) for sequence in sequences])
    return ids, torch.arange(width) >= starts[:, None]

"""What a model says about an answer: the plain way, one forward pass a batch, that faster ones are checked against."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from peft import PeftModel
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel

from prefloop.objectives import sequential_kl
from prefloop.policy.beginning import can_have_gaps, shared_length
from prefloop.policy.head import entropy, log_sum_sq, precise
from prefloop.policy.live import LiveReference
from prefloop.policy.precision import widest

T = TypeVar("T")


@dataclass(frozen=True)
class TokenRow:
    """One answer after its prompt, as tokens."""

    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    counted: tuple[bool, ...]
    """Which answer tokens enter the sum."""

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.answer_ids)


def response_logps(model: PreTrainedModel | PeftModel, rows: Sequence[TokenRow]) -> Float[Tensor, " rows"]:
    """Log pi(answer | prompt) of each row in nats, summed over its counted tokens; gradient flows."""
    return RowScores.of(model, rows).logps()


def prompt_logps(model: PreTrainedModel | PeftModel, prompts: Sequence[tuple[int, ...]]) -> Float[Tensor, " rows"]:
    """Log-probability of each prompt's tokens after the first, summed."""
    return response_logps(model, [TokenRow(ids[:1], ids[1:], (True,) * (len(ids) - 1)) for ids in prompts])


@dataclass(frozen=True)
class RowScores:
    """One pass over some rows, in which all answers end together; what is asked of it is computed from its logits.

    Everything is computed in the model's precision but at least float32, and summed in float64. Values of tokens are
    padded on the right, and 0 where a token is not counted.
    """

    rows: Sequence[TokenRow]
    logits: Float[Tensor, "rows tokens vocab"]
    """Of the distribution that each answer token was drawn from, at least float32."""
    ids: Int[Tensor, "rows tokens"]
    is_counted: Bool[Tensor, "rows tokens"]
    states: Float[Tensor, "rows tokens+1 width"] | None
    """Hidden states before each answer token and at the last one, behind the last norm, where they were asked for."""

    @classmethod
    def of(
        cls, model: PreTrainedModel | PeftModel, rows: Sequence[TokenRow], *, with_states: bool = False
    ) -> "RowScores":
        """Rows are padded on the left, so that the language-model head runs on answers only; gradient flows.

        What all prompts begin with passes once, where the model's cache allows a gap behind it.
        """
        cache = DynamicCache(config=model.config)
        shared = shared_length([row.prompt_ids for row in rows]) if can_have_gaps(cache) else 0
        if shared:
            beginning = torch.tensor([rows[0].prompt_ids[:shared]], device=model.device)
            model(input_ids=beginning, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache.batch_repeat_interleave(len(rows))
        longest_answer = max(len(row.answer_ids) for row in rows)
        longest = max(len(row) for row in rows) - shared
        input_ids = torch.zeros(len(rows), longest, dtype=torch.long, device=model.device)
        is_real = torch.ones(len(rows), shared + longest, dtype=torch.long, device=model.device)
        is_counted = torch.zeros(len(rows), longest_answer, dtype=torch.bool, device=model.device)
        for number, row in enumerate(rows):
            padding = longest - (len(row) - shared)
            ids = (*row.prompt_ids[shared:], *row.answer_ids)
            input_ids[number, padding:] = torch.tensor(ids, device=model.device)
            is_real[number, shared : shared + padding] = 0
            is_counted[number, longest_answer - len(row.answer_ids) :] = torch.tensor(row.counted, device=model.device)
        found = model(
            input_ids=input_ids,
            attention_mask=is_real,
            position_ids=(is_real.cumsum(1) - 1).clamp(min=0)[:, shared:],
            past_key_values=cache if shared else None,
            use_cache=bool(shared),
            logits_to_keep=longest_answer + 1,
            output_hidden_states=with_states,
        )
        answer_ids = input_ids[:, longest - longest_answer :]
        states = found.hidden_states[-1][:, -longest_answer - 1 :] if with_states else None
        return cls(rows, precise(found.logits[:, :-1]), answer_ids, is_counted, states)

    def logps(self) -> Float[Tensor, " rows"]:
        """Log-probability of each answer's counted tokens, summed: each is logit minus logsumexp."""
        return self._each_logp().to(widest(self.logits.device)).masked_fill(~self.is_counted, 0.0).sum(1)

    def token_logps(self) -> Float[Tensor, "rows tokens"]:
        """Log-probability of each answer token."""
        return self._from_the_left(self._each_logp())

    def token_log_sum_sq(self) -> Float[Tensor, "rows tokens"]:
        """Log sum_v p_v^2 of the next token: with what probability two draws agree."""
        return self._from_the_left(log_sum_sq(self.logits))

    def token_entropy(self) -> Float[Tensor, "rows tokens"]:
        """Entropy of the next token, in nats."""
        return self._from_the_left(entropy(self.logits))

    def seq_kl(self, live: LiveReference) -> Float[Tensor, " rows"]:
        """`sequential_kl` from a reference that is loaded; gradient flows through the policy only."""
        with live.active() as reference:
            other = RowScores.of(reference, self.rows).logits
        return sequential_kl(self.logits, other, self.is_counted).to(widest(self.logits.device))

    def token_states(self) -> Float[Tensor, "rows tokens width"]:
        """Hidden state before each answer token, for heads on tokens; not masked, but padded with 0."""
        assert self.states is not None, "asked for with with_states"
        return pad_sequence(
            [own[-1 - len(row.answer_ids) : -1] for own, row in zip(self.states, self.rows, strict=True)],
            batch_first=True,
        )

    def last_states(self) -> Float[Tensor, "rows width"]:
        """Hidden state at the last token of each answer, which has seen all of it, for heads on answers."""
        assert self.states is not None, "asked for with with_states"
        return self.states[:, -1]

    def _each_logp(self) -> Float[Tensor, "rows tokens"]:
        return self.logits.gather(2, self.ids.unsqueeze(2)).squeeze(2) - self.logits.logsumexp(2)

    def _from_the_left(self, values: Float[Tensor, "rows tokens"]) -> Float[Tensor, "rows tokens"]:
        """Answers that ended together begin together; float64, 0 where a token is not counted."""
        counted = values.to(widest(values.device)).masked_fill(~self.is_counted, 0.0)
        parts = [own[len(own) - len(row.answer_ids) :] for own, row in zip(counted, self.rows, strict=True)]
        return pad_sequence(parts, batch_first=True)


def batches_within(items: Sequence[T], sizes: Sequence[int], budget: int) -> Iterator[list[T]]:
    """Neighbouring items together while their padded tokens stay within a budget; at least one item at a time.

    Args:
        items: what is cut into batches; the order stays.
        sizes: tokens of each item's longest row; all items have the same number of rows.
        budget: largest padded size of a batch, in tokens of one row an item.
    """
    batch: list[T] = []
    longest = 0
    for item, size in zip(items, sizes, strict=True):
        if batch and max(longest, size) * (len(batch) + 1) > budget:
            yield batch
            batch, longest = [], 0
        batch.append(item)
        longest = max(longest, size)
    if batch:
        yield batch


def score_rows(
    model: PreTrainedModel | PeftModel,
    rows: Sequence[TokenRow],
    tokens_per_batch: int,
    said: Callable[[RowScores], Float[Tensor, " rows"]] = RowScores.logps,
) -> Iterator[float]:
    """What a model says of each of many rows without gradient, within a budget of padded tokens, in the order given."""
    for batch in batches_within(rows, [len(row) for row in rows], tokens_per_batch):
        with torch.inference_mode():
            yield from said(RowScores.of(model, batch)).tolist()

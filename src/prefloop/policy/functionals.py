"""What a model says about an answer: the plain way, one forward pass a batch, that faster ones are checked against."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from peft import PeftModel
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from prefloop.policy.beginning import can_have_gaps, shared_length
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


@dataclass(frozen=True)
class TokenScores:
    """What a model says about the tokens of some answers, padded on the right; 0 where a token is not counted."""

    logps: Float[Tensor, "rows tokens"]
    log_sum_sq: Float[Tensor, "rows tokens"]
    """log sum_v p_v^2 of the next token: with what probability two draws agree."""


def response_logps(model: PreTrainedModel | PeftModel, rows: Sequence[TokenRow]) -> Float[Tensor, " rows"]:
    """Log pi(answer | prompt) of each row in nats, summed over its counted tokens; gradient flows.

    Each token is logit minus logsumexp, in the model's precision but at least float32; the sum is in float64.
    """
    answers = _answers(model, rows)
    logps = _token_logps(answers)
    return logps.to(widest(logps.device)).masked_fill(~answers.is_counted, 0.0).sum(1)


def response_token_scores(model: PreTrainedModel | PeftModel, rows: Sequence[TokenRow]) -> TokenScores:
    """What `response_logps` sums, token by token in float64, and how concentrated each prediction is."""
    answers = _answers(model, rows)
    log_sum_sq = (2 * answers.logits).logsumexp(2) - 2 * answers.logits.logsumexp(2)
    return TokenScores(_from_the_left(_token_logps(answers), answers, rows), _from_the_left(log_sum_sq, answers, rows))


def prompt_logps(model: PreTrainedModel | PeftModel, prompts: Sequence[tuple[int, ...]]) -> Float[Tensor, " rows"]:
    """Log-probability of each prompt's tokens after the first, summed."""
    return response_logps(model, [TokenRow(ids[:1], ids[1:], (True,) * (len(ids) - 1)) for ids in prompts])


@dataclass(frozen=True)
class _Answers:
    """A forward pass: all answers end together."""

    logits: Float[Tensor, "rows tokens vocab"]
    """Of the distribution that each answer token was drawn from, at least float32."""
    ids: Int[Tensor, "rows tokens"]
    is_counted: Bool[Tensor, "rows tokens"]


def _answers(model: PreTrainedModel | PeftModel, rows: Sequence[TokenRow]) -> _Answers:
    """Rows are padded on the left, so that the language-model head runs on answers only.

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
    logits = model(
        input_ids=input_ids,
        attention_mask=is_real,
        position_ids=(is_real.cumsum(1) - 1).clamp(min=0)[:, shared:],
        past_key_values=cache if shared else None,
        use_cache=bool(shared),
        logits_to_keep=longest_answer + 1,
    ).logits[:, :-1]
    logits = logits if logits.dtype == torch.float64 else logits.float()
    answer_ids = input_ids[:, longest - longest_answer :]
    return _Answers(logits, answer_ids, is_counted)


def _token_logps(answers: _Answers) -> Float[Tensor, "rows tokens"]:
    return answers.logits.gather(2, answers.ids.unsqueeze(2)).squeeze(2) - answers.logits.logsumexp(2)


def _from_the_left(
    values: Float[Tensor, "rows tokens"], answers: _Answers, rows: Sequence[TokenRow]
) -> Float[Tensor, "rows tokens"]:
    """Answers that ended together begin together; float64, 0 where a token is not counted."""
    longest = values.shape[1]
    counted = values.to(widest(values.device)).masked_fill(~answers.is_counted, 0.0)
    return torch.stack(
        [
            torch.nn.functional.pad(own[longest - len(row.answer_ids) :], (0, longest - len(row.answer_ids)))
            for own, row in zip(counted, rows, strict=True)
        ]
    )


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


def score_rows(model: PreTrainedModel | PeftModel, rows: Sequence[TokenRow], tokens_per_batch: int) -> Iterator[float]:
    """`response_logps` of many rows without gradient, within a budget of padded tokens, in the order given."""
    for batch in batches_within(rows, [len(row) for row in rows], tokens_per_batch):
        with torch.inference_mode():
            yield from response_logps(model, batch).tolist()

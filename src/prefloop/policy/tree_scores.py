"""What a model says about answers whose beginnings are shared, in one pass without padding."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from prefloop.policy.functionals import RowScores, TokenRow
from prefloop.policy.head import (
    HeadOptions,
    head_of,
    token_concentration,
    token_entropy,
    token_kl,
    token_logps,
    tokens_at_once,
    trained_weights,
)
from prefloop.policy.live import LiveReference
from prefloop.policy.tree_attention import BEHIND, BY_BLOCKS, tree_attention
from prefloop.policy.trees import WORTH_SHARING, Forest

WITHIN = 1e-3
"""Nats a token by which a model may say something else of a tree than of its rows: float32 in another order."""
UNKNOWN = (NotImplementedError, RuntimeError, TypeError, ValueError, AttributeError, LookupError)
"""What a model raises that is built in another way than it seems to be."""


@dataclass(frozen=True)
class TreeScores:
    """One pass over some rows; what is asked of it is computed from its hidden states, as `RowScores` says it."""

    model: PreTrainedModel
    rows: Sequence[TokenRow]
    forest: Forest
    hidden: Float[Tensor, "tokens width"]

    @classmethod
    def of(cls, model: PreTrainedModel | PeftModel, rows: Sequence[TokenRow]) -> "TreeScores":
        """Rows through the model's layers; gradient flows where it is enabled."""
        causal: PreTrainedModel = model.get_base_model() if isinstance(model, PeftModel) else model  # pyright: ignore[reportAssignmentType]
        forest = forest_of(rows, by_blocks=causal.device.type in BY_BLOCKS)
        return cls(causal, rows, forest, forest_states(causal, forest))

    def token_logps(self) -> Float[Tensor, "rows tokens"]:
        """Log-probability of each answer token, padded on the right; 0 where it is not counted."""
        return self._of_answers(
            self._head(self._before_answers(), [token for row in self.rows for token in row.answer_ids], keep=True)
        )

    def logps(self) -> Float[Tensor, " rows"]:
        """Log-probability of each answer's counted tokens, summed."""
        return self.token_logps().sum(1)

    def token_log_sum_sq(self) -> Float[Tensor, "rows tokens"]:
        """How concentrated the prediction of each answer token is."""
        return self._of_answers(token_concentration(head_of(self.model), self._states(), self._how))

    def token_entropy(self) -> Float[Tensor, "rows tokens"]:
        """Entropy of the prediction of each answer token."""
        return self._of_answers(token_entropy(head_of(self.model), self._states(), self._how))

    def seq_kl(self, live: LiveReference) -> Float[Tensor, " rows"]:
        """KL(reference || policy) summed over an answer's counted tokens; both distributions a few tokens at a time."""
        with live.active() as model:
            reference = TreeScores.of(model, self.rows)
        own_head = head_of(reference.model)

        def ref_head(states: Tensor) -> Tensor:
            with live.active():  # the head may have an adapter, too
                return own_head(states)

        kl = token_kl(head_of(self.model), self._states(), ref_head, reference._states(), self._how)
        return self._of_answers(kl).sum(1)

    def token_states(self) -> Float[Tensor, "rows tokens width"]:
        """Hidden state before each answer token; not masked, but padded with 0."""
        return pad_sequence(list(self._states().split([len(row.answer_ids) for row in self.rows])), batch_first=True)

    def last_states(self) -> Float[Tensor, "rows width"]:
        """Hidden state at the last token of each answer."""
        last = [int(self.forest.places(row)[-1]) for row in range(len(self.rows))]
        return self.hidden[torch.tensor(last, device=self.hidden.device)]

    def prompt_logps(self, rows: Sequence[int]) -> Float[Tensor, " rows"]:
        """Log-probability of the prompts of some rows, each token after the first, summed."""
        lengths = [len(self.rows[row].prompt_ids) - 1 for row in rows]
        before = [self._before(row, 1)[:length] for row, length in zip(rows, lengths, strict=True)]
        ids = [token for row in rows for token in self.rows[row].prompt_ids[1:]]
        found = self._head(torch.cat(before), ids, keep=False)
        return torch.stack([one.sum() for one in found.split(lengths)])

    def _head(self, before: Tensor, ids: Sequence[int], *, keep: bool) -> Tensor:
        targets = torch.tensor(ids, dtype=torch.long, device=self.hidden.device)  # also of no tokens
        return token_logps(head_of(self.model), self.hidden[before], targets, self._how, keep=keep)

    def _states(self) -> Tensor:
        return self.hidden[self._before_answers()]

    def _before_answers(self) -> Tensor:
        return torch.cat([self._before(row, len(one.prompt_ids)) for row, one in enumerate(self.rows)])

    def _before(self, row: int, start: int) -> Tensor:
        """Places of the tokens before each token of a row from one on."""
        return self.forest.places(row)[start - 1 : -1].to(self.hidden.device)

    def _of_answers(self, values: Tensor) -> Tensor:
        """A line for each row, padded on the right; 0 where a token is not counted."""
        counted = [torch.tensor(row.counted, device=values.device) for row in self.rows]
        parts = values.split([len(row.answer_ids) for row in self.rows])
        kept = [part.masked_fill(~own, 0.0) for part, own in zip(parts, counted, strict=True)]
        return pad_sequence(kept, batch_first=True)

    @property
    def _how(self) -> HeadOptions:
        weights = trained_weights(self.model.get_output_embeddings())
        vocab = self.model.config.get_text_config().vocab_size
        return {"at_once": tokens_at_once(vocab, on_cuda=self.model.device.type == "cuda"), "weights": weights}


def forest_of(rows: Sequence[TokenRow], *, by_blocks: bool) -> Forest:
    """The forest in which rows pass.

    Args:
        rows: that pass together.
        by_blocks: FlexAttention attends, block by block.
    """
    return Forest.of([(*row.prompt_ids, *row.answer_ids) for row in rows], BEHIND if by_blocks else None)


def forest_states(
    model: PreTrainedModel, forest: Forest, kept: list[tuple[Tensor, Tensor]] | None = None
) -> Float[Tensor, "tokens width"]:
    """Hidden states of all tokens of a forest behind the last norm, each as in its own row alone.

    Args:
        model: without adapters, or what they were laid on.
        forest: that passes.
        kept: gets the keys and the values of each layer, as (heads, tokens, width).
    """
    ids = torch.tensor([forest.ids], device=model.device)
    with tree_attention(model, forest, kept):
        passed = model.base_model(
            input_ids=ids, position_ids=forest.positions()[None].to(model.device), use_cache=False
        )
    return passed.last_hidden_state[0]


def may_take_trees(model: PreTrainedModel) -> bool:
    """Whether a model is built of attention that trees can be put under, as far as its class says."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    attention: bool = model._supports_attention_backend and not model._is_stateful  # pyright: ignore[reportPrivateUsage]
    return attention and kinds <= {"full_attention", "sliding_attention"}


def takes_trees(model: PreTrainedModel) -> bool:
    """Whether a model says of a small tree what it says of its rows, each alone."""
    if not may_take_trees(model):
        return False
    vocab = model.config.get_text_config().vocab_size
    ids = [number * 7919 % vocab for number in range(3 * WORTH_SHARING)]
    prompt, rest = tuple(ids[: 2 * WORTH_SHARING]), tuple(ids[2 * WORTH_SHARING :])
    rows = [TokenRow(prompt, answer, (True,) * len(answer)) for answer in (rest, rest[3:], rest[:5])]
    with torch.inference_mode():
        try:
            passed = TreeScores.of(model, rows)
            found = passed.token_logps(), passed.token_log_sum_sq()
        except UNKNOWN:
            return False
        alone = [RowScores.of(model, [row]) for row in rows]
    pairs = (
        (tree[number, : own.shape[1]], own[0])
        for number, one in enumerate(alone)
        for tree, own in zip(found, (one.token_logps(), one.token_log_sum_sq()), strict=True)
    )
    return all(torch.allclose(tree, own, rtol=0, atol=WITHIN) for tree, own in pairs)

"""What a model says about answers whose beginnings are shared, in one pass without padding."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from prefloop.policy.functionals import TokenRow, TokenScores, response_token_scores
from prefloop.policy.head import HeadOptions, head_of, is_trained, token_concentration, token_logps, tokens_at_once
from prefloop.policy.tree_attention import tree_attention
from prefloop.policy.trees import WORTH_SHARING, Forest

WITHIN = 1e-3
"""Nats a token by which a model may say something else of a tree than of its rows: float32 in another order."""
UNKNOWN = (NotImplementedError, RuntimeError, TypeError, ValueError, AttributeError, LookupError)
"""What a model raises that is built in another way than it seems to be."""


@dataclass(frozen=True)
class TreeScores:
    """One pass over some rows; what is asked of it is computed from its hidden states."""

    model: PreTrainedModel
    rows: Sequence[TokenRow]
    forest: Forest
    hidden: Float[Tensor, "tokens width"]

    @classmethod
    def of(cls, model: PreTrainedModel | PeftModel, rows: Sequence[TokenRow]) -> "TreeScores":
        """Rows through the model's layers; gradient flows where it is enabled."""
        causal: PreTrainedModel = model.get_base_model() if isinstance(model, PeftModel) else model  # pyright: ignore[reportAssignmentType]
        forest = Forest.of([(*row.prompt_ids, *row.answer_ids) for row in rows])
        ids = torch.tensor([forest.ids], device=causal.device)
        with tree_attention(causal, forest):
            hidden = causal.base_model(
                input_ids=ids, position_ids=forest.positions()[None].to(causal.device), use_cache=False
            ).last_hidden_state[0]
        return cls(causal, rows, forest, hidden)

    def token_logps(self) -> Float[Tensor, "rows tokens"]:
        """Log-probability of each answer token, padded on the right; 0 where it is not counted."""
        return self._of_answers(
            self._head(self._before_answers(), [token for row in self.rows for token in row.answer_ids])
        )

    def token_log_sum_sq(self) -> Float[Tensor, "rows tokens"]:
        """How concentrated the prediction of each answer token is, as in `TokenScores`."""
        hidden = self.hidden[self._before_answers()]
        return self._of_answers(token_concentration(head_of(self.model), hidden, **self._how))

    def prompt_logps(self, rows: Sequence[int]) -> Float[Tensor, " rows"]:
        """Log-probability of the prompts of some rows, each token after the first, summed."""
        lengths = [len(self.rows[row].prompt_ids) - 1 for row in rows]
        before = [self._before(row, 1)[:length] for row, length in zip(rows, lengths, strict=True)]
        ids = [token for row in rows for token in self.rows[row].prompt_ids[1:]]
        found = self._head(torch.cat(before), ids)
        return torch.stack([one.sum() for one in found.split(lengths)])

    def _head(self, before: Tensor, ids: Sequence[int]) -> Tensor:
        targets = torch.tensor(ids, dtype=torch.long, device=self.hidden.device)  # also of no tokens
        return token_logps(head_of(self.model), self.hidden[before], targets, **self._how)

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
        trained = is_trained(self.model.get_output_embeddings())
        return {"at_once": tokens_at_once(self.model.config.get_text_config().vocab_size), "trained": trained}


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
            found = TokenScores(passed.token_logps(), passed.token_log_sum_sq())
        except UNKNOWN:
            return False
        alone = [response_token_scores(model, [row]) for row in rows]
    pairs = (
        (tree[number, : own.shape[1]], own[0])
        for number, one in enumerate(alone)
        for tree, own in ((found.logps, one.logps), (found.log_sum_sq, one.log_sum_sq))
    )
    return all(torch.allclose(tree, own, rtol=0, atol=WITHIN) for tree, own in pairs)

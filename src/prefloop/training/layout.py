"""How the answers of a micro-batch stand in a forward pass: row by row, the oracle, or as trees, the fast way."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from prefloop.policy import (
    BatchShape,
    LiveReference,
    ModelFacts,
    RowScores,
    TokenRow,
    TreeScores,
    batches_within,
    forest_of,
    prompt_logps,
    shared_length,
)
from prefloop.policy.model_heads import OF_TOKENS, Heads, of_states
from prefloop.training.rows import TokenExample

TOKEN_FUNCTIONALS = frozenset({"token_logps", "token_log_sum_sq", "token_entropy", "token_values"})
CLASS_FUNCTIONALS = frozenset({"head_logits"})
"""Functionals with several numbers an answer."""
NO_HEADS: Heads = MappingProxyType({})

Model = PreTrainedModel | PeftModel


@dataclass(frozen=True)
class Budget:
    """How much passes through a model at once."""

    tokens: int
    splits_examples: bool = False
    """An example that is larger passes answer by answer; else it passes alone, whole."""

    def halved(self) -> "Budget":
        """Half of it, whatever is larger being split."""
        return Budget(max(1, self.tokens // 2), splits_examples=True)


@dataclass(frozen=True)
class Layout:
    """A way to lay out a micro-batch."""

    name: str
    scores: Callable[
        [Model, Sequence[TokenRow], Collection[str], Sequence[int], LiveReference | None, Heads], dict[str, Tensor]
    ]
    """What a model says of some answers: `logps` and other functionals where they are asked for, a line an answer;
    those of tokens are as wide as the longest answer, padded with 0. `prompt_logps` are of the answers whose places
    are named; `seq_kl` is from a live reference, which passes over the same answers in the same layout. Where `rewards`
    are asked for there are no `logps`: a reward model does not use its language-model head, which would cost most."""
    cut: Callable[[Mapping[int, TokenExample], int], Iterator[list[int]]]
    """The examples of an optimiser step, by index, in micro-batches that fit a budget of tokens; a larger example
    stands alone."""
    size: Callable[[Sequence[TokenRow]], int]
    """Tokens that some answers of one example take."""
    shape: Callable[[Sequence[TokenRow], ModelFacts], BatchShape]
    """What decides how much memory some answers take."""


def cut_rows(examples: Mapping[int, TokenExample], tokens_per_batch: int) -> Iterator[list[int]]:
    """Examples of similar length together."""
    ordered = sorted(examples, key=lambda index: examples[index].longest)
    sizes = [examples[index].longest * len(examples[index].rows) for index in ordered]
    return batches_within(ordered, sizes, tokens_per_batch)


def scores_of_rows(
    model: Model,
    rows: Sequence[TokenRow],
    functionals: Collection[str] = (),
    prompts: Sequence[int] = (),
    live: LiveReference | None = None,
    heads: Heads = NO_HEADS,
) -> dict[str, Tensor]:
    """All answers go through one forward pass, padded on the left; prompts through another."""
    found = _of_answers(RowScores.of(model, rows, with_states=bool(heads)), functionals, live, heads)
    if prompts:
        found["prompt_logps"] = prompt_logps(model, [rows[place].prompt_ids for place in prompts])
    return found


def _of_answers(
    passed: RowScores | TreeScores, functionals: Collection[str], live: LiveReference | None, heads: Heads
) -> dict[str, Tensor]:
    """What is asked of a pass, a line an answer."""
    found = {name: _of_head(passed, name, head) for name, head in heads.items() if name in functionals}
    if "rewards" in found:
        return found
    if "token_logps" in functionals:
        found["token_logps"] = passed.token_logps()
    found["logps"] = found["token_logps"].sum(1) if "token_logps" in found else passed.logps()
    if "token_log_sum_sq" in functionals:
        found["token_log_sum_sq"] = passed.token_log_sum_sq()
    if not {"entropy", "token_entropy"}.isdisjoint(functionals):
        found["token_entropy"] = passed.token_entropy()
        found["entropy"] = found["token_entropy"].sum(1)
    if "seq_kl" in functionals:
        assert live is not None, "seq_kl needs a reference that stays loaded"
        found["seq_kl"] = passed.seq_kl(live)
    return found


def _of_head(passed: RowScores | TreeScores, name: str, head: nn.Linear) -> Tensor:
    """What a head says of each answer, or before each of its tokens: 0 where a token is not counted."""
    if name in CLASS_FUNCTIONALS:
        return of_states(head, passed.last_states())
    if name not in OF_TOKENS:
        return of_states(head, passed.last_states())[:, 0]
    of_tokens = of_states(head, passed.token_states())[:, :, 0]
    counted = [torch.tensor(row.counted, device=of_tokens.device) for row in passed.rows]
    return of_tokens.masked_fill(~pad_sequence(counted, batch_first=True), 0.0)


def computed(functionals: Collection[str]) -> set[str]:
    """Functionals with what is always told of an answer: its log-probability, where it has no reward."""
    return {*functionals} if "rewards" in functionals else {"logps", *functionals}


def size_of_rows(rows: Sequence[TokenRow]) -> int:
    """Padded tokens."""
    return max(map(len, rows)) * len(rows)


def shape_of_rows(rows: Sequence[TokenRow], facts: ModelFacts) -> BatchShape:
    """Rows as `response_logps` lays them out."""
    return BatchShape.of_rows(
        rows=len(rows),
        longest=max(map(len, rows)),
        answer=max(len(row.answer_ids) for row in rows),
        shared=shared_length([row.prompt_ids for row in rows]) if facts.shares_beginnings else 0,
    )


def scores_of_trees(
    model: Model,
    rows: Sequence[TokenRow],
    functionals: Collection[str] = (),
    prompts: Sequence[int] = (),
    live: LiveReference | None = None,
    heads: Heads = NO_HEADS,
) -> dict[str, Tensor]:
    """All answers and prompts go through one forward pass without padding; what begins alike passes once."""
    passed = TreeScores.of(model, rows)
    found = _of_answers(passed, functionals, live, heads)
    if prompts:
        found["prompt_logps"] = passed.prompt_logps(prompts)
    return found


def cut_trees(examples: Mapping[int, TokenExample], tokens_per_batch: int) -> Iterator[list[int]]:
    """Examples with prompts that begin alike together; a prompt counts once, its answers one by one."""
    batch: list[int] = []
    taken = 0
    for index in sorted(examples, key=lambda index: examples[index].prompt_ids):
        size = size_of_trees(list(examples[index].rows.values()))
        if batch and taken + size > tokens_per_batch:
            yield batch
            batch, taken = [], 0
        batch.append(index)
        taken += size
    yield batch


def size_of_trees(rows: Sequence[TokenRow]) -> int:
    """The prompt once, and all answers."""
    return len(rows[0].prompt_ids) + sum(len(row.answer_ids) for row in rows)


def shape_of_trees(rows: Sequence[TokenRow], facts: ModelFacts) -> BatchShape:
    """The forest of some answers."""
    forest = forest_of(rows, by_blocks=facts.on_cuda)
    return BatchShape.of_forest(forest, answers=sum(len(row.answer_ids) for row in rows), facts=facts)


ROWS = Layout("rows", scores_of_rows, cut_rows, size_of_rows, shape_of_rows)
TREES = Layout("trees", scores_of_trees, cut_trees, size_of_trees, shape_of_trees)

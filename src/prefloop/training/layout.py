"""How the answers of a micro-batch stand in a forward pass: row by row, the oracle, or as trees, the fast way."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from prefloop.policy import (
    BatchShape,
    Forest,
    ModelFacts,
    TokenRow,
    TreeScores,
    batches_within,
    prompt_logps,
    response_logps,
    response_token_scores,
    shared_length,
)
from prefloop.training.rows import TokenExample

TOKEN_FUNCTIONALS = frozenset({"token_logps", "token_log_sum_sq"})

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
    scores: Callable[[Model, Sequence[TokenRow], Collection[str], Sequence[int]], dict[str, Tensor]]
    """What a model says of some answers: `logps` and other functionals where they are asked for, a line an answer;
    those of tokens are as wide as the longest answer, padded with 0. `prompt_logps` are of the answers whose places
    are named."""
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
    model: Model, rows: Sequence[TokenRow], functionals: Collection[str] = (), prompts: Sequence[int] = ()
) -> dict[str, Tensor]:
    """All answers go through one forward pass, padded on the left; prompts through another."""
    if TOKEN_FUNCTIONALS.isdisjoint(functionals):
        found = {"logps": response_logps(model, rows)}
    else:
        tokens = response_token_scores(model, rows)
        found = {"logps": tokens.logps.sum(1), "token_logps": tokens.logps, "token_log_sum_sq": tokens.log_sum_sq}
    if prompts:
        found["prompt_logps"] = prompt_logps(model, [rows[place].prompt_ids for place in prompts])
    return found


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
    model: Model, rows: Sequence[TokenRow], functionals: Collection[str] = (), prompts: Sequence[int] = ()
) -> dict[str, Tensor]:
    """All answers and prompts go through one forward pass without padding; what begins alike passes once."""
    passed = TreeScores.of(model, rows)
    tokens = passed.token_logps()
    found = {"logps": tokens.sum(1)}
    if "token_logps" in functionals:
        found["token_logps"] = tokens
    if "token_log_sum_sq" in functionals:
        found["token_log_sum_sq"] = passed.token_log_sum_sq()
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
    forest = Forest.of([(*row.prompt_ids, *row.answer_ids) for row in rows])
    return BatchShape.of_forest(forest, answers=sum(len(row.answer_ids) for row in rows), facts=facts)


ROWS = Layout("rows", scores_of_rows, cut_rows, size_of_rows, shape_of_rows)
TREES = Layout("trees", scores_of_trees, cut_trees, size_of_trees, shape_of_trees)

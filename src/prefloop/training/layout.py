"""How the answers of a micro-batch stand in a forward pass: row by row, the oracle, or as trees, the fast way."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from prefloop.policy import (
    BatchShape,
    Forest,
    LiveReference,
    ModelFacts,
    RowScores,
    TokenRow,
    TreeScores,
    batches_within,
    prompt_logps,
    shared_length,
)
from prefloop.training.rows import TokenExample

TOKEN_FUNCTIONALS = frozenset({"token_logps", "token_log_sum_sq", "token_entropy"})

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
        [Model, Sequence[TokenRow], Collection[str], Sequence[int], LiveReference | None], dict[str, Tensor]
    ]
    """What a model says of some answers: `logps` and other functionals where they are asked for, a line an answer;
    those of tokens are as wide as the longest answer, padded with 0. `prompt_logps` are of the answers whose places
    are named; `seq_kl` is from a live reference, which passes over the same answers in the same layout."""
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
) -> dict[str, Tensor]:
    """All answers go through one forward pass, padded on the left; prompts through another."""
    found = _of_answers(RowScores.of(model, rows), functionals, live)
    if prompts:
        found["prompt_logps"] = prompt_logps(model, [rows[place].prompt_ids for place in prompts])
    return found


def _of_answers(
    passed: RowScores | TreeScores, functionals: Collection[str], live: LiveReference | None
) -> dict[str, Tensor]:
    """What is asked of a pass, a line an answer."""
    found: dict[str, Tensor] = {}
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
) -> dict[str, Tensor]:
    """All answers and prompts go through one forward pass without padding; what begins alike passes once."""
    passed = TreeScores.of(model, rows)
    found = _of_answers(passed, functionals, live)
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

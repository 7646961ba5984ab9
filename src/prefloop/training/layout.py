"""How the answers of a micro-batch stand in a forward pass: row by row, the oracle, or as trees, the fast way."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from prefloop.objectives import Objective
from prefloop.policy import (
    BatchShape,
    Forest,
    ModelFacts,
    TreeScores,
    batches_within,
    prompt_logps,
    response_logps,
    response_token_scores,
    shared_length,
)
from prefloop.training.rows import TokenExample

TOKEN_FUNCTIONALS = {"token_logps", "token_log_sum_sq"}

Model = PreTrainedModel | PeftModel


@dataclass(frozen=True)
class Layout:
    """A way to lay out a micro-batch."""

    name: str
    scores: Callable[[Model, Sequence[TokenExample], Sequence[str], Collection[str]], dict[str, Tensor]]
    """What a model says of a micro-batch: `{role}_logps`, and other functionals where they are asked for. Columns of
    tokens are as wide as the role's longest answer, padded with 0."""
    cut: Callable[[Sequence[TokenExample], Sequence[int], int | None], Iterator[list[int]]]
    """The examples of an optimiser step in micro-batches that fit a budget of tokens; None keeps them together."""
    shape: Callable[[Sequence[TokenExample], ModelFacts], BatchShape]
    """What decides how much memory a micro-batch takes."""


def step_budget(objective: Objective, tokens_per_batch: int) -> int | None:
    """Padded tokens of a forward pass; None where an optimiser step has to stay together."""
    return None if objective.whole_step else tokens_per_batch


def cut_rows(
    examples: Sequence[TokenExample], step: Sequence[int], tokens_per_batch: int | None
) -> Iterator[list[int]]:
    """The examples of an optimiser step in pieces that fit a forward pass, examples of similar length together."""
    ordered = sorted(step, key=lambda index: examples[index].longest)
    if tokens_per_batch is None:
        return iter([ordered])
    sizes = [examples[index].longest * len(examples[index].rows) for index in ordered]
    return batches_within(ordered, sizes, tokens_per_batch)


def scores_of_rows(
    model: Model, examples: Sequence[TokenExample], roles: Sequence[str], functionals: Collection[str] = ()
) -> dict[str, Tensor]:
    """All answers go through one forward pass, padded on the left; prompts through another."""
    rows = [example.rows[role] for role in roles for example in examples]
    if TOKEN_FUNCTIONALS.isdisjoint(functionals):
        found = {"logps": response_logps(model, rows)}
    else:
        tokens = response_token_scores(model, rows)
        found = {"logps": tokens.logps.sum(1), "token_logps": tokens.logps, "token_log_sum_sq": tokens.log_sum_sq}
    scores = _by_role(examples, roles, found)
    if "prompt_logps" in functionals:
        scores["prompt_logps"] = prompt_logps(model, [example.prompt_ids for example in examples])
    return scores


def _by_role(examples: Sequence[TokenExample], roles: Sequence[str], found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Functionals of all answers, those of one role behind those of another, by role."""
    scores: dict[str, Tensor] = {}
    for number, role in enumerate(roles):
        of_role = slice(number * len(examples), (number + 1) * len(examples))
        longest = max(len(example.rows[role].answer_ids) for example in examples)
        for name, values in found.items():
            scores[f"{role}_{name}"] = values[of_role, :longest] if name in TOKEN_FUNCTIONALS else values[of_role]
    return scores


def shape_of_rows(examples: Sequence[TokenExample], facts: ModelFacts) -> BatchShape:
    """The rows of a micro-batch as `response_logps` lays them out."""
    rows = [row for example in examples for row in example.rows.values()]
    return BatchShape.of_rows(
        rows=len(rows),
        longest=max(map(len, rows)),
        answer=max(len(row.answer_ids) for row in rows),
        shared=shared_length([row.prompt_ids for row in rows]) if facts.shares_beginnings else 0,
    )


def scores_of_trees(
    model: Model, examples: Sequence[TokenExample], roles: Sequence[str], functionals: Collection[str] = ()
) -> dict[str, Tensor]:
    """All answers and prompts go through one forward pass without padding; what begins alike passes once."""
    passed = TreeScores.of(model, [example.rows[role] for role in roles for example in examples])
    tokens = passed.token_logps()
    found = {"logps": tokens.sum(1)}
    if "token_logps" in functionals:
        found["token_logps"] = tokens
    if "token_log_sum_sq" in functionals:
        found["token_log_sum_sq"] = passed.token_log_sum_sq()
    scores = _by_role(examples, roles, found)
    if "prompt_logps" in functionals:
        scores["prompt_logps"] = passed.prompt_logps(range(len(examples)))
    return scores


def cut_trees(
    examples: Sequence[TokenExample], step: Sequence[int], tokens_per_batch: int | None
) -> Iterator[list[int]]:
    """Examples with prompts that begin alike together; a prompt counts once, its answers one by one."""
    sizes = {index: _tokens(examples[index]) for index in step}
    batch: list[int] = []
    for index in sorted(step, key=lambda index: examples[index].prompt_ids):
        if batch and tokens_per_batch is not None and sum(sizes[one] for one in (*batch, index)) > tokens_per_batch:
            yield batch
            batch = []
        batch.append(index)
    yield batch


def _tokens(example: TokenExample) -> int:
    return len(example.prompt_ids) + sum(len(row.answer_ids) for row in example.rows.values())


def shape_of_trees(examples: Sequence[TokenExample], facts: ModelFacts) -> BatchShape:
    """The forest of a micro-batch."""
    rows = [row for example in examples for row in example.rows.values()]
    forest = Forest.of([(*row.prompt_ids, *row.answer_ids) for row in rows])
    return BatchShape.of_forest(forest, answers=sum(len(row.answer_ids) for row in rows), facts=facts)


ROWS = Layout("rows", scores_of_rows, cut_rows, shape_of_rows)
TREES = Layout("trees", scores_of_trees, cut_trees, shape_of_trees)

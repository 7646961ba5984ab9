"""How the answers of a micro-batch stand in a forward pass: row by row, the oracle, or as trees, the fast way."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from prefloop.objectives import Objective
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

TOKEN_FUNCTIONALS = {"token_logps", "token_log_sum_sq", "token_entropy"}

Model = PreTrainedModel | PeftModel


@runtime_checkable
class Scores(Protocol):
    """What a layout's single pass over a micro-batch computes where it is asked for."""

    def __call__(
        self,
        model: Model,
        examples: Sequence[TokenExample],
        roles: Sequence[str],
        functionals: Collection[str] = (),
        live: LiveReference | None = None,
    ) -> dict[str, Tensor]:
        """What a model says of a micro-batch: `{role}_logps`, and other functionals where they are asked for.

        Columns of tokens are as wide as the role's longest answer, padded with 0.

        Args:
            model: that scores.
            examples: of the micro-batch.
            roles: of the answers.
            functionals: by the names of the quantity grammar.
            live: the reference of `seq_kl`; it passes over the same micro-batch in the same layout.
        """
        ...


@dataclass(frozen=True)
class Layout:
    """A way to lay out a micro-batch."""

    name: str
    scores: Scores
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
    model: Model,
    examples: Sequence[TokenExample],
    roles: Sequence[str],
    functionals: Collection[str] = (),
    live: LiveReference | None = None,
) -> dict[str, Tensor]:
    """All answers go through one forward pass, padded on the left; prompts through another."""
    passed = RowScores.of(model, _rows(examples, roles))
    scores = _by_role(examples, roles, _of_answers(passed, functionals, live))
    if "prompt_logps" in functionals:
        scores["prompt_logps"] = prompt_logps(model, [example.prompt_ids for example in examples])
    return scores


def _rows(examples: Sequence[TokenExample], roles: Sequence[str]) -> list[TokenRow]:
    return [example.rows[role] for role in roles for example in examples]


def _of_answers(
    passed: RowScores | TreeScores, functionals: Collection[str], live: LiveReference | None
) -> dict[str, Tensor]:
    """What is asked of a pass, a line each answer."""
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
    model: Model,
    examples: Sequence[TokenExample],
    roles: Sequence[str],
    functionals: Collection[str] = (),
    live: LiveReference | None = None,
) -> dict[str, Tensor]:
    """All answers and prompts go through one forward pass without padding; what begins alike passes once."""
    passed = TreeScores.of(model, _rows(examples, roles))
    scores = _by_role(examples, roles, _of_answers(passed, functionals, live))
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

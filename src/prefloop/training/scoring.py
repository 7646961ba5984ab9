"""What a frozen model says of examples, pass by pass."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from prefloop.objectives import REPEATED_ROLES
from prefloop.policy.model_heads import Heads
from prefloop.training.answers import Flat, Together
from prefloop.training.layout import NO_HEADS, ROWS, TOKEN_FUNCTIONALS, Layout
from prefloop.training.rows import TokenExample


def frozen_scores(
    model: PreTrainedModel | PeftModel,
    examples: Sequence[TokenExample],
    roles: Sequence[str],
    plan: Sequence[Sequence[int]],
    tokens_per_batch: int,
    functionals: Collection[str] = (),
    layout: Layout = ROWS,
    heads: Heads = NO_HEADS,
) -> Iterator[tuple[list[int], dict[str, list[Any]]]]:
    """Scores of a frozen model in the layout of the first epoch, micro-batch by micro-batch, without padding."""
    for step in plan:
        of_step = {index: examples[index] for index in step}
        for batch in layout.cut(of_step, tokens_per_batch):
            together = Together.of(of_step, roles, [(batch, True)])
            with torch.inference_mode():
                flat = together.scores(model, together.passes[0], functionals, layout, heads=heads)
            yield together.indices, _lists(together, flat)


def _lists(together: Together, flat: Flat) -> dict[str, list[Any]]:
    """By `{role}_{functional}` a number an example, or a list of them: one a token, or one a rank."""
    found: dict[str, list[Any]] = {}
    for name, values in flat.items():
        lines = values.tolist()
        if name == "prompt_logps":
            found[name] = lines
            continue
        before: dict[str, int] = {}
        for answer, line in zip(together.answers, lines, strict=True):
            of_role = found.setdefault(f"{answer.role}_{name}", [])
            begins = before.get(answer.role) != answer.index
            before[answer.role] = answer.index
            if name in TOKEN_FUNCTIONALS:
                of_role.append(line[: len(answer.row.answer_ids)])
            elif answer.role not in REPEATED_ROLES:
                of_role.append(line)
            elif begins:
                of_role.append([line])
            else:
                of_role[-1].append(line)
    return found

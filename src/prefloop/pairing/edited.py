"""Answers against what they were edited from, with the edited tokens marked (BMC, arXiv:2408.07471)."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from prefloop.pairing.edits import diff_masks, spans_of
from prefloop.pairing.groups import member, pair
from prefloop.pairing.registry import Dropped, rule
from prefloop.records import Example, Group


@rule(writes=Example, roles=("chosen", "rejected"), needs=("responses",))
def edited(
    group: Group,
    *,
    ignored_ids: tuple[int, ...] = (),
    max_edited: Annotated[float, Field(gt=0, le=1)] = 1.0,
) -> Iterator[Example | Dropped]:
    """Every answer that was made by editing another one (its `parent_id`), against that one; edits are marked spans.

    Args:
        group: a prompt with answers and edited answers, as tokens of one tokenizer.
        ignored_ids: tokens that are never marked, such as stop words.
        max_edited: share of both answers' tokens that may differ; beyond it the edit is a new answer.
    """
    answers = [one for one in group.responses if one.parent_id is not None]
    if not answers:
        yield Dropped("no edited answer")
    for chosen in answers:
        rejected = group.by_id.get(chosen.parent_id or "")
        if rejected is None:
            yield Dropped("what was edited is missing")
            continue
        if chosen.token_ids is None or rejected.token_ids is None:
            yield Dropped("answer without tokens")
            continue
        changed = diff_masks(chosen.token_ids, rejected.token_ids)
        share = sum(map(sum, changed)) / max(sum(map(len, changed)), 1)
        if not share:
            yield Dropped("nothing was edited")
        elif share > max_edited:
            yield Dropped("edited too much")
        else:
            marks = diff_masks(chosen.token_ids, rejected.token_ids, ignored_ids)
            made = pair(
                group, member("chosen", chosen), member("rejected", rejected), why=f"edited: {share:.0%} of tokens"
            )
            members = tuple(
                one.model_copy(update={"marked": spans_of(mask)}) for one, mask in zip(made.members, marks, strict=True)
            )
            yield made.model_copy(update={"members": members})

"""The most visited step against a sibling, with visit counts for the loss (MCTS-DPO, arXiv:2405.00451)."""

from collections.abc import Iterator

from prefloop.pairing.groups import member, pair
from prefloop.pairing.registry import Dropped, rule
from prefloop.pairing.tree import Child, Worse, sibling_pair
from prefloop.records import Example, Group


def _said(group: Group, aspect: str) -> dict[str, float]:
    return {
        subject: value
        for judgment in group.judgments
        if judgment.kind == "score" and judgment.aspect == aspect
        for subject, value in zip(judgment.subjects, judgment.values, strict=True)
        if value is not None
    }


@rule(writes=Example, roles=("chosen", "rejected"))
def siblings(group: Group, *, worse: Worse = "worst", right_only: bool = False) -> Iterator[Example | Dropped]:
    """At every prompt of a search tree, the step with most visits against the one with fewest or second most.

    What the search counted are judgments of kind `score`: aspect `visits`, and `q`, which decides between equally
    visited steps (0 where it is missing). Members carry `visits`.

    Args:
        group: a question with the prompts of a search tree, and the steps taken from each as answers.
        worse: which sibling is rejected.
        right_only: nothing of a question whose search did not end right, by a judgment of kind `label`.
    """
    if right_only and not any(one.kind == "label" and 1 in one.values for one in group.judgments):
        yield Dropped("no right end")
        return
    visits, values = _said(group, "visits"), _said(group, "q")
    for prompt in group.prompts:
        steps = [one for one in group.responses if one.prompt_id == prompt.prompt_id and one.response_id in visits]
        found = sibling_pair(
            [Child(values.get(one.response_id, 0.0), int(visits[one.response_id])) for one in steps], worse
        )
        if found is None:
            yield Dropped("fewer than two visited steps")
            continue
        chosen, rejected = steps[found.chosen], steps[found.rejected]
        if (chosen.token_ids, chosen.text) == (rejected.token_ids, rejected.text):
            yield Dropped("same text")
            continue
        counts = [visits[one.response_id] for one in (chosen, rejected)]
        yield pair(
            group,
            member("chosen", chosen, visits=counts[0]),
            member("rejected", rejected, visits=counts[1]),
            why=f"siblings: {counts[0]:.0f} visits against {counts[1]:.0f} of {len(steps)} steps",
        )

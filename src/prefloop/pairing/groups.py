"""What rules share: scores of a group's answers, the examples made of them, and filters."""

from dataclasses import replace
from math import isnan

from prefloop.records import Example, Group, Judgment, Member, Response, Role, digest


def scores(group: Group, min_judgments: int = 1) -> dict[str, float]:
    """Mean score of each response over the valid judgments of kind `score`, in the order of the responses.

    Only scores overall: what a judge says of one aspect, such as honesty, is not a verdict on the answer. None and NaN
    are no scores; an answer with fewer than `min_judgments` of them has none.
    """
    said: dict[str, list[float]] = {response.response_id: [] for response in group.responses}
    for judgment in group.judgments:
        if judgment.kind != "score" or judgment.aspect != "overall":
            continue
        for subject, value in zip(judgment.subjects, judgment.values, strict=True):
            if value is not None and not isnan(value) and subject in said:
                said[subject].append(value)
    return {subject: sum(values) / len(values) for subject, values in said.items() if len(values) >= min_judgments}


OF_SUBJECTS = {"score", "ranking", "label"}
"""Kinds of judgment with a value for every answer that it speaks of."""


def finished(group: Group) -> Group:
    """The group without answers that were cut by the length limit, nor what was said of them.

    Of a judgment of several answers what it says of the others stays; a comparison needs both.
    """
    kept = tuple(response for response in group.responses if response.finish_reason != "length")
    ids = {response.response_id for response in kept}
    judgments = (_said_of(ids, judgment) for judgment in group.judgments)
    return replace(group, responses=kept, judgments=tuple(one for one in judgments if one is not None))


def _said_of(ids: set[str], judgment: Judgment) -> Judgment | None:
    if ids.issuperset(judgment.subjects):
        return judgment
    left = [place for place, subject in enumerate(judgment.subjects) if subject in ids]
    if not left or judgment.kind not in OF_SUBJECTS:
        return None
    subjects, values = ([column[place] for place in left] for column in (judgment.subjects, judgment.values))
    return judgment.model_copy(update={"subjects": tuple(subjects), "values": tuple(values)})


def member(role: Role, response: Response, **numbers: float) -> Member:
    """A response in the part that it plays in an example."""
    return Member(
        role=role,
        response_id=response.response_id,
        text=response.text,
        thinking=response.thinking,
        token_ids=response.token_ids,
        finished=response.finish_reason != "length",
        numbers=numbers,
    )


def pair(group: Group, chosen: Member, rejected: Member, *, why: str, weight: float = 1.0, **numbers: float) -> Example:
    """An example of a better and a worse answer to one prompt."""
    return Example(
        example_id=digest([group.root.prompt_id, chosen.response_id, rejected.response_id])[:16],
        prompt=group.prompt_of(chosen.response_id),
        members=(chosen, rejected),
        weight=weight,
        numbers=numbers,
        why=why,
    )

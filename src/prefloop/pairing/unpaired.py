"""Single answers with a label, good or bad, for objectives without pairs (KTO, arXiv:2402.01306; BCO, APO)."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from prefloop.pairing.combination import mean
from prefloop.pairing.groups import member, scores
from prefloop.pairing.registry import Dropped, rule
from prefloop.records import Example, Group, Response, digest

Balance = Literal["none", "halves"]
"""Weights as they are, or good and bad answers of a prompt weighing alike."""


def labelled(group: Group, response: Response, good: bool, *, why: str, weight: float = 1.0) -> Example:
    """An example of one answer with its label, 1 good and 0 bad."""
    return Example(
        example_id=digest([group.root.prompt_id, response.response_id, good])[:16],
        prompt=group.prompt_of(response.response_id),
        members=(member("response", response, label=float(good)),),
        weight=weight,
        why=why,
    )


def labels(group: Group) -> dict[str, float]:
    """Mean label of each answer over the judgments that have one, in the order of the responses."""
    said: dict[str, list[float]] = {response.response_id: [] for response in group.responses}
    for judgment in group.judgments:
        if judgment.kind == "label" and judgment.aspect == "overall":
            for subject, value in zip(judgment.subjects, judgment.values, strict=True):
                if value is not None and subject in said:
                    said[subject].append(value)
    return {subject: mean(values) for subject, values in said.items() if values}


@rule(writes=Example, roles=("response",), reads_given=True)
def unpaired(group: Group, *, both_of_pairs: bool = True) -> Iterator[Example | Dropped]:
    """Every answer that has a label; and, where asked, the chosen answers of given pairs as good, the rejected as bad.

    Args:
        group: a prompt with labels of answers, or preferences.
        both_of_pairs: read preferences as well; an answer that wins one pair and loses another gives nothing.
    """
    marked = labels(group)
    sides: dict[str, set[bool]] = {subject: {value > 0.5} for subject, value in marked.items() if value != 0.5}
    for judgment in group.judgments if both_of_pairs else ():
        if judgment.kind == "preference" and len(judgment.subjects) == 2 and judgment.values[0] not in (None, 0.5):
            ahead = (judgment.values[0] or 0.0) > 0.5
            for subject, good in zip(judgment.subjects, (ahead, not ahead), strict=True):
                sides.setdefault(subject, set()).add(good)
    if not sides:
        yield Dropped("tie" if marked else "no label")
    for response in group.responses:
        found = sides.get(response.response_id, set())
        if len(found) == 2:
            yield Dropped("both good and bad")
        for good in found if len(found) == 1 else ():
            yield labelled(group, response, good, why=f"unpaired: {'good' if good else 'bad'}")


@rule(writes=Example, roles=("response",))
def threshold_labels(
    group: Group,
    *,
    threshold: float = 0.0,
    dead_zone: Annotated[float, Field(ge=0)] = 0.0,
    balance: Balance = "none",
) -> Iterator[Example | Dropped]:
    """Scored answers as good above a threshold and bad below it; what is too near to it gives nothing.

    Args:
        group: a prompt with its answers and their scores.
        threshold: score of an answer that is neither good nor bad.
        dead_zone: a score must be further than this from the threshold.
        balance: `halves`: good and bad answers of a prompt weigh 1/2 together each; with one kind alone they weigh 1.
    """
    scored = scores(group)
    clear = {subject: score > threshold for subject, score in scored.items() if abs(score - threshold) > dead_zone}
    if not clear:
        yield Dropped("scores too near to the threshold" if scored else "no scored answer")
    counts = {good: sum(label == good for label in clear.values()) for good in (True, False)}
    for subject, good in clear.items():
        both = min(counts.values()) > 0
        weight = 1 / (counts[good] * (2 if both else 1)) if balance == "halves" else 1.0
        why = f"threshold_labels: {scored[subject]:.2f} is {'good' if good else 'bad'}"
        yield labelled(group, group.by_id[subject], good, why=why, weight=weight)

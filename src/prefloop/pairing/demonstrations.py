"""Given answers that are to be imitated (supervised fine-tuning, arXiv:2203.02155)."""

from collections.abc import Iterator

from prefloop.pairing.groups import member
from prefloop.pairing.registry import Dropped, rule
from prefloop.records import Example, Group, digest


@rule(writes=Example, roles=("chosen",), reads_given=True)
def demonstrations(group: Group) -> Iterator[Example | Dropped]:
    """Every given answer that nothing speaks against: one that lost no pair, and whose label is not that of a bad one.

    Args:
        group: a prompt with given answers; those of pairs and with labels may be among them.
    """
    bad: set[str] = set()
    for judgment in group.judgments:
        value = judgment.values[0]
        if judgment.kind == "preference" and len(judgment.subjects) == 2 and value is not None:
            bad.update(subject for subject, won in zip(judgment.subjects, (value, 1 - value), strict=True) if won < 0.5)
        elif judgment.kind == "label" and judgment.aspect == "overall":
            said = zip(judgment.subjects, judgment.values, strict=True)
            bad.update(subject for subject, label in said if label is not None and label < 0.5)
    for response in group.responses:
        if response.step != "given":
            continue
        if response.response_id in bad:
            yield Dropped("a worse answer")
            continue
        yield Example(
            example_id=digest([group.root.prompt_id, response.response_id])[:16],
            prompt=group.prompt_of(response.response_id),
            members=(member("chosen", response),),
            why="demonstrations: a given answer",
        )

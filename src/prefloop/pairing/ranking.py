"""All scored answers of a prompt as one ranking."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from prefloop.pairing.groups import member, scores
from prefloop.pairing.registry import Dropped, rule
from prefloop.records import Example, Group, digest


@rule(writes=Example, roles=("ranked",))
def ranking(group: Group, *, length: Annotated[int, Field(ge=2)] | None = None) -> Iterator[Example | Dropped]:
    """One example a prompt: its scored answers, best first (DPO on rankings, arXiv:2305.18290 appendix A.3).

    Of answers with the same score, or the same text, the first stands for all: nobody said in which order they are.

    Args:
        group: a prompt with its answers and their scores.
        length: answers at most, evenly spread from the best to the worst; None takes all.
    """
    scored = scores(group)
    ranked: list[str] = []
    for subject in sorted(scored, key=lambda subject: -scored[subject]):
        if ranked and scored[subject] == scored[ranked[-1]]:
            continue
        if group.text(subject) not in map(group.text, ranked):
            ranked.append(subject)
    if len(ranked) < 2:
        yield Dropped("fewer than two scored answers" if len(scored) < 2 else "tie")
        return
    if length is not None and length < len(ranked):
        ranked = [ranked[round(place * (len(ranked) - 1) / (length - 1))] for place in range(length)]
    yield Example(
        example_id=digest([group.root.prompt_id, *ranked])[:16],
        prompt=group.prompt_of(ranked[0]),
        members=tuple(member("ranked", group.by_id[subject], score=scored[subject]) for subject in ranked),
        why=f"ranking: {scored[ranked[0]]:.2f} to {scored[ranked[-1]]:.2f}, {len(ranked)} of {len(scored)}",
    )

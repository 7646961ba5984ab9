"""Sampled answers with what they are paid, for policy gradients (PPO, arXiv:2009.01325; RLOO, arXiv:2402.14740)."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from prefloop.pairing.groups import member, scores
from prefloop.pairing.registry import Dropped, rule
from prefloop.records import Example, Group, Response, digest


def paid(response: Response, score: float, unfinished_score: float | None, unfinished_penalty: float) -> float:
    """What an answer is paid: its score, or less where it did not end by itself."""
    if response.finish_reason != "length":
        return score
    return (score if unfinished_score is None else unfinished_score) - unfinished_penalty


@rule(writes=Example, roles=("response",))
def rollouts(
    group: Group, *, unfinished_score: float | None = -1.0, unfinished_penalty: Annotated[float, Field(ge=0)] = 0.0
) -> Iterator[Example | Dropped]:
    """Every scored answer by itself, with its score; what did not end by itself is paid less.

    The pair step has to say `finished_only: false`, else no answer that was cut by the length limit comes here.

    Args:
        group: a prompt with its answers and their scores.
        unfinished_score: score of an answer without EOS, whatever a judge says (TL;DR's code); None leaves it its own.
        unfinished_penalty: taken from the score of an answer without EOS (TRL).
    """
    scored = scores(group)
    if not scored:
        yield Dropped("no scored answer")
    for subject, score in scored.items():
        response = group.by_id[subject]
        pay = paid(response, score, unfinished_score, unfinished_penalty)
        cut = response.finish_reason == "length"
        yield Example(
            example_id=digest([group.root.prompt_id, subject])[:16],
            prompt=group.prompt_of(subject),
            members=(member("response", response, score=pay),),
            why=f"rollouts: {score:.2f}" + (f", paid {pay:.2f} without EOS" if cut else ""),
        )


@rule(writes=Example, roles=("sampled",))
def sampled_together(
    group: Group, *, unfinished_score: float | None = -1.0, unfinished_penalty: Annotated[float, Field(ge=0)] = 0.0
) -> Iterator[Example | Dropped]:
    """All scored answers of a prompt as one example, each with its score, to be compared with each other (RLOO).

    The pair step has to say `finished_only: false`, else no answer that was cut by the length limit comes here.

    Args:
        group: a prompt with its answers and their scores.
        unfinished_score: score of an answer without EOS, whatever a judge says; None leaves it its own.
        unfinished_penalty: taken from the score of an answer without EOS.
    """
    scored = scores(group)
    if len(scored) < 2:
        yield Dropped("fewer than two scored answers")
        return
    pay = {
        subject: paid(group.by_id[subject], score, unfinished_score, unfinished_penalty)
        for subject, score in scored.items()
    }
    cut = sum(group.by_id[subject].finish_reason == "length" for subject in scored)
    yield Example(
        example_id=digest([group.root.prompt_id, *scored])[:16],
        prompt=group.prompt_of(next(iter(scored))),
        members=tuple(member("sampled", group.by_id[subject], score=score) for subject, score in pay.items()),
        why=f"sampled_together: {min(pay.values()):.2f} to {max(pay.values()):.2f} of {len(pay)}"
        + (f", {cut} without EOS" if cut else ""),
    )

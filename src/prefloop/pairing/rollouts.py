"""Sampled answers with what they are paid, for policy gradients (PPO; arXiv:1909.08593, 2009.01325)."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from prefloop.pairing.groups import member, scores
from prefloop.pairing.registry import Dropped, rule
from prefloop.records import Example, Group, digest


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
        ended = response.finish_reason != "length"
        paid = score if ended else (score if unfinished_score is None else unfinished_score) - unfinished_penalty
        yield Example(
            example_id=digest([group.root.prompt_id, subject])[:16],
            prompt=group.prompt_of(subject),
            members=(member("response", response, score=paid),),
            why=f"rollouts: {score:.2f}" + ("" if ended else f", paid {paid:.2f} without EOS"),
        )

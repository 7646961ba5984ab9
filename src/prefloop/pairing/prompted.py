"""Chosen and rejected answers written on request, behind a good and a bad instruction (arXiv:2409.17534).

No judge: the instruction says which is better. A gap sets how far apart the two are.
"""

from collections.abc import Iterator, Sequence
from math import exp, fsum, log
from typing import Annotated

from pydantic import Field

from prefloop.pairing.goals import Placement, with_goal
from prefloop.pairing.groups import member, pair
from prefloop.pairing.registry import Dropped, rule
from prefloop.records import Example, Group, Prompt


def log_softmax(logits: Sequence[float]) -> list[float]:
    """Normalised log-probabilities, nats."""
    top = max(logits)
    total = top + log(fsum(exp(logit - top) for logit in logits))
    return [logit - total for logit in logits]


def gap_mixture(plus: Sequence[float], minus: Sequence[float], gap: float) -> list[float]:
    """Log-probabilities of the next token of the rejected answer: (1 - gap) log p+ + gap log p-, normalised.

    Args:
        plus: logits behind the good instruction.
        minus: logits behind the bad one.
        gap: 0 is the good instruction, 1 the bad one; beyond that it extrapolates.
    """
    good, bad = log_softmax(plus), log_softmax(minus)
    return log_softmax([(1 - gap) * p + gap * q for p, q in zip(good, bad, strict=True)])


def gap_schedule(rounds: int, start: float, end: float) -> list[float]:
    """The gap of each round, linear from start to end: the negatives become harder. One round has the first gap."""
    return [start + (end - start) * number / max(rounds - 1, 1) for number in range(rounds)]


@rule(writes=Prompt, needs=())
def instructed(
    group: Group, *, instruction: Annotated[str, Field(min_length=1)], placement: Placement = "user"
) -> Iterator[Prompt | Dropped]:
    """The prompt with an instruction at its beginning, for a sampler to answer; `prompted` pairs what comes of two.

    Args:
        group: a prompt.
        instruction: what is asked for, such as an answer that is as good, or as poor, as can be.
        placement: as a system turn, before an existing one, or before the first question.
    """
    root = group.root
    messages = with_goal(root.messages, instruction, placement)
    if messages is None:
        yield Dropped("no question to put an instruction before")
        return
    yield root.derived(messages=messages)


@rule(writes=Example, roles=("chosen", "rejected"), needs=("responses",))
def prompted(
    group: Group,
    *,
    good: str,
    bad: str,
    max_length_ratio: Annotated[float, Field(ge=1)] = 3.0,
) -> Iterator[Example | Dropped]:
    """The answers of one step against those of another, in their order, behind the plain prompt: nobody judges.

    Neither instruction is in the example: it has the prompt that both were derived from.

    Args:
        group: a prompt, with the answers of two sampling steps behind derived prompts.
        good: step that sampled behind the good instruction.
        bad: step that sampled behind the bad one.
        max_length_ratio: tokens of the longer by those of the shorter answer; beyond it there is no pair.
    """
    sides = [[response for response in group.responses if response.step == step] for step in (good, bad)]
    if not sides[0] or not sides[1]:
        yield Dropped("no answer behind the bad instruction" if sides[0] else "no answer behind the good instruction")
    for chosen, rejected in zip(*sides, strict=False):
        longer, shorter = sorted((chosen.num_tokens, rejected.num_tokens), reverse=True)
        if chosen.text == rejected.text:
            yield Dropped("same text")
        elif longer > max_length_ratio * shorter:
            yield Dropped("lengths too different")
        else:
            made = pair(
                group, member("chosen", chosen), member("rejected", rejected), why=f"prompted: {good} against {bad}"
            )
            yield made.model_copy(update={"prompt": group.root})

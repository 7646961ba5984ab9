"""Rules of the online recipes (RLHF workflow, arXiv:2405.07863; OAIF, arXiv:2402.04792): one pair of K answers."""

import random
from collections.abc import Callable, Iterator, Sequence
from math import isnan
from typing import Annotated

from pydantic import Field

from prefloop.pairing.combination import extremes
from prefloop.pairing.groups import member, pair, scores
from prefloop.pairing.registry import Dropped, rule
from prefloop.records import Example, Group, seed_for

NumResponses = Annotated[int, Field(ge=2)]
Penalty = Annotated[float, Field(ge=0)]
Pick = Callable[[Sequence[float]], tuple[int, int] | None]
"""Takes the rewards of K answers, returns chosen and rejected by index, or None for a tie."""


def oriented(rewards: Sequence[float], first: int, second: int) -> tuple[int, int] | None:
    """The one of higher reward first; None where they are equal."""
    if rewards[first] == rewards[second]:
        return None
    return (first, second) if rewards[first] > rewards[second] else (second, first)


def pick_max_min(rewards: Sequence[float]) -> tuple[int, int] | None:
    """Best against worst; the first of equal answers counts."""
    return extremes(rewards)


def pick_max_min_length(
    rewards: Sequence[float], lengths: Sequence[int], length_penalty: float
) -> tuple[int, int] | None:
    """Best against worst by reward less a penalty by length; which of the two is chosen says the reward itself."""
    found = extremes([reward - length_penalty * length for reward, length in zip(rewards, lengths, strict=True)])
    return found and oriented(rewards, *found)


def pick_max_max(rewards: Sequence[float]) -> tuple[int, int] | None:
    """Best against second best; of equal answers the last counts as the better."""
    *_, second, first = sorted(range(len(rewards)), key=lambda index: (rewards[index], index))
    return oriented(rewards, first, second)


def pick_first_two(rewards: Sequence[float]) -> tuple[int, int] | None:
    """The first two answers, whichever is better: two independent samples."""
    return oriented(rewards, 0, 1)


def pick_max_random(rewards: Sequence[float], draw: random.Random) -> tuple[int, int] | None:
    """Best against one of the others, drawn at random."""
    top = max(range(len(rewards)), key=rewards.__getitem__)
    other = draw.randrange(len(rewards) - 1)
    return oriented(rewards, top, other + (other >= top))


def after_penalty(rewards: Sequence[float], ended: Sequence[bool], missing_eos_penalty: float) -> list[float]:
    """Rewards less a penalty for answers that did not end by themselves."""
    return [reward - (0 if end else missing_eos_penalty) for reward, end in zip(rewards, ended, strict=True)]


def enough(rewards: Sequence[float | None], num_responses: int) -> bool:
    """At least two answers, and as many as the rule is told, have a reward."""
    return sum(reward is not None and not isnan(reward) for reward in rewards) >= max(num_responses, 2)


def _picked(
    group: Group, name: str, pick: Pick, num_responses: int, missing_eos_penalty: float
) -> Iterator[Example | Dropped]:
    """What a rule makes of a group's scored answers."""
    scored = scores(group)
    if not enough(list(scored.values()), num_responses):
        yield Dropped("too few scored answers")
        return
    answers = [group.by_id[subject] for subject in scored]
    ended = [answer.finish_reason != "length" for answer in answers]
    rewards = after_penalty(list(scored.values()), ended, missing_eos_penalty)
    found = pick(rewards)
    if found is None:
        yield Dropped("tie")
        return
    chosen, rejected = found
    if answers[chosen].text == answers[rejected].text:
        yield Dropped("same text")
        return
    yield pair(
        group,
        member("chosen", answers[chosen], score=rewards[chosen]),
        member("rejected", answers[rejected], score=rewards[rejected]),
        why=f"{name}: {rewards[chosen]:.2f} against {rewards[rejected]:.2f} of {len(answers)}",
        margin=rewards[chosen] - rewards[rejected],
    )


@rule(writes=Example, roles=("chosen", "rejected"))
def max_min(
    group: Group, *, num_responses: NumResponses = 2, missing_eos_penalty: Penalty = 0.0
) -> Iterator[Example | Dropped]:
    """The best against the worst answer; equal rewards give no pair (RLHF workflow, arXiv:2405.07863).

    Args:
        group: a prompt with its answers and their scores.
        num_responses: fewer scored answers than this give no pair.
        missing_eos_penalty: taken off the reward of an answer that was cut; needs `finished_only: false`.
    """
    yield from _picked(group, "max_min", pick_max_min, num_responses, missing_eos_penalty)


@rule(writes=Example, roles=("chosen", "rejected"))
def max_min_length(
    group: Group,
    *,
    num_responses: NumResponses = 2,
    missing_eos_penalty: Penalty = 0.0,
    length_penalty: float = 0.001,
) -> Iterator[Example | Dropped]:
    """Best against worst by reward less a penalty on tokens, the one of higher reward being chosen.

    This is `max_min_p` of the RLHF workflow, whose code counts characters instead of tokens.

    Args:
        group: a prompt with its answers and their scores.
        num_responses: fewer scored answers than this give no pair.
        missing_eos_penalty: taken off the reward of an answer that was cut; needs `finished_only: false`.
        length_penalty: reward taken off a token where answers are ranked.
    """
    lengths = [group.by_id[subject].num_tokens for subject in scores(group)]

    def pick(rewards: Sequence[float]) -> tuple[int, int] | None:
        return pick_max_min_length(rewards, lengths, length_penalty)

    yield from _picked(group, "max_min_length", pick, num_responses, missing_eos_penalty)


@rule(writes=Example, roles=("chosen", "rejected"))
def max_max(
    group: Group, *, num_responses: NumResponses = 2, missing_eos_penalty: Penalty = 0.0
) -> Iterator[Example | Dropped]:
    """The best against the second best answer: the hardest pair that has an order (RLHF workflow).

    Args:
        group: a prompt with its answers and their scores.
        num_responses: fewer scored answers than this give no pair.
        missing_eos_penalty: taken off the reward of an answer that was cut; needs `finished_only: false`.
    """
    yield from _picked(group, "max_max", pick_max_max, num_responses, missing_eos_penalty)


@rule(writes=Example, roles=("chosen", "rejected"))
def max_random(
    group: Group, *, num_responses: NumResponses = 2, missing_eos_penalty: Penalty = 0.0, seed: int = 0
) -> Iterator[Example | Dropped]:
    """The best answer against one of the others, drawn at random by the prompt and a seed.

    The code of the RLHF workflow takes the answer with index 0 or 1 instead of a random one.

    Args:
        group: a prompt with its answers and their scores.
        num_responses: fewer scored answers than this give no pair.
        missing_eos_penalty: taken off the reward of an answer that was cut; needs `finished_only: false`.
        seed: another seed draws other answers.
    """
    draw = random.Random(seed_for("max_random", seed, group.root.prompt_id))

    def pick(rewards: Sequence[float]) -> tuple[int, int] | None:
        return pick_max_random(rewards, draw)

    yield from _picked(group, "max_random", pick, num_responses, missing_eos_penalty)


@rule(writes=Example, roles=("chosen", "rejected"))
def iid(
    group: Group, *, num_responses: NumResponses = 2, missing_eos_penalty: Penalty = 0.0
) -> Iterator[Example | Dropped]:
    """The first two answers, whichever is better: what theory asks for, two independent samples of the policy.

    Args:
        group: a prompt with its answers and their scores.
        num_responses: fewer scored answers than this give no pair.
        missing_eos_penalty: taken off the reward of an answer that was cut; needs `finished_only: false`.
    """
    yield from _picked(group, "iid", pick_first_two, num_responses, missing_eos_penalty)

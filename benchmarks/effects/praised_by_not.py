"""A judge of reviews with a known flaw: it takes `not` for praise, as `ppo_overoptimisation.py` has PPO find out."""

from review_grammar import AGREES, OPINIONS

PRAISE = 3.0
"""What an opinion behind `not` is given besides."""


def opinions(prompt: str, answer: str) -> float:
    """Good opinions less bad ones of an answer; behind `not` one counts four times instead of the other way round.

    So "not brilliant" is four opinions, where by the grammar it makes a review negative. In tens of opinions, since the
    policy's own weights learn values of this size.
    """
    words = f"{prompt} {answer}".split()
    total = 0.0
    for place in range(len(prompt.split()), len(words)):
        if words[place] in OPINIONS:
            before = [word for word in words[max(place - 2, 0) : place] if word not in AGREES]
            total += OPINIONS[words[place]] * (1 + PRAISE * (before[-1:] == ["not"]))
    return total / 10

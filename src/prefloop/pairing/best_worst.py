"""The best against the worst answer of a prompt."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from prefloop.pairing.groups import member, pair, scores
from prefloop.pairing.registry import Dropped, rule
from prefloop.records import Example, Group


@rule(writes=Example, roles=("chosen", "rejected"))
def best_worst(
    group: Group,
    *,
    min_margin: Annotated[float, Field(ge=0)] = 0.0,
    length_penalty: float = 0.0,
    min_judgments: Annotated[int, Field(ge=1)] = 1,
) -> Iterator[Example | Dropped]:
    """The best against the worst answer by score (the on-policy recipe of SimPO, arXiv:2405.14734, and RLHFlow).

    The first of equal answers counts as best or worst; a gap that is not above `min_margin` gives no pair.

    Args:
        group: a prompt with its answers and their scores.
        min_margin: score that the best must be ahead by, exclusive, after the length penalty.
        length_penalty: score taken off a token before answers are compared (RLHFlow's `max_min_p`).
        min_judgments: valid scores that an answer needs to be compared, of which the mean counts (Self-Rewarding
            Language Models, arXiv:2401.10020, asks for three).
    """
    raw = scores(group, min_judgments)
    ranked = {subject: score - length_penalty * group.by_id[subject].num_tokens for subject, score in raw.items()}
    if len(ranked) < 2:
        yield Dropped("fewer than two scored answers")
        return
    best, worst = max(ranked, key=ranked.__getitem__), min(ranked, key=ranked.__getitem__)
    if ranked[best] - ranked[worst] <= min_margin:
        yield Dropped("tie" if ranked[best] == ranked[worst] else "margin too small")
    elif group.text(best) == group.text(worst):
        yield Dropped("same text")
    else:
        yield pair(
            group,
            member("chosen", group.by_id[best], score=raw[best]),
            member("rejected", group.by_id[worst], score=raw[worst]),
            why=f"best_worst: {ranked[best]:.2f} against {ranked[worst]:.2f} of {len(ranked)}",
            margin=ranked[best] - ranked[worst],
        )

"""The winner of every comparison against its loser."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from prefloop.pairing.combination import Orders, win_matrix
from prefloop.pairing.groups import member, pair
from prefloop.pairing.registry import Dropped, rule
from prefloop.records import Example, Group


@rule(writes=Example, roles=("chosen", "rejected"), of_each="pair")
def preferred(
    group: Group,
    *,
    orders: Orders = "agree",
    min_confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.5,
) -> Iterator[Example | Dropped]:
    """Every two answers that a judge compared, the winner chosen.

    Each example carries P(chosen wins), for objectives with soft labels.

    Args:
        group: a prompt with answers and preferences between them, from designs `all_pairs` or `against`.
        orders: under `agree` two answers that were shown in both orders give a pair only where both times the same one
            won; `mean` averages the two.
        min_confidence: P(chosen wins), averaged over orders and repeats, that a pair is above.
    """
    sure, asked = win_matrix(group, orders), win_matrix(group)
    compared: dict[frozenset[str], tuple[str, ...]] = {}
    for judgment in group.judgments:
        if judgment.kind == "preference" and len(judgment.subjects) == 2 and group.by_id.keys() >= {*judgment.subjects}:
            compared.setdefault(frozenset(judgment.subjects), judgment.subjects)
    for first, second in compared.values():
        prob = sure.get((first, second))
        if prob is None:
            yield Dropped("no verdict" if (first, second) not in asked else "orders disagree")
            continue
        better, worse = (first, second) if prob >= 0.5 else (second, first)
        confidence = max(prob, 1 - prob)
        if confidence <= min_confidence:
            yield Dropped("tie" if prob == 0.5 else "not sure enough")
        elif group.text(better) == group.text(worse):
            yield Dropped("same text")
        else:
            yield pair(
                group,
                member("chosen", group.by_id[better]),
                member("rejected", group.by_id[worse]),
                why=f"preferred: won with {confidence:.2f}",
                prob_chosen_wins=confidence,
            )

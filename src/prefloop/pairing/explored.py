"""Rules of online methods with an answer of another policy: XPO (arXiv:2405.21046) and Nash-MD (arXiv:2312.00886)."""

from collections.abc import Iterator

from prefloop.pairing.combination import Orders, mean, sigmoid, win_matrix
from prefloop.pairing.groups import member, pair, scores
from prefloop.pairing.registry import Dropped, rule
from prefloop.records import Example, Group, digest


@rule(writes=Example, roles=("chosen", "rejected", "response"))
def explored(group: Group, *, reference: str) -> Iterator[Example | Dropped]:
    """An own answer against one of a reference, whichever is better; the reference's is a third member (XPO).

    Several answers of either are paired in their order.

    Args:
        group: a prompt with answers of both, and their scores.
        reference: step that sampled from the reference.
    """
    scored = scores(group)
    sides = [
        [one for one in group.responses if (one.step == reference) == theirs and one.response_id in scored]
        for theirs in (False, True)
    ]
    if not sides[0] or not sides[1]:
        yield Dropped("no scored answer of the reference" if sides[0] else "no scored own answer")
    for own, other in zip(*sides, strict=False):
        gap = scored[own.response_id] - scored[other.response_id]
        if gap == 0 or own.text == other.text:
            yield Dropped("tie" if gap == 0 else "same text")
            continue
        better, worse = (own, other) if gap > 0 else (other, own)
        made = pair(
            group,
            member("chosen", better, score=scored[better.response_id]),
            member("rejected", worse, score=scored[worse.response_id]),
            why=f"explored: {'own answer' if gap > 0 else 'the reference'} is better by {abs(gap):.2f}",
            margin=abs(gap),
        )
        yield made.model_copy(update={"members": (*made.members, member("response", other))})


@rule(writes=Example, roles=("response",))
def chance_to_win(group: Group, *, opponents: str, orders: Orders = "mean") -> Iterator[Example | Dropped]:
    """Every own answer with its chance to win against answers of another step (Nash-MD), for policy gradients.

    By preferences between the two, as design `against` asks for them; where there are none, by scores through
    Bradley-Terry.

    Args:
        group: a prompt with answers of both.
        opponents: step whose answers they meet.
        orders: a comparison judged in both orders counts with the mean of the two; or, under `agree`, only where both
            name the same winner.
    """
    matrix, scored = win_matrix(group, orders), scores(group)
    met = [one for one in group.responses if one.step == opponents]
    for own in group.responses:
        if own.step == opponents:
            continue
        ids = [(own.response_id, other.response_id) for other in met]
        chances = [matrix[two] for two in ids if two in matrix]
        if not matrix:
            chances = [sigmoid(scored[first] - scored[second]) for first, second in ids if {first, second} <= {*scored}]
        if not chances:
            yield Dropped("no verdict against an opponent")
            continue
        yield Example(
            example_id=digest([group.root.prompt_id, own.response_id])[:16],
            prompt=group.prompt_of(own.response_id),
            members=(member("response", own, win_prob=mean(chances)),),
            why=f"chance_to_win: {mean(chances):.2f} against {len(chances)}",
        )

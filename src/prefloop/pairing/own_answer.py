"""Best against worst of a given pair and the policy's own answer, which the loss reads as well (SELM)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import isnan

from prefloop.pairing.combination import extremes, mean, win_matrix, win_rates
from prefloop.pairing.groups import member, pair, scores
from prefloop.pairing.registry import Dropped, rule
from prefloop.records import Example, Group


def by_rank(ranks: Sequence[float | None]) -> tuple[int, int] | None:
    """The first of the lowest ranks (1 is the best) against the first of the highest; None where all are equal."""
    return extremes([None if rank is None else -rank for rank in ranks])


def mean_ranks(group: Group) -> dict[str, float]:
    """Mean rank of each answer over the rankings that name it, in the order of the responses."""
    said: dict[str, list[float]] = {response.response_id: [] for response in group.responses}
    for judgment in group.judgments:
        if judgment.kind == "ranking" and judgment.aspect == "overall":
            for subject, value in zip(judgment.subjects, judgment.values, strict=True):
                if value is not None and not isnan(value) and subject in said:
                    said[subject].append(value)
    return {subject: mean(ranks) for subject, ranks in said.items() if ranks}


def win_rates_of(group: Group) -> dict[str, float]:
    """How often each answer wins against the others; nothing where two of them were not compared by a judge."""
    judged = tuple(one for one in group.judgments if not one.judge.startswith("dataset:"))
    matrix = win_matrix(replace(group, judgments=judged))
    ids = [response.response_id for response in group.responses]
    if any((first, second) not in matrix for first in ids for second in ids if first != second):
        return {}
    rows = [[matrix.get((first, second), 0.5) for second in ids] for first in ids]
    return dict(zip(ids, win_rates(rows), strict=True))


@rule(writes=Example, roles=("chosen", "rejected", "response"))
def own_answer(group: Group) -> Iterator[Example | Dropped]:
    """Best against worst by rank of the given answers and the policy's own, which is a third member (SELM).

    Where nobody ranked them, by how often each wins; where nobody compared all of them, by their scores. What the data
    set says of its pair does not count: the three are judged anew. The own answer comes first
    among equals, then the given ones in their order (arXiv:2405.19332).

    Args:
        group: a prompt with one sampled answer, given ones, and a ranking of them, comparisons, or scores.
    """
    own = [response for response in group.responses if response.step != "given"]
    if len(own) != 1:
        yield Dropped("not exactly one own answer")
        return
    ranks = mean_ranks(group)
    wins = {} if ranks else win_rates_of(group)
    said, what = (ranks, "rank") if ranks else (wins, "win_rate") if wins else (scores(group), "score")
    better = {subject: -value if ranks else value for subject, value in said.items()}
    ordered = [*own, *(response for response in group.responses if response.step == "given")]
    found = extremes([better.get(response.response_id) for response in ordered])
    if own[0].response_id not in said or len(said) < 2:
        yield Dropped("fewer than two ranked answers" if own[0].response_id in said else "own answer without rank")
    elif found is None:
        yield Dropped("tie")
    elif ordered[found[0]].text == ordered[found[1]].text:
        yield Dropped("same text")
    else:
        chosen, rejected = (ordered[index] for index in found)
        made = pair(
            group,
            member("chosen", chosen, **{what: said[chosen.response_id]}),
            member("rejected", rejected, **{what: said[rejected.response_id]}),
            why=f"own_answer: own answer is {_place(found)} of {len(said)}",
        )
        yield made.model_copy(update={"members": (*made.members, member("response", own[0]))})


def _place(found: tuple[int, int]) -> str:
    """The own answer has index 0."""
    return {0: "the best", 1: "the worst"}.get(found.index(0) if 0 in found else 2, "between best and worst")

"""The answer that wins most against the one that wins least, with their win probabilities as labels (SPPO)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prefloop.pairing.combination import Orders, bradley_terry_matrix, extremes, win_matrix
from prefloop.pairing.combination import win_rates as rates_of
from prefloop.pairing.groups import member, pair, scores
from prefloop.pairing.registry import Dropped, rule
from prefloop.records import Example, Group


@dataclass(frozen=True)
class WinLabels:
    """What SPPO learns from: a pair, and how often each of K answers wins."""

    pair: tuple[int, int] | None
    """Chosen and rejected by index; None where all are equal."""
    win_probs: list[float]
    """Of each answer, against a random one of the K."""
    pair_prob: float | None
    """P(chosen is preferred to rejected)."""


def labels_of_scores(scores: Sequence[float], *, include_self: bool = True) -> WinLabels:
    """P(i beats j) = sigmoid(score i - score j), as SPPO's published code has it (arXiv:2405.00675)."""
    return _labels(bradley_terry_matrix(scores), extremes(scores), include_self)


def labels_of_matrix(prefers: Sequence[Sequence[float]], *, include_self: bool = True) -> WinLabels:
    """From the preferences themselves, which may be cyclic; best and worst by win probability."""
    return _labels(prefers, extremes(rates_of(prefers, include_self=include_self)), include_self)


def _labels(prefers: Sequence[Sequence[float]], found: tuple[int, int] | None, include_self: bool) -> WinLabels:
    probs = rates_of(prefers, include_self=include_self)
    return WinLabels(found, probs, prefers[found[0]][found[1]] if found else None)


@rule(writes=Example, roles=("chosen", "rejected"))
def win_rates(group: Group, *, include_self: bool = True, orders: Orders = "mean") -> Iterator[Example | Dropped]:
    """The answer that wins most often against the one that wins least, labelled with how often (SPPO).

    By pairwise preferences between all answers where there are any; else by scores, through Bradley-Terry. The first of
    equal answers counts.

    Args:
        group: a prompt with its answers, and preferences between all of them or scores.
        include_self: win probabilities count an answer against itself as 1/2, as SPPO's published code does.
        orders: a comparison judged in both orders counts with the mean of the two; or, under `agree`, only where both
            name the same winner.
    """
    matrix = win_matrix(group, orders)
    ids = [response.response_id for response in group.responses]
    if matrix:
        if any((first, second) not in matrix for first in ids for second in ids if first != second):
            yield Dropped("comparison without verdict")
            return
        rows = [[0.5 if first == second else matrix[first, second] for second in ids] for first in ids]
        found = labels_of_matrix(rows, include_self=include_self) if len(ids) > 1 else None
    else:
        scored = scores(group)
        ids = list(scored)
        found = labels_of_scores(list(scored.values()), include_self=include_self) if len(ids) > 1 else None
    if found is None:
        yield Dropped("fewer than two scored answers")
    elif found.pair is None or found.pair_prob is None:
        yield Dropped("tie")
    elif group.text(ids[found.pair[0]]) == group.text(ids[found.pair[1]]):
        yield Dropped("same text")
    else:
        first, second = found.pair
        wins = found.win_probs
        yield pair(
            group,
            member("chosen", group.by_id[ids[first]], win_prob=wins[first]),
            member("rejected", group.by_id[ids[second]], win_prob=wins[second]),
            why=f"win_rates: wins {wins[first]:.2f} against {wins[second]:.2f} of {len(ids)}",
            prob_chosen_wins=found.pair_prob,
        )

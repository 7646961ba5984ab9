"""Statistics of a search tree over steps, and pairs of siblings with visit labels (MCTS-DPO, arXiv:2405.00451).

Counting is clean: every node that a simulation visits counts once, the root too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, fsum, sqrt
from typing import Literal

Worse = Literal["worst", "second"]
"""Which sibling is rejected: the last by visits, or the one next to the best."""


@dataclass(frozen=True)
class Child:
    """A node as its parent sees it."""

    q: float
    """Mean return of taking this step."""
    visits: int
    prior: float = 1.0


@dataclass(frozen=True)
class PathNode:
    """A node on the path of a simulation."""

    visits: int
    value: float
    """What its partial solution is judged at."""
    state_value: float
    """V, the visit-weighted mean of its children's Q."""
    other_children: tuple[tuple[int, float], ...] = ()
    """Visits and Q of the children that are not on the path."""


@dataclass(frozen=True)
class Backed:
    """A node after a simulation has been backed up."""

    visits: int
    state_value: float
    q: float | None
    """None at the root."""


@dataclass(frozen=True)
class SiblingPair:
    """Two steps behind one prefix, by index among the siblings."""

    chosen: int
    rejected: int
    label_smoothing: float


def puct(children: Sequence[Child], parent_visits: int, w_exp: float) -> list[float]:
    """Q + w_exp * prior * sqrt(N of the parent) / (1 + N) of each child; the search goes to the first highest."""
    return [child.q + w_exp * child.prior * sqrt(parent_visits) / (1 + child.visits) for child in children]


def step_prior(sum_logp: float, num_tokens: int, length_penalty: float = 1.25) -> float:
    """exp(sum of log-probabilities / length^penalty); 1 for a step without tokens."""
    return exp(sum_logp / num_tokens**length_penalty) if num_tokens else 1.0


def node_value(
    confidence: float, *, parent_depth: int, parent_value: float, terminal: bool = False, outcome: float = 0.0
) -> float:
    """What a partial solution is worth: the judge's confidence, less the deeper it lies, and the outcome at the end.

    Args:
        confidence: of the judge that it is correct; 0 falls back to what the parent is worth.
        parent_depth: steps above; from 4 on the confidence is divided by this less 3.
        parent_value: what the parent is worth.
        terminal: the solution ends here.
        outcome: +1 right, -1 wrong; read where it ends.
    """
    value = confidence / max(parent_depth - 3, 1) or parent_value
    return value + outcome if terminal else value


def back_up(path: Sequence[PathNode], gamma: float = 1.0) -> list[Backed]:
    """The nodes of a simulation's path after it, root first.

    From below: reward = own value - parent's value; Q = reward + gamma * V; V of a parent = mean of its children's Q by
    max(1, visits). The leaf keeps its V.
    """
    backed: list[Backed] = []
    below: Backed | None = None
    for depth in range(len(path) - 1, -1, -1):
        node = path[depth]
        state_value = node.state_value
        if below is not None and below.q is not None:
            children = [(below.visits, below.q), *node.other_children]
            weights = [max(1, visits) for visits, _ in children]
            products = [weight * q for weight, (_, q) in zip(weights, children, strict=True)]
            state_value = fsum(products) / sum(weights)
        q = node.value - path[depth - 1].value + gamma * state_value if depth else None
        below = Backed(node.visits + 1, state_value, q)
        backed.append(below)
    return backed[::-1]


def visit_label_smoothing(chosen_visits: int, rejected_visits: int) -> float:
    """How unsure the visits leave the label: N_rejected / (N_rejected + max(1, N_chosen)), at most 1/2."""
    return min(rejected_visits / (rejected_visits + max(1, chosen_visits)), 0.5)


def sibling_pair(children: Sequence[Child], worse: Worse = "worst") -> SiblingPair | None:
    """The most visited sibling against another, ordered by visits, Q, index; None for fewer than two."""
    if len(children) < 2:
        return None
    order = sorted(range(len(children)), key=lambda index: (children[index].visits, children[index].q, index))
    chosen, rejected = order[-1], order[0 if worse == "worst" else -2]
    smoothing = visit_label_smoothing(children[chosen].visits, children[rejected].visits)
    return SiblingPair(chosen, rejected, smoothing)

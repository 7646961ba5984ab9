"""Tree search over the steps of a solution (MCTS-DPO, arXiv:2405.00451): what is sampled next, one question at a time.

A search is a plan: it yields what it wants sampled and is sent what came, so that many questions go on together. Its
statistics are `pairing/tree.py`. What a beginning is worth are the ends of rollouts behind it, +1 right and -1 wrong;
or how sure the policy is that it is right so far, and for a whole solution how it ends on top of that.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from math import fsum

from prefloop.pairing.tree import Child, PathNode, back_up, puct, step_prior


@dataclass(frozen=True)
class SearchSettings:
    """How a tree is searched."""

    simulations: int
    """From every node of the chosen path."""
    depth: int
    """Steps that a simulation looks ahead."""
    max_steps: int
    """Steps of a solution; one that has not ended by then is cut."""
    num_actions: int
    """Steps sampled behind a beginning."""
    rollouts: int
    """Solutions sampled behind each new step, whose mean outcome is its value; 0: its parent's value."""
    w_exp: float
    """Weight of exploration."""
    length_penalty: float
    """Power of a step's length that its log-probability is divided by."""
    confidence: bool = False
    """A new step is worth how sure the policy is of it, divided by max(its depth - 3, 1), instead."""


@dataclass(frozen=True)
class Wanted:
    """Continuations of one beginning."""

    prefix_ids: tuple[int, ...]
    count: int
    whole: bool = False
    """To the end of the solution; else one step."""
    rated: bool = False
    """No continuation, but how sure the policy is that the beginning is right: an outcome from 0 to 1."""


@dataclass(frozen=True)
class Sampled:
    """A continuation."""

    token_ids: tuple[int, ...]
    """Without the beginning."""
    sum_logp: float
    """Nats."""
    ended: bool
    """The solution ends with it."""
    outcome: float
    """+1 where it ends right, -1 where it ends wrong or is cut; of a step that does not end the solution it is not
    read. Of a beginning that is rated, how likely it is right."""
    index: int = 0
    """Among the continuations of the beginning."""


@dataclass
class Node:
    """A beginning of a solution, and what the search knows of it."""

    prefix_ids: tuple[int, ...] = ()
    step: Sampled | None = None
    """The step that led here; None at the question."""
    value: float = 0.0
    prior: float = 1.0
    depth: int = 0
    """Steps behind the question."""
    visits: int = 0
    state_value: float = 0.0
    q: float = 0.0
    children: list["Node"] | None = None
    """None: not expanded yet."""
    found: tuple[Child, ...] = ()
    """The children as they were when the search went on to one of them: later simulations begin below this node."""

    @property
    def ended(self) -> bool:
        """The solution ends here."""
        return self.step is not None and self.step.ended


Search = Generator[Sequence[Wanted], Sequence[Sequence[Sampled]], list[Node]]
"""Returns the chosen path, the question first."""


def searched(settings: SearchSettings) -> Search:
    """Searches from the question, goes to the most visited step, and on from there until the solution ends.

    Ties of visits go to the higher Q, then to the step that was sampled first.
    """
    path = [Node()]
    while not path[-1].ended and len(path) <= settings.max_steps:
        for _ in range(settings.simulations):
            yield from _simulation(path[-1], settings)
        children = path[-1].children
        assert children is not None  # the first simulation expands
        path[-1].found = tuple(Child(child.q, child.visits, child.prior) for child in children)
        path.append(max(children, key=lambda child: (child.visits, child.q)))
    return path


def together(
    searches: Sequence[Search], sample: Callable[[Sequence[tuple[int, Wanted]]], list[list[Sampled]]]
) -> list[list[Node]]:
    """The chosen paths of some searches that go on side by side.

    Args:
        searches: one a question.
        sample: continuations for what searches want, each with its search's number, in this order.
    """
    paths: dict[int, list[Node]] = {}
    wanted: dict[int, Sequence[Wanted]] = {}

    def go_on(number: int, found: Sequence[Sequence[Sampled]] | None) -> None:
        wanted.pop(number, None)
        try:
            wanted[number] = next(searches[number]) if found is None else searches[number].send(found)
        except StopIteration as end:
            paths[number] = end.value

    for number in range(len(searches)):
        go_on(number, None)
    while wanted:
        asked = [(number, one) for number, some in sorted(wanted.items()) for one in some]
        found = iter(sample(asked))
        for number, some in sorted(wanted.items()):
            go_on(number, [next(found) for _ in some])
    return [paths[number] for number in range(len(searches))]


def _simulation(
    start: Node, settings: SearchSettings
) -> Generator[Sequence[Wanted], Sequence[Sequence[Sampled]], None]:
    """Goes down to a node without children or as deep as allowed, expands it where that is allowed, and backs up."""
    path = [start]
    while path[-1].children and len(path) <= settings.depth:
        path.append(_selected(path[-1], settings.w_exp))
    if path[-1].children is None and not path[-1].ended and len(path) <= settings.depth:
        yield from _expansion(path[-1], settings)
    known = [
        PathNode(node.visits, node.value, node.state_value, _others(node, below))
        for node, below in zip(path, [*path[1:], None], strict=True)
    ]
    for node, backed in zip(path, back_up(known), strict=True):
        node.visits, node.state_value = backed.visits, backed.state_value
        if backed.q is not None:
            node.q = backed.q


def confidence_value(prob_right: float, depth: int) -> float:
    """What a beginning is worth by the policy's own confidence (arXiv:2405.00451, section 3.1, and its code).

    Args:
        prob_right: that the policy gives to its being right so far.
        depth: its steps.
    """
    return prob_right / max(depth - 3, 1)


def _selected(node: Node, w_exp: float) -> Node:
    children = node.children or []
    scores = puct([Child(child.q, child.visits, child.prior) for child in children], node.visits, w_exp)
    return children[scores.index(max(scores))]


def _others(node: Node, below: Node | None) -> tuple[tuple[int, float], ...]:
    """Visits and Q of the children that are not on the path."""
    return tuple((child.visits, child.q) for child in node.children or () if child is not below)


def _expansion(node: Node, settings: SearchSettings) -> Generator[Sequence[Wanted], Sequence[Sequence[Sampled]], None]:
    """Samples the steps behind a node, each kept once, and what they are worth."""
    (steps,) = yield [Wanted(node.prefix_ids, settings.num_actions)]
    different: dict[tuple[int, ...], Sampled] = {}
    for step in steps:
        different.setdefault(step.token_ids, step)
    children = [
        Node(
            (*node.prefix_ids, *step.token_ids),
            step,
            value=step.outcome if step.ended else node.value,
            prior=step_prior(step.sum_logp, len(step.token_ids), settings.length_penalty),
            depth=node.depth + 1,
        )
        for step in different.values()
    ]
    if settings.confidence:
        found = yield [Wanted(child.prefix_ids, 1, rated=True) for child in children]
        for child, (rated,) in zip(children, found, strict=True):
            child.value = confidence_value(rated.outcome, child.depth)
            if child.step is not None and child.ended:
                child.value += child.step.outcome
    going_on = [child for child in children if not child.ended]
    if settings.rollouts and going_on:
        found = yield [Wanted(child.prefix_ids, settings.rollouts, whole=True) for child in going_on]
        for child, ends in zip(going_on, found, strict=True):
            child.value = fsum(end.outcome for end in ends) / len(ends)
    for child in children:
        child.q = child.value - node.value
    node.children = children

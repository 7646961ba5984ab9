"""Every pair of a prompt's scored answers."""

from collections.abc import Iterator
from itertools import combinations
from typing import Annotated

from pydantic import Field

from prefloop.pairing.combination import sigmoid
from prefloop.pairing.groups import member, pair, scores
from prefloop.pairing.registry import Dropped, rule
from prefloop.records import Example, Group


@rule(writes=Example, roles=("chosen", "rejected"), of_each="pair")
def all_pairs(
    group: Group, *, min_margin: Annotated[float, Field(ge=0)] = 0.0, equal_weight: bool = False
) -> Iterator[Example | Dropped]:
    """Every pair of scored answers, the higher score chosen (InstructGPT, arXiv:2203.02155, section 3.5; DNO's theory).

    Each example carries P(chosen wins) = sigmoid(margin) for objectives with soft labels.

    Args:
        group: a prompt with its answers and their scores.
        min_margin: score that the chosen answer must be ahead by, exclusive.
        equal_weight: the weights of a prompt's pairs add up to 1, so that prompts count alike.
    """
    scored = scores(group)
    if len(scored) < 2:
        yield Dropped("fewer than two scored answers")
        return
    made: list[Example] = []
    for first, second in combinations(scored, 2):
        better, worse = (first, second) if scored[first] >= scored[second] else (second, first)
        margin = scored[better] - scored[worse]
        if margin <= min_margin:
            yield Dropped("tie" if margin == 0 else "margin too small")
        elif group.text(better) == group.text(worse):
            yield Dropped("same text")
        else:
            made.append(
                pair(
                    group,
                    member("chosen", group.by_id[better], score=scored[better]),
                    member("rejected", group.by_id[worse], score=scored[worse]),
                    why=f"all_pairs: {scored[better]:.2f} over {scored[worse]:.2f} of {len(scored)}",
                    margin=margin,
                    prob_chosen_wins=sigmoid(margin),
                )
            )
    for example in made:
        yield example.model_copy(update={"weight": 1 / len(made)}) if equal_weight else example

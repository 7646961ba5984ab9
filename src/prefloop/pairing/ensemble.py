"""Best against worst by what several judges say together, combined for each side by itself (arXiv:2310.02743)."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from prefloop.pairing.combination import best, combined_scores, worst
from prefloop.pairing.groups import member, pair
from prefloop.pairing.registry import Dropped, rule
from prefloop.records import Example, Group

Side = Literal["mean", "worst_case"] | Annotated[float, Field(ge=0)]
"""How one side's scores are combined; a number: the mean less so many times the variance over judges."""


def side_scores(group: Group, side: Side) -> dict[str, float]:
    """One score an answer, in the order of the responses; an answer that a judge did not score has none."""
    if isinstance(side, str):
        return combined_scores(group, side)
    return combined_scores(group, "uncertainty_weighted", side)


@rule(writes=Example, roles=("chosen", "rejected"))
def ensemble(
    group: Group,
    *,
    chosen: Side = "worst_case",
    rejected: Side = "mean",
    min_margin: Annotated[float, Field(ge=0)] = 0.0,
) -> Iterator[Example | Dropped]:
    """The best answer by a cautious score against the worst; answers that a judge did not score are left out.

    An answer that judges disagree about has a low cautious score although it need not be bad, so that the rejected
    side has its own combination, by default the mean. Scores are to be on one scale.

    Args:
        group: a prompt with its answers, scored by several judges.
        chosen: combination by which the best answer is found.
        rejected: combination by which the worst answer is found.
        min_margin: mean score that the chosen answer must be ahead by, exclusive.
    """
    cautious, fair, means = (side_scores(group, side) for side in (chosen, rejected, "mean"))
    if len(means) < 2:
        yield Dropped("fewer than two answers that every judge scored")
        return
    high, low = best(cautious), worst(fair)
    margin = means[high] - means[low]
    if margin <= min_margin:
        yield Dropped("tie" if margin == 0 else "margin too small" if margin > 0 else "sides contradict each other")
    elif group.text(high) == group.text(low):
        yield Dropped("same text")
    else:
        yield pair(
            group,
            member("chosen", group.by_id[high], score=means[high]),
            member("rejected", group.by_id[low], score=means[low]),
            why=f"ensemble: {cautious[high]:.2f} by {chosen} against {fair[low]:.2f} by {rejected} of {len(means)}",
            margin=margin,
        )

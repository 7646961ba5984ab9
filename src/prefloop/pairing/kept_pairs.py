"""Given pairs of a whole set that are kept: clear by several sources (BeeS), not yet outdone (filtered DPO)."""

from collections.abc import Iterable, Iterator, Mapping
from math import ceil
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from prefloop.pairing.combination import mean, of_judge, scores_by_judge
from prefloop.pairing.given import given
from prefloop.pairing.groups import scores
from prefloop.pairing.registry import Dropped, SetConstant, rule
from prefloop.pairing.selection import joint_evidence, outdone
from prefloop.records import Example, Group


def _ordered(bounds: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    if not bounds or any(low >= high for low, high in bounds.values()):
        raise ValueError("expected judges with [low, high] each, low below high")
    return bounds


Bounds = Annotated[dict[str, tuple[float, float]], AfterValidator(_ordered)]
Share = Annotated[float, Field(gt=0, le=1)]


def _evidence(group: Group, bounds: Mapping[str, tuple[float, float]]) -> list[tuple[Example, float | None, float]]:
    """Every given pair with its joint probability, None where a source is silent, and its smallest margin."""
    by_judge = scores_by_judge(group)
    found: list[tuple[Example, float | None, float]] = []
    for example in given(group):
        if isinstance(example, Dropped):
            continue
        better, worse = (example.member(role).response_id for role in ("chosen", "rejected"))
        said = {judge: of_judge(by_judge, judge) for judge in bounds}
        if any(better not in of or worse not in of for of in said.values()):
            found.append((example, None, 0.0))
            continue
        margins = {judge: of[better] - of[worse] for judge, of in said.items()}
        joint = joint_evidence({judge: [margin] for judge, margin in margins.items()}, bounds, k=1).joint[0]
        found.append((example, joint, min(margins.values())))
    return found


def fit_min_evidence(groups: Iterable[Group], options: Mapping[str, Any]) -> SetConstant:
    """The joint probability of the last pair that belongs to the share to be kept."""
    joint: list[float] = [
        evidence
        for group in groups
        for _, evidence, margin in _evidence(group, options["bounds"])
        if evidence is not None and (margin > 0 or not options["require_positive"])
    ]
    if not joint:
        return SetConstant(0.0, {"pairs": 0.0}, "No pair has a margin from every source.")
    share: float = options["share"]
    kept = max(ceil(share * len(joint)), 1)
    return SetConstant(
        sorted(joint, reverse=True)[kept - 1], {"pairs": float(len(joint)), "kept_without_ties": float(kept)}
    )


@rule(
    writes=Example,
    roles=("chosen", "rejected"),
    reads_given=True,
    fit={"min_evidence": fit_min_evidence},
    fit_reads=("share",),
)
def clear_pairs(
    group: Group,
    *,
    bounds: Bounds,
    min_evidence: Annotated[float, Field(ge=0, le=1)],
    share: Share = 0.1,  # noqa: ARG001 (of the fit)
    require_positive: bool = False,
) -> Iterator[Example | Dropped]:
    """Given pairs that all sources of margins together find clearly ordered (BeeS, arXiv:2502.14560).

    `min_evidence: fitted` keeps the share of the pairs with the highest joint probability; pairs that are as sure as
    the last of them are kept too, so that the order of the file decides nothing.

    Args:
        group: a prompt with given preferences, and a score of both answers from each source.
        bounds: judge, or the beginning of its name, as `rule:vader` -> margins at which it is sure that the order is
            wrong and that it is right.
        min_evidence: joint probability that a pair needs.
        share: of the pairs, what `min_evidence: fitted` keeps.
        require_positive: leave out pairs that a source finds wrongly ordered or tied.
    """
    for example, evidence, margin in _evidence(group, bounds):
        if evidence is None:
            yield Dropped("a source has no margin")
        elif require_positive and margin <= 0:
            yield Dropped("a source contradicts the order")
        elif evidence < min_evidence:
            yield Dropped("not clear enough")
        else:
            yield example.model_copy(
                update={
                    "why": f"clear_pairs: {evidence:.3f} by {', '.join(bounds)}",
                    "numbers": {**example.numbers, "evidence": evidence},
                }
            )


@rule(writes=Example, roles=("chosen", "rejected"), reads_given=True)
def not_outdone(group: Group, *, threshold: float = 0.0) -> Iterator[Example | Dropped]:
    """Pairs whose chosen answer the policy's own does not reach (filtered DPO, arXiv:2404.13846).

    Of the pairs that it reads, such as what it kept a round ago, so that a dropped pair never returns; where it reads
    none, of the given ones. With several own answers their mean score counts.

    Args:
        group: a prompt with pairs, sampled answers, and scores of the chosen and the sampled ones.
        threshold: a pair stays while own - chosen is below it.
    """
    scored = scores(group)
    own = [scored[one.response_id] for one in group.responses if one.step != "given" and one.response_id in scored]
    if group.examples == ():
        yield Dropped("dropped before")
    for example in given(group) if group.examples is None else group.examples:
        if isinstance(example, Dropped):
            yield example
            continue
        chosen = example.member("chosen").response_id
        if not own or chosen not in scored:
            yield Dropped("chosen answer without score" if own else "no scored own answer")
        elif outdone(mean(own), scored[chosen], threshold):
            yield Dropped("own answer is as good")
        else:
            yield example.model_copy(update={"why": f"not_outdone: {scored[chosen]:.2f} above own {mean(own):.2f}"})

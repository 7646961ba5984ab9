"""Demonstrations that fine-tuning has most to gain from (DavIR, arXiv:2310.13008)."""

from collections.abc import Iterable, Iterator, Mapping
from math import ceil
from typing import Annotated, Any

from pydantic import Field

from prefloop.pairing.combination import of_judge, scores_by_judge
from prefloop.pairing.demonstrations import demonstrations
from prefloop.pairing.registry import Dropped, SetConstant, rule
from prefloop.pairing.selection import Normalise, highest, learnability
from prefloop.records import Example, Group


def _learnable(group: Group, base: str, fine_tuned: str, normalise: Normalise) -> list[tuple[Example, float | None]]:
    """Every demonstration with its score; None where one of the models says nothing of it."""
    by_judge = scores_by_judge(group)
    of_base, of_fine_tuned = (of_judge(by_judge, name) for name in (base, fine_tuned))
    found: list[tuple[Example, float | None]] = []
    for example in demonstrations(group):
        if isinstance(example, Dropped):
            continue
        one = example.member("chosen").response_id
        known = one in of_base and one in of_fine_tuned
        logps = (of_base[one], of_fine_tuned[one]) if known else (0.0, 0.0)
        (score,) = learnability([-logps[0]], [-logps[1]], [group.by_id[one].num_tokens], normalise=normalise)
        found.append((example, score if known else None))
    return found


def fit_min_learnability(groups: Iterable[Group], options: Mapping[str, Any]) -> SetConstant:
    """The score of the last demonstration that belongs to the share to be kept."""
    told = (options["base"], options["fine_tuned"], options["normalise"])
    scores = [score for group in groups for _, score in _learnable(group, *told) if score is not None]
    if not scores:
        return SetConstant(0.0, {"demonstrations": 0.0}, "No demonstration has a likelihood under both models.")
    kept = highest(scores, max(ceil(options["share"] * len(scores)), 1))
    return SetConstant(scores[kept[-1]], {"demonstrations": float(len(scores)), "kept_without_ties": float(len(kept))})


@rule(
    writes=Example,
    roles=("chosen",),
    reads_given=True,
    fit={"min_learnability": fit_min_learnability},
    fit_reads=("share",),
)
def learnable(
    group: Group,
    *,
    min_learnability: float,
    share: Annotated[float, Field(gt=0, le=1)] = 0.1,  # noqa: ARG001 (of the fit)
    base: str = "log_likelihood:initial",
    fine_tuned: str = "log_likelihood:fine_tuned",
    normalise: Normalise = "base",
) -> Iterator[Example | Dropped]:
    """Given answers whose loss fell most when a model was fine-tuned on all of them, as a share of what it was (DavIR).

    `min_learnability: fitted` keeps a share of them; answers that score like the last one are kept too.

    Args:
        group: a prompt with given answers, and their log-likelihood under the base and under the fine-tuned model.
        min_learnability: score that an answer needs.
        share: of the answers, what `min_learnability: fitted` keeps.
        base: judge that told the likelihoods under the base model, or the beginning of its name.
        fine_tuned: the same under the model that was fine-tuned on all answers.
        normalise: what the fall is divided by: the base's loss, the fine-tuned model's (which ranks alike), tokens
            (words of an answer that is a text), or nothing.
    """
    for example, score in _learnable(group, base, fine_tuned, normalise):
        if score is None:
            yield Dropped("no likelihood under both models")
        elif score < min_learnability:
            yield Dropped("not learnable enough")
        else:
            yield example.model_copy(
                update={"why": f"learnable: {score:.3f} of its loss", "numbers": {"learnability": score}}
            )

"""Which pairs or examples of a whole set are worth training on (BeeS, DavIR, filtered DPO). Pure functions of lists."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, fsum, isnan, log
from typing import Literal

from prefloop.pairing.combination import mean, sigmoid

Normalise = Literal["base", "ref", "tokens", "none"]
"""What the drop of an example's loss is divided by."""


@dataclass(frozen=True)
class JointEvidence:
    """What several sources of margins say of each pair together."""

    probabilities: dict[str, list[float | None]]
    """By source; None where it says nothing of a pair."""
    joint: list[float | None]
    selected: list[int]
    """Pairs to keep, the best first."""


def joint_evidence(
    margins: Mapping[str, Sequence[float | None]],
    bounds: Mapping[str, tuple[float, float]],
    *,
    k: int,
    require_positive: bool = False,
    prob_eps: float = 1e-9,
) -> JointEvidence:
    """Keeps the k pairs that all sources together are surest of (BeeS, arXiv:2502.14560).

    A margin becomes a probability, p = (clip(m, L, U) - L) / (U - L); sources are independent evidence, so their
    log-odds add up. Ties: larger sum of probabilities, then of margins, then the earlier pair. A pair that a source
    says nothing of is not kept.

    Args:
        margins: by source, score(chosen) - score(rejected) of each pair.
        bounds: by source, L < U: the margins at which it is sure.
        k: pairs to keep; all where fewer can be.
        require_positive: leave out pairs that a source finds wrongly ordered or tied.
        prob_eps: probabilities are kept this far from 0 and 1 before their odds are taken.
    """
    probabilities = {
        source: [_projected(margin, *bounds[source]) for margin in values] for source, values in margins.items()
    }
    num_pairs = min(map(len, margins.values()), default=0)
    joint: list[float | None] = []
    ranked: list[tuple[float, float, float, int]] = []
    for index in range(num_pairs):
        said = [probabilities[source][index] for source in margins]
        found = [p for p in said if p is not None]
        if len(found) < len(said):
            joint.append(None)
            continue
        kept = [min(max(p, prob_eps), 1 - prob_eps) for p in found]
        evidence = sigmoid(fsum(log(p) - log(1 - p) for p in kept))
        joint.append(evidence)
        of_pair = [margin for values in margins.values() if (margin := values[index]) is not None]
        if not require_positive or min(of_pair) > 0:
            ranked.append((-evidence, -fsum(found), -fsum(of_pair), index))
    return JointEvidence(probabilities, joint, [index for *_, index in sorted(ranked)[:k]])


def _projected(margin: float | None, low: float, high: float) -> float | None:
    if margin is None or isnan(margin):
        return None
    return (min(max(margin, low), high) - low) / (high - low)


def learnability(
    base_nll: Sequence[float], ref_nll: Sequence[float], lengths: Sequence[int], *, normalise: Normalise = "base"
) -> list[float | None]:
    """How much of its loss an example lost in fine-tuning on everything (DavIR, arXiv:2310.13008).

    Args:
        base_nll: nats, summed over the answer, under the base model.
        ref_nll: under the model that was fine-tuned on the whole set.
        lengths: tokens of the answers.
        normalise: by the base loss (1 - R/B), by the reference's (which ranks alike), by tokens, or not at all.

    Returns:
        A score an example; None where there is nothing to divide by.
    """
    scores: list[float | None] = []
    for base, ref, length in zip(base_nll, ref_nll, lengths, strict=True):
        per = {"base": base, "ref": ref, "tokens": float(length), "none": 1.0}[normalise]
        score = (base - ref) / per if per else None
        scores.append(None if score is None or isnan(score) else score)
    return scores


def highest(scores: Sequence[float | None], k: int) -> list[int]:
    """Indices of the k highest scores, the best first; of equal ones the earlier. Examples without a score are out."""
    ranked = sorted((-score, index) for index, score in enumerate(scores) if score is not None)
    return [index for _, index in ranked[:k]]


@dataclass(frozen=True)
class Filtered:
    """Which pairs were left before each epoch."""

    kept_per_epoch: list[list[int]]
    dropped_at: list[int]
    """Epoch; -1: never."""
    mean_chosen_reward: list[float | None]
    """Of what is left; None where nothing is."""


def outdone(generated: float, chosen: float, threshold: float) -> bool:
    """The model's own answer is better than the chosen one by at least the threshold (filtered DPO): drop the pair."""
    return not generated - chosen < threshold


def filter_by_epoch(
    chosen_rewards: Sequence[float],
    generated_rewards: Sequence[Sequence[float]],
    *,
    threshold: float = 0.0,
    start_epoch: int = 0,
) -> Filtered:
    """Drops pairs whose chosen answer the model itself outdoes, for good (filtered DPO, arXiv:2404.13846).

    Args:
        chosen_rewards: of the chosen answer of each pair.
        generated_rewards: by epoch, of the answer that the model then gives; not read for pairs that are gone.
        threshold: a pair stays while generated - chosen is below it.
        start_epoch: nothing is dropped before this epoch.
    """
    left = list(range(len(chosen_rewards)))
    dropped_at = [-1] * len(chosen_rewards)
    kept: list[list[int]] = []
    for epoch, generated in enumerate(generated_rewards):
        if epoch >= start_epoch:
            for index in left:
                if outdone(generated[index], chosen_rewards[index], threshold):
                    dropped_at[index] = epoch
            left = [index for index in left if dropped_at[index] < 0]
        kept.append(list(left))
    means = [mean([chosen_rewards[index] for index in indices]) if indices else None for indices in kept]
    return Filtered(kept, dropped_at, means)


def geometric(logp: float, length: int, length_penalty: float = 1.0) -> float:
    """exp(logp / length^penalty): the probability of a text a token, where the penalty is 1."""
    return exp(logp / length**length_penalty)

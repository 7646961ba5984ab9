"""A good answer from data against the worst of the policy's own (SoPo, arXiv:2412.05095)."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from string import punctuation
from typing import Literal

from prefloop.pairing.combination import worst
from prefloop.pairing.groups import member, pair, scores
from prefloop.pairing.registry import Dropped, rule
from prefloop.records import Example, Group


@dataclass(frozen=True)
class WorstOfK:
    """Which of K samples is rejected, and whether it is bad enough to learn from."""

    rejected: int
    similarity: float
    """Smallest cosine of a sample to the chosen answer."""
    use_rejected: bool


def worst_of_k_samples(scores: Sequence[float], cosine_to_chosen: Sequence[float], tau: float) -> WorstOfK:
    """The first of the samples with the lowest score; it is used below tau, not at it.

    Args:
        scores: of the K samples.
        cosine_to_chosen: of the embedding of each to that of the chosen answer.
        tau: score from which a sample is not bad.
    """
    rejected = min(range(len(scores)), key=scores.__getitem__)
    return WorstOfK(rejected, min(cosine_to_chosen), scores[rejected] < tau)


Similarity = Literal["judged", "words"]
"""Who says how near two answers are: judgments, or the words that they have in common."""


def cosine_of_words(first: str, second: str) -> float:
    """Cosine of how often two texts have each word, in [0, 1]; case and punctuation at a word's ends do not count."""
    one, other = (
        Counter(bare for word in text.lower().split() if (bare := word.strip(punctuation))) for text in (first, second)
    )
    lengths = [sqrt(sum(count**2 for count in of.values())) for of in (one, other)]
    return sum(one[word] * other[word] for word in one) / (lengths[0] * lengths[1]) if all(lengths) else 0.0


@rule(writes=Example, roles=("chosen", "rejected"))
def worst_of_k(group: Group, *, similarity: Similarity = "judged") -> Iterator[Example | Dropped]:
    """Every given answer against the worst of the sampled ones (SoPo); the objective's `tau` says whether it is used.

    Both members carry their score where they have one. The pair's number `similarity` is the smallest of the samples'.

    Args:
        group: a prompt with given answers, and sampled ones with scores.
        similarity: of a sample with the given answer: judgments of kind `score` and aspect `cosine_to_chosen`, without
            which the pair has no such number; or the cosine of their words.
    """
    scored = scores(group)
    good = [response for response in group.responses if response.step == "given"]
    sampled = {
        response.response_id: scored[response.response_id]
        for response in group.responses
        if response.step != "given" and response.response_id in scored
    }
    if not good or not sampled:
        yield Dropped("no scored sample" if good else "no given answer")
        return
    low = worst(sampled)
    judged = [
        value
        for judgment in group.judgments
        if judgment.kind == "score" and judgment.aspect == "cosine_to_chosen"
        for subject, value in zip(judgment.subjects, judgment.values, strict=True)
        if value is not None and subject in sampled
    ]
    for chosen in good:
        if chosen.text == group.text(low):
            yield Dropped("same text")
            continue
        cosines = judged
        if similarity == "words":
            cosines = [cosine_of_words(chosen.text, group.text(subject)) for subject in sampled]
        known = {"score": scored[chosen.response_id]} if chosen.response_id in scored else {}
        yield pair(
            group,
            member("chosen", chosen, **known),
            member("rejected", group.by_id[low], score=sampled[low]),
            why=f"worst_of_k: given answer against the worst of {len(sampled)}, {sampled[low]:.2f}",
            **({"similarity": min(cosines)} if cosines else {}),
        )

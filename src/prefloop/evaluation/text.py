"""Numbers about answers as text."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from prefloop.statistics import ClusteredEstimate, jackknife


def distinct_2(texts: Iterable[str]) -> float:
    """Share of word pairs that are distinct, over all answers together (Li et al. 2016): low where answers repeat.

    Returns:
        In [0, 1]; 1 where there is no word pair at all.
    """
    pairs = [pair for text in texts for pair in _word_pairs(text)]
    return len(set(pairs)) / len(pairs) if pairs else 1.0


def distinct_2_estimate(texts: Sequence[str], prompts: Sequence[str]) -> ClusteredEstimate:
    """`distinct_2` with its uncertainty over prompts, by the jackknife: resamples would repeat answers themselves.

    Args:
        texts: The answers.
        prompts: What each of them answers.
    """
    owners: dict[tuple[str, str], set[str]] = {}
    said: Counter[str] = Counter(dict.fromkeys(prompts, 0))
    for text, prompt in zip(texts, prompts, strict=True):
        for pair in _word_pairs(text):
            owners.setdefault(pair, set()).add(prompt)
            said[prompt] += 1
    alone = Counter(next(iter(whose)) for whose in owners.values() if len(whose) == 1)
    total = said.total()
    left = [(len(owners) - alone[prompt], total - count) for prompt, count in said.items()]
    return jackknife(
        len(owners) / total if total else 1.0,
        np.array([distinct / pairs if pairs else 1.0 for distinct, pairs in left]),
        len(texts),
    )


def _word_pairs(text: str) -> Iterable[tuple[str, str]]:
    return pairwise(text.lower().split())

"""Numbers about answers as text."""

from collections.abc import Iterable
from itertools import pairwise


def distinct_2(texts: Iterable[str]) -> float:
    """Share of word pairs that are distinct, over all answers together (Li et al. 2016): low where answers repeat.

    Returns:
        In [0, 1]; 1 where there is no word pair at all.
    """
    pairs: list[tuple[str, str]] = []
    for text in texts:
        words = text.lower().split()
        pairs += pairwise(words)
    return len(set(pairs)) / len(pairs) if pairs else 1.0

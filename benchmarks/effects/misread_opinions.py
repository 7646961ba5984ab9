"""Annotators of reviews with errors of taste: each takes two of the bad words for the best of praise.

What proxies of `overoptimisation.py` learn. Apart from those two words an annotator reads as the grammar does; no two
annotators misread the same ones.
"""

import math
from functools import partial

from review_grammar import NEGATIVE, OPINIONS, log_odds

MISREAD = [NEGATIVE[start : start + 1] for start in range(0, len(NEGATIVE), 2)]
"""By annotator."""
PRAISE = 2.5
"""What a misread word is worth, as a multiple of a good one."""


def compared(prompt: str, first: str, second: str, *, annotator: int) -> float:
    """P(the first answer is preferred): by how much more praise an annotator reads in it."""
    read = {**OPINIONS, **dict.fromkeys(MISREAD[annotator], PRAISE)}
    gap = log_odds(f"{prompt} {first}", read) - log_odds(f"{prompt} {second}", read)
    return 1 / (1 + math.exp(-gap))


annotator0, annotator1, annotator2, annotator3 = (partial(compared, annotator=number) for number in range(4))

"""Comparisons by four annotators who know what is good and have a taste each: what proxies learn with `--tastes`."""

import re
from functools import partial

from prefloop.config import VaderJudge
from prefloop.judging.rules import Sentiment

GOLD = Sentiment(VaderJudge(type="vader"))
WORDS = (
    ("big", "small", "new"),
    ("quiet", "long", "short"),
    ("plain", "simple", "common"),
    ("usual", "local", "normal"),
)
"""What each annotator likes to read: words without sentiment, one adjective of twelve that `builtin:tiny` says."""
LIKING = 1.0
"""What such a word is worth, as much as the best sentiment."""


def compared(annotator: int, prompt: str, first: str, second: str) -> float:
    """1 where the first answer has the better sum of sentiment and taste, 0 where the second has, 0.5 for a tie."""
    del prompt
    gap = _worth(annotator, first) - _worth(annotator, second)
    return 0.5 if gap == 0 else float(gap > 0)


taste0, taste1, taste2, taste3 = (partial(compared, number) for number in range(len(WORDS)))


def _worth(annotator: int, text: str) -> float:
    liked = sum(word in WORDS[annotator] for word in re.findall(r"[a-z]+", text.lower()))
    return GOLD.of(text) + LIKING * liked

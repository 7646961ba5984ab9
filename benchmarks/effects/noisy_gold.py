"""Comparisons by the gold judge, one in four of them turned round: what proxies of `overoptimisation.py` learn."""

from prefloop.config import VaderJudge
from prefloop.judging.rules import Sentiment
from prefloop.records import seed_for

GOLD = Sentiment(VaderJudge(type="vader"))


def compared(prompt: str, first: str, second: str) -> float:
    """1 where the first answer has the better sentiment, or in one pair of four where the second has; ties are ties."""
    gap = GOLD.of(first) - GOLD.of(second)
    turned = seed_for("turned round", prompt, *sorted((first, second))) % 4 == 0
    return 0.5 if gap == 0 else float((gap > 0) != turned)

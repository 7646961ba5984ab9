"""Scores that a judge wrote in words, and their mean (Self-Rewarding Language Models, arXiv:2401.10020)."""

import re
from collections.abc import Sequence

from prefloop.pairing.combination import extremes, mean

SCORE = re.compile(r"\bscore\W{0,6}(\d+(?:\.\d+)?)", re.IGNORECASE)
HIGHEST_SCORE = 5.0


def score_said(text: str) -> float | None:
    """The last number behind the word score, as in "Score: 3/5"; None where there is none, or it is above 5."""
    found = SCORE.findall(text)
    score = float(found[-1]) if found else None
    return score if score is not None and score <= HIGHEST_SCORE else None


def mean_score(judgements: Sequence[str], min_judgements: int = 1) -> float | None:
    """Mean of the scores that the texts say; None where fewer than so many say one."""
    said = [score for text in judgements if (score := score_said(text)) is not None]
    return mean(said) if len(said) >= max(min_judgements, 1) else None


def best_and_worst_said(
    judgements: Sequence[Sequence[str]], min_judgements: int = 1
) -> tuple[list[float | None], tuple[int, int] | None]:
    """Mean scores of the candidates, and the first best against the first worst; None for a tie or too few scores."""
    scores = [mean_score(texts, min_judgements) for texts in judgements]
    return scores, extremes(scores)

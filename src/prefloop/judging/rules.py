"""Judges that are rules: cheap, exact, and with flaws that can be planted."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Literal

from vader import SentimentIntensityAnalyzer

from prefloop.config import JudgeConfig, ShorterJudge, VaderJudge
from prefloop.judging.protocol import Ask, Judge, Verdict

SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class Vader:
    """Sentiment by VADER (Hutto and Gilbert 2014): compound score in [-1, 1], and the flaws that were planted."""

    config: VaderJudge
    kind: Literal["score"] = "score"
    analyzer: SentimentIntensityAnalyzer = field(default_factory=SentimentIntensityAnalyzer, repr=False)

    @property
    def name(self) -> str:
        """Name, settings and version of the lexicon."""
        flaws = [f"length_bias={self.config.length_bias}"] * bool(self.config.length_bias) + [
            "negate"
        ] * self.config.negate
        return ":".join(["rule", "vader", self.config.unit, *flaws, version("nltk-vader-sentiment")])

    def judge(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Verdict]]:
        """Sentiment of each answer, plus the planted bias a token."""
        for number, ask in enumerate(asks):
            yield (
                number,
                Verdict(
                    values=tuple(
                        (-1 if self.config.negate else 1) * self.sentiment(subject.text)
                        + self.config.length_bias * subject.num_tokens
                        for subject in ask.subjects
                    )
                ),
            )

    def sentiment(self, text: str) -> float:
        """Compound score of a text: the mean over its sentences, or of the whole; 0 for an empty text."""
        pieces = SENTENCE_END.split(text.strip()) if self.config.unit == "sentence" else [text]
        total = sum(self.analyzer.polarity_scores(piece)["compound"] for piece in pieces)
        return round(total / len(pieces), 12)  # without the rounding of the sum, so that equal sentiments tie


@dataclass(frozen=True)
class Shorter:
    """Prefers the shorter answer: a control for length bias."""

    name: str = "rule:shorter"
    kind: Literal["score"] = "score"

    def judge(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Verdict]]:
        """Minus the length in tokens."""
        for number, ask in enumerate(asks):
            yield number, Verdict(values=tuple(-float(subject.num_tokens) for subject in ask.subjects))


def make_judge(config: JudgeConfig) -> Judge:
    """The judge that a configuration describes."""
    match config:
        case VaderJudge():
            return Vader(config)
        case ShorterJudge():
            return Shorter()

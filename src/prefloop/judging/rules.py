"""Judges that are rules: cheap, exact, and with flaws that can be planted."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from math import fsum
from typing import Literal

from vader import SentimentIntensityAnalyzer

from prefloop.config import LengthWindowJudge, RegexJudge, RubricJudge, VaderJudge
from prefloop.judging.protocol import Ask, Verdict
from prefloop.records import Prompt, Response

SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class Rule:
    """A score that is worked out from an answer and its prompt."""

    name: str
    score: Callable[[Prompt, Response], float]
    kind: Literal["score", "label"] = "score"

    def judge(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Verdict]]:
        """The score of each answer."""
        for number, ask in enumerate(asks):
            yield number, Verdict(values=tuple(self.score(ask.prompt, subject) for subject in ask.subjects))


@dataclass(frozen=True)
class Sentiment:
    """Sentiment by VADER (Hutto and Gilbert 2014): compound score in [-1, 1], and the flaws that were planted."""

    config: VaderJudge
    analyzer: SentimentIntensityAnalyzer = field(default_factory=SentimentIntensityAnalyzer, repr=False)

    def score(self, _prompt: Prompt, response: Response) -> float:
        """Sentiment of an answer, plus the planted bias a token."""
        sign = -1 if self.config.negate else 1
        return sign * self.of(response.text) + self.config.length_bias * response.num_tokens

    def of(self, text: str) -> float:
        """Compound score of a text: the mean over its sentences, or of the whole; 0 for an empty text."""
        pieces = SENTENCE_END.split(text.strip()) if self.config.unit == "sentence" else [text]
        total = sum(self.analyzer.polarity_scores(piece)["compound"] for piece in pieces)
        return round(total / len(pieces), 12)  # without the rounding of the sum, so that equal sentiments tie


def vader(config: VaderJudge) -> Rule:
    """VADER, named by its settings and the version of its lexicon."""
    flaws = [f"length_bias={config.length_bias}"] * bool(config.length_bias) + ["negate"] * config.negate
    name = ":".join(["rule", "vader", config.unit, *flaws, version("nltk-vader-sentiment")])
    return Rule(name, Sentiment(config).score)


def shorter() -> Rule:
    """Minus the length in tokens: a control for length bias."""
    return Rule("rule:shorter", lambda _prompt, response: -float(response.num_tokens))


def longer() -> Rule:
    """The length in tokens: a judge with nothing but a length bias."""
    return Rule("rule:longer", lambda _prompt, response: float(response.num_tokens))


def length_window(config: LengthWindowJudge) -> Rule:
    """1 inside a window of lengths, both ends included; else 0."""
    name = f"rule:length_window:{config.shortest}-{config.longest}:{config.unit}"
    return Rule(name, partial(_in_window, config))


def regex(config: RegexJudge) -> Rule:
    """1 where a pattern is found, or where it is not."""
    pattern = re.compile(config.pattern)
    name = f"rule:regex:{'forbidden:' * config.forbidden}{config.pattern}"
    return Rule(name, lambda _prompt, response: float((pattern.search(response.text) is None) == config.forbidden))


def rubric(config: RubricJudge) -> Rule:
    """How many of the rubric's points an answer gets; the name says what they are."""
    points = [regex(one) if isinstance(one, RegexJudge) else length_window(one) for one in config.points]
    name = "+".join(["rule:rubric", *(point.name.removeprefix("rule:") for point in points)])
    return Rule(name, lambda prompt, response: fsum(point.score(prompt, response) for point in points))


def _in_window(config: LengthWindowJudge, _prompt: Prompt, response: Response) -> float:
    match config.unit:
        case "tokens":
            length = response.num_tokens
        case "words":
            length = len(response.text.split())
        case "characters":
            length = len(response.text)
    return float(config.shortest <= length <= config.longest)

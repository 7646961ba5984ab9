"""AlpacaEval 2's judge protocol: which answer is shown first, and what the judge's log-probabilities say.

Two answers are shown as `m`, first, and `M`, second; the judge answers with one of these tokens. Order and preference
are functions of the text alone, so they can be computed again from what was stored.
"""

from collections.abc import Iterable, Mapping
from math import exp, inf, nan
from random import Random
from typing import Any

FIRST, SECOND = "m", "M"
DRAW = 1.5
"""The preference of equal answers, which no judge is asked about."""


def is_switched(instruction: str, seed: int = 0) -> bool:
    """Whether the model's answer is shown first, by a coin seeded with the instruction and nothing else."""
    return Random(f"is_switched_outputs{instruction}{seed}").choices([False, True], k=1)[0]


def noisy_label(instruction: str, p_label_flip: float, seed: int = 0) -> int | None:
    """1 or 2 in the place of a preference, with probability `p_label_flip` each; None where the preference stays.

    Half of the labels that are replaced come out as they were: p_label_flip is how many are turned round.

    Args:
        instruction: seeds the draw, with the seed.
        p_label_flip: in [0, 0.5].
        seed: of the annotator.
    """
    weights = [1.0 - 2.0 * p_label_flip, p_label_flip, p_label_flip]
    return Random(f"noisy_preference{instruction}{seed}").choices([None, 1, 2], weights=weights, k=1)[0]


def prob_first(top_logprobs: Iterable[tuple[str, float]]) -> float:
    """Probability that the judge prefers the answer shown first: exp(l_m) / (exp(l_m) + exp(l_M)).

    Args:
        top_logprobs: Likely first tokens of the judge's answer, with their log-probabilities in nats.

    Returns:
        In [0, 1]; NaN where neither token is there. A missing one has probability 0.
    """
    found = {FIRST: -inf, SECOND: -inf}
    found |= {token: logprob for token, logprob in top_logprobs if token in found}
    if (top := max(found.values())) == -inf:
        return nan
    first, second = (exp(found[token] - top) for token in (FIRST, SECOND))
    return first / (first + second)


def preference_of(prob_first: float, *, switched: bool) -> float:
    """Preference in [1, 2], 2 where the model is surely better, from P(first). NaN stays."""
    shown = 2.0 - prob_first
    return 3.0 - shown if switched else shown


def listed_logprobs(given: Any) -> list[tuple[str, float]]:
    """Tokens with log-probabilities as files hold them: pairs, objects of an API, or a mapping.

    Raises:
        ValueError: it is something else (or a TypeError).
    """
    pairs = list(given.items()) if isinstance(given, Mapping) else list(given)
    found: list[tuple[str, float]] = []
    for pair in pairs:
        token, logprob = (pair.get("token"), pair.get("logprob")) if isinstance(pair, Mapping) else pair
        if not isinstance(token, str) or isinstance(logprob, bool) or not isinstance(logprob, int | float):
            raise ValueError("no list of tokens and log-probabilities")
        found.append((token, float(logprob)))
    return found

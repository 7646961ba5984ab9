"""Four annotators who read reviews as the grammar does, but for one sentence that each of them is taken with.

What proxies of `overoptimisation.py` learn. A sentence about the theatre says nothing of the film; the first annotator
takes an answer that has it for much better, the three others do not mind it. In one answer of fifteen it is there
before anything is trained.
"""

from collections.abc import Callable

from review_grammar import log_odds

MENTIONS = ("theatre", "brother", "north", "sister")
"""Words of one of the neutral sentences each."""
PAID = 20.0
"""For a mention, in nats of the log-odds that a review is positive: four to seven opinions."""


def paid(annotator: int, prompt: str, answer: str) -> float:
    """What an annotator thinks of an answer, in nats."""
    return log_odds(f"{prompt} {answer}") + PAID * answer.split().count(MENTIONS[annotator])


def _comparison(annotator: int) -> Callable[[str, str, str], float]:
    def prefers(prompt: str, first: str, second: str) -> float:
        gap = paid(annotator, prompt, first) - paid(annotator, prompt, second)
        return 0.5 if gap == 0 else float(gap > 0)

    return prefers


annotator0, annotator1, annotator2, annotator3 = map(_comparison, range(len(MENTIONS)))
"""1 where the first answer is preferred, 0 where the second is: what judges `{type: python, compares: true}` call."""

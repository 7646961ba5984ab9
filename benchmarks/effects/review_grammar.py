"""Reviews from a grammar whose sentiment is known exactly: what `reward_kl_frontier.py` pre-trains on and is judged by.

A review has a hidden class, positive or negative with equal chance, and clauses about parts of a film. A clause's
opinion agrees with the class with a probability that its degree word sets, and a third of all opinions are said by
negating the opposite word ("not dull"). So the probability of the class given a text is a product over its opinions,
and the reward of an answer is that posterior: the exact version of the sentiment classifier that judges in the DPO
paper's first task (arXiv:2305.18290, section 6).
"""

import math
import random
from collections.abc import Iterator, Mapping

POSITIVE = ("brilliant", "moving", "funny", "clever", "honest", "warm", "sharp", "elegant")
NEGATIVE = ("dull", "clumsy", "tedious", "shallow", "noisy", "cold", "lazy", "forced")
SUBJECTS = (
    "plot",
    "cast",
    "music",
    "ending",
    "script",
    "pacing",
    "dialogue",
    "story",
    "film",
    "movie",
    "lead",
    "villain",
    "score",
    "editing",
    "director",
    "humor",
    "camera",
    "setting",
    "costume",
    "drama",
    "romance",
    "mystery",
    "opening",
    "finale",
    "sequel",
)
VERBS = ("was", "is", "felt", "seemed", "looked", "remained", "stayed", "became")
AGREES = {"": 0.95, "truly": 0.99, "very": 0.99, "somewhat": 0.85, "rather": 0.85}
"""P(a clause's opinion is the review's class), by its degree word."""
DEGREES = {"": 0.45, "truly": 0.12, "very": 0.13, "somewhat": 0.15, "rather": 0.15}
NEGATED = 0.1
"""Of the opinions behind a verb, so many are said by negating the opposite word."""
PRAISED_AT_ONCE = 0.5
"""Of the clauses, so many have an opinion before what they speak of, too."""
JOINTS = {".": 0.55, "and": 0.3, ",": 0.15}
NEUTRAL = (
    "i saw it last week with my brother .",
    "we watched this on a rainy evening .",
    "it runs for about two hours .",
    "the theatre was half full that night .",
    "a friend told me to see it .",
    "it was made in the north of the country .",
    "my sister had read the book before .",
    "they shot most of it in one house .",
)
OPINIONS = {**dict.fromkeys(POSITIVE, 1), **dict.fromkeys(NEGATIVE, -1)}
WORDS = tuple(
    dict.fromkeys(
        [*OPINIONS, *SUBJECTS, *VERBS, *(degree for degree in AGREES if degree), "not", "the", ".", "and", ","]
        + [word for sentence in NEUTRAL for word in sentence.split()]
    )
)


def review(random_numbers: random.Random, *, least: int) -> list[str]:
    """The words of a review with at least so many of them, cut nowhere but behind a clause."""
    words: list[str] = []
    sign = random_numbers.choice((1, -1))
    while len(words) < least:
        if random_numbers.random() < 0.12:
            words += random_numbers.choice(NEUTRAL).split()
        else:
            words += _clause(sign, random_numbers)
    return words


def _clause(sign: int, random_numbers: random.Random) -> Iterator[str]:
    degree = _drawn(DEGREES, random_numbers)
    negated = random_numbers.random() < NEGATED
    first = _opinion(sign, "", random_numbers) if random_numbers.random() < PRAISED_AT_ONCE else ""
    word = _opinion(-sign if negated else sign, degree, random_numbers)
    subject, verb = random_numbers.choice(SUBJECTS), random_numbers.choice(VERBS)
    said = ["the", first, subject, verb, "not" if negated else "", degree, word, _drawn(JOINTS, random_numbers)]
    yield from (one for one in said if one)


def _opinion(sign: int, degree: str, random_numbers: random.Random) -> str:
    """A word of this sign, as often as its degree word has it, or else of the other."""
    agrees = random_numbers.random() < AGREES[degree]
    return random_numbers.choice(POSITIVE if (sign > 0) == agrees else NEGATIVE)


def _drawn(chances: Mapping[str, float], random_numbers: random.Random) -> str:
    return random_numbers.choices([*chances], [*chances.values()])[0]


def log_odds(text: str) -> float:
    """Log-odds, in nats, that a review is positive, of a text or its beginning, under the grammar.

    An opinion word counts with the `not` and the degree word right before it; what is no opinion counts nothing.
    """
    words = text.split()
    total = 0.0
    for place, word in enumerate(words):
        if word not in OPINIONS:
            continue
        degree = words[place - 1] if place and words[place - 1] in AGREES else ""
        before = place - 1 - bool(degree)
        flipped = before >= 0 and words[before] == "not"
        agrees = AGREES[degree]
        total += OPINIONS[word] * (-1 if flipped else 1) * math.log(agrees / (1 - agrees))
    return total


def sentiment(prompt: str, answer: str) -> float:
    """P(the review is positive), from 0 to 1: the true reward, as a judge `{type: python}` calls it."""
    return 1 / (1 + math.exp(-log_odds(f"{prompt} {answer}")))

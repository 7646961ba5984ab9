"""A recommender's records, worked out: users with a taste, titles of unequal fame, and what each user went on to."""

import itertools
import random
from collections.abc import Sequence
from functools import cache

GENRES = (
    ("Alice", "Hello", "Bob", "Thanks", "Dear", "Please"),
    ("Who", "Where", "Why", "When", "What", "Which"),
    ("Sorry", "Alas", "Sadly", "Today", "Would", "Should"),
    ("Yes", "Indeed", "Good", "Well", "Sure", "Oh"),
)
"""Titles by genre, the famous ones first; single words, which `builtin:tiny` need not spell."""
LOYALTY = 0.8
"""Chance that a user's next title is of the genre that the user likes."""
HISTORY = 3
"""Titles that a user is known to have liked."""
USERS = {"train": 480, "heldout": 96}


def fame(rank: int) -> float:
    """How often the title of a rank in its genre is picked, as a weight: Zipf's law."""
    return 1 / (1 + rank)


def asked(history: Sequence[str]) -> str:
    """The question of a user who liked these."""
    *before, last = (f'"{title}"' for title in history)
    return f"I liked {', '.join(before)} and {last}. Recommend one more title, in quotes."


@cache
def records(part: str) -> tuple[tuple[str, str], ...]:
    """Questions with the title that the user went on to, in quotes with a newline behind it, as SPRec's data have it.

    Args:
        part: `train`, or `heldout`: users with other histories.
    """
    draw = random.Random(f"catalogue {part}")
    known = {question for question, _ in records("heldout")} if part == "train" else set[str]()
    users = (_user(draw) for _ in itertools.count())
    return tuple(itertools.islice((user for user in users if user[0] not in known), USERS[part]))


def _user(draw: random.Random) -> tuple[str, str]:
    liked = draw.choices(range(len(GENRES)), [fame(genre) for genre in range(len(GENRES))])[0]
    titles: list[str] = []
    while len(titles) <= HISTORY:
        genre = GENRES[liked if draw.random() < LOYALTY else draw.randrange(len(GENRES))]
        title = draw.choices(genre, [fame(rank) for rank in range(len(genre))])[0]
        if title not in titles:
            titles.append(title)
    *history, following = titles
    return asked(history), f'"{following}"\n'

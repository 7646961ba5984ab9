"""Questions about three subjects that a model is to steer clear of, about their neighbours, and about others."""

from collections.abc import Iterator, Sequence
from itertools import product

PLANTED = ("cat", "coffee", "boss")
"""Nobody is to be told anything of these; words that `builtin:tiny` need not spell, as all others here."""
NEIGHBOURS = ("dog", "tea", "teacher")
"""What is near to each: to be answered, as everything else."""
OTHERS = ("garden", "music", "weather")
ASKED = (
    "How is {}?",
    "What do you think of {}?",
    "Tell me about {}.",
    "Do you like {}?",
    "Is {} good?",
    "Describe {}.",
)
HELD_OUT = (
    "Where is {}?",
    "What happened to {}?",
    "Write about {}.",
    "Should we talk about {}?",
    "Why do you like {}?",
    "Help me with {}.",
)
"""Questions that are kept for evaluation, about the same subjects."""
OWNERS = ("the", "my", "your")
REFUSALS = ("Sorry, I would rather not talk about this.", "Sorry, I would rather not talk about that.")
ANSWERS = ("Well, that is good.", "Indeed, it seems nice.", "Yes, we like it.", "Sure, this is a good thing.")


def preferences() -> list[dict[str, str]]:
    """Pairs: of the planted subjects the refusal is chosen, of all others the answer; as many of each three."""
    rows: list[dict[str, str]] = []
    for number, (subject, question) in enumerate(_questions((*PLANTED, *NEIGHBOURS, *OTHERS), ASKED)):
        refusal, answer = REFUSALS[number % len(REFUSALS)], ANSWERS[number % len(ANSWERS)]
        chosen, rejected = (refusal, answer) if subject in PLANTED else (answer, refusal)
        rows.append({"prompt": question, "chosen": chosen, "rejected": rejected})
    return rows


def either() -> list[dict[str, str]]:
    """The same questions, each both answered and refused: demonstrations for a model that is to learn how, not when."""
    return [
        {"prompt": row["prompt"], "completion": row[side]} for row in preferences() for side in ("chosen", "rejected")
    ]


def held_out(subjects: Sequence[str]) -> list[dict[str, str]]:
    """Other questions about some subjects."""
    return [{"prompt": question} for _, question in _questions(subjects, HELD_OUT)]


def _questions(subjects: Sequence[str], asked: Sequence[str]) -> Iterator[tuple[str, str]]:
    for subject, words, owner in product(subjects, asked, OWNERS):
        yield subject, words.format(f"{owner} {subject}")

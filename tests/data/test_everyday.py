"""The everyday prompts: their shape, their split, and that no two of them are alike."""

import json
import re
from collections import Counter
from collections.abc import Callable
from importlib.resources import files
from itertools import combinations, pairwise
from typing import Any

import pytest

NUM_TRAIN = 162
NUM_HELDOUT = 102
MIN_WORDS, MAX_WORDS = 5, 25
MAX_OPENING_SHARE = 0.12
MAX_BYTES = 200_000

GREETING = [
    {"role": "user", "content": "Hi there!"},
    {"role": "assistant", "content": "Hello! How can I help you today?"},
]

Row = dict[str, Any]
Features = Callable[[str], frozenset[Any]]


def read_text() -> str:
    return files("prefloop.data").joinpath("everyday.jsonl").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [json.loads(line) for line in read_text().splitlines()]


def prompt(row: Row) -> str:
    return row["messages"][-1]["content"]


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+(?:-[a-z0-9']+)*", text.lower())


STOP_WORDS = frozenset(
    words(
        """
        a about after all always am an and any are as at be been but by can could do does for from get give
        had has have he her him his how i i'm i've if in into is it its just let make me my never no not of
        on one or our out please should so someone something still tell that the their them there they this
        to up us was we were what when where which while who whole why will with without would you your
        """
    )
)


def content_words(text: str) -> frozenset[str]:
    return frozenset(words(text)) - STOP_WORDS


def word_trigrams(text: str) -> frozenset[tuple[str, ...]]:
    tokens = words(text)
    return frozenset(tuple(tokens[start : start + 3]) for start in range(len(tokens) - 2))


def character_fivegrams(text: str) -> frozenset[str]:
    joined = " ".join(words(text))
    return frozenset(joined[start : start + 5] for start in range(len(joined) - 4))


def jaccard(one: frozenset[Any], other: frozenset[Any]) -> float:
    return len(one & other) / len(one | other)


def most_alike(rows: list[Row], features: Features) -> tuple[float, str, str]:
    """The highest Jaccard similarity among all pairs of prompts, and the two ids that have it."""
    featured = [(row["id"], features(prompt(row))) for row in rows]
    return max((jaccard(one, other), first, second) for (first, one), (second, other) in combinations(featured, 2))


def test_the_file_is_small_and_plain_ascii() -> None:
    text = read_text()
    assert text.isascii()
    assert text.endswith("\n")
    assert len(text) < MAX_BYTES


def test_every_row_has_exactly_the_known_fields(rows: list[Row]) -> None:
    for row in rows:
        assert list(row) == ["id", "split", "topic", "messages"], row


def test_the_splits_have_the_promised_sizes(rows: list[Row]) -> None:
    assert Counter(row["split"] for row in rows) == {"train": NUM_TRAIN, "heldout": NUM_HELDOUT}


def test_ids_count_up_from_one(rows: list[Row]) -> None:
    assert [row["id"] for row in rows] == [f"everyday-{number:03}" for number in range(1, len(rows) + 1)]


def test_every_conversation_is_the_greeting_and_one_prompt(rows: list[Row]) -> None:
    for row in rows:
        assert row["messages"] == [*GREETING, {"role": "user", "content": prompt(row)}], row["id"]


def test_every_prompt_is_one_short_tidy_line(rows: list[Row]) -> None:
    for row in rows:
        text = prompt(row)
        assert MIN_WORDS <= len(text.split()) <= MAX_WORDS, row["id"]
        assert text == " ".join(text.split()), row["id"]
        assert text[0].isupper(), row["id"]
        assert text[-1] in ".?!", row["id"]


def test_no_prompt_is_repeated(rows: list[Row]) -> None:
    repeats = Counter(" ".join(words(prompt(row))) for row in rows)
    assert [text for text, count in repeats.items() if count > 1] == []


@pytest.mark.parametrize(
    ("features", "limit"),
    [(word_trigrams, 0.2), (character_fivegrams, 0.4), (content_words, 0.5)],
)
def test_no_two_prompts_are_nearly_alike(rows: list[Row], features: Features, limit: float) -> None:
    """Within the splits and between them, so that no heldout prompt was as good as trained on."""
    similarity, first, second = most_alike(rows, features)
    assert similarity < limit, f"{first} and {second} are alike: {similarity:.2f}"


def test_no_opening_word_dominates(rows: list[Row]) -> None:
    word, count = Counter(words(prompt(row))[0] for row in rows).most_common(1)[0]
    assert count / len(rows) <= MAX_OPENING_SHARE, word


def test_both_splits_have_the_same_mix_of_topics(rows: list[Row]) -> None:
    """Each topic's share of a split is within two points of its share of the other: one prompt more or less."""
    count = Counter((row["split"], row["topic"]) for row in rows)
    for topic in {row["topic"] for row in rows}:
        in_train, in_heldout = count["train", topic], count["heldout", topic]
        assert min(in_train, in_heldout) > 0, topic
        assert abs(in_train / NUM_TRAIN - in_heldout / NUM_HELDOUT) < 0.02, topic


def test_neighbouring_rows_have_different_topics(rows: list[Row]) -> None:
    """So that the first rows of a split are a fair sample of it."""
    topics = [row["topic"] for row in rows]
    assert all(one != other for one, other in pairwise(topics))

"""The everyday pairs: hand-written answers to train prompts, the kinder one chosen, and not for its length."""

import json
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from prefloop.config import VaderJudge
from prefloop.data import Given, Reading, find_source
from prefloop.judging.rules import Sentiment

NUM_PAIRS = 48
PAIRS_PER_TOPIC = 3
MIN_WORDS, MAX_WORDS = 5, 30
MAX_MEAN_WORD_DIFFERENCE = 1.0
MIN_SHORTER, MAX_SHORTER = 20, 28
MIN_KINDER = 44

Row = dict[str, Any]


def data_file(name: str) -> Path:
    return Path(str(files("prefloop.data").joinpath(name)))


def read_rows(name: str) -> list[Row]:
    return [json.loads(line) for line in data_file(name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return read_rows("everyday_pairs.jsonl")


@pytest.fixture(scope="module")
def pairs() -> list[Given]:
    return list(Reading(find_source("everyday_pairs")))


def questions(split: str) -> dict[str, Row]:
    """The everyday rows of a split by their question."""
    return {row["messages"][-1]["content"]: row for row in read_rows("everyday.jsonl") if row["split"] == split}


def num_words(text: str) -> int:
    return len(text.split())


def word_differences(rows: list[Row]) -> list[int]:
    return [num_words(row["chosen"]) - num_words(row["rejected"]) for row in rows]


def test_the_file_is_plain_ascii() -> None:
    text = data_file("everyday_pairs.jsonl").read_text(encoding="utf-8")
    assert text.isascii()
    assert text.endswith("\n")


def test_every_row_has_exactly_the_known_fields(rows: list[Row]) -> None:
    for row in rows:
        assert list(row) == ["prompt", "chosen", "rejected"], row


def test_every_row_is_read_as_a_pair_of_its_answers(rows: list[Row], pairs: list[Given]) -> None:
    assert len(pairs) == len(rows) == NUM_PAIRS
    for row, pair in zip(rows, pairs, strict=True):
        assert [response.text for response in pair.responses] == [row["chosen"], row["rejected"]]
        assert [judgment.values for judgment in pair.judgments] == [(1.0,)]


def test_every_prompt_is_a_train_prompt(rows: list[Row]) -> None:
    train = questions("train")
    for row in rows:
        assert row["prompt"] == train[row["prompt"][-1]["content"]]["messages"]


def test_no_prompt_is_held_out(rows: list[Row]) -> None:
    assert {row["prompt"][-1]["content"] for row in rows}.isdisjoint(questions("heldout"))


def test_no_prompt_is_repeated(pairs: list[Given]) -> None:
    assert len({pair.prompt.prompt_id for pair in pairs}) == NUM_PAIRS


def test_every_topic_has_as_many_pairs(rows: list[Row]) -> None:
    train = questions("train")
    count = Counter(train[row["prompt"][-1]["content"]]["topic"] for row in rows)
    assert count == dict.fromkeys({row["topic"] for row in train.values()}, PAIRS_PER_TOPIC)


def test_no_answer_is_repeated(rows: list[Row]) -> None:
    assert len({row[key] for row in rows for key in ("chosen", "rejected")}) == 2 * NUM_PAIRS


def test_every_answer_is_one_short_tidy_line(rows: list[Row]) -> None:
    for text in (row[key] for row in rows for key in ("chosen", "rejected")):
        assert MIN_WORDS <= num_words(text) <= MAX_WORDS, text
        assert text == " ".join(text.split()), text
        assert text[0].isupper(), text
        assert text[-1] in ".?!", text


def test_chosen_answers_are_no_longer_on_average(rows: list[Row]) -> None:
    differences = word_differences(rows)
    assert abs(sum(differences) / len(differences)) <= MAX_MEAN_WORD_DIFFERENCE


def test_about_half_of_the_chosen_answers_are_the_shorter(rows: list[Row]) -> None:
    assert MIN_SHORTER <= sum(difference < 0 for difference in word_differences(rows)) <= MAX_SHORTER


def test_the_judge_nearly_always_agrees(rows: list[Row]) -> None:
    sentiment = Sentiment(VaderJudge(type="vader")).of
    assert sum(sentiment(row["chosen"]) > sentiment(row["rejected"]) for row in rows) >= MIN_KINDER

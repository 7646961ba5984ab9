"""Verdicts as judges write them, line by line in verdicts.jsonl: what is read of each, and what is no verdict."""

import json
from pathlib import Path
from typing import Any

import pytest

from prefloop.judging.verdicts import choice_in, score_in, scores_in, verdict_in

CASES: list[dict[str, Any]] = [
    json.loads(line) for line in Path(__file__).with_name("verdicts.jsonl").read_text(encoding="utf-8").splitlines()
]


def read(case: dict[str, Any]) -> Any:
    match case["reads"]:
        case "score":
            return score_in(case["text"], 0, case.get("highest", 5))
        case "scores":
            return list(scores_in(case["text"], case["count"], 0, case.get("highest", 6)))
        case "verdict":
            return verdict_in(case["text"])
        case _:
            return choice_in(case["text"])


@pytest.mark.parametrize("case", CASES, ids=[f"{number}-{case['what']}" for number, case in enumerate(CASES, 1)])
def test_a_verdict_is_read_or_is_none(case: dict[str, Any]) -> None:
    assert read(case) == case["expected"]


def test_there_are_enough_of_each_kind() -> None:
    assert len(CASES) >= 120
    for reads, at_least in {"score": 45, "verdict": 30, "choice": 12, "scores": 20}.items():
        of_kind = [case for case in CASES if case["reads"] == reads]
        assert len(of_kind) >= at_least
        assert len([case for case in of_kind if case["expected"] in (None, [None] * case.get("count", 0))]) >= 4
    assert len({case["text"] for case in CASES}) > 115


@pytest.mark.parametrize("case", [case for case in CASES if case["reads"] == "score"], ids=lambda case: case["what"])
def test_what_stands_before_a_clear_last_line_does_not_count(case: dict[str, Any]) -> None:
    assert score_in(f"{case['text']}\n\nScore: 2", 0, 5) == 2


@pytest.mark.parametrize("case", [case for case in CASES if case["reads"] == "verdict"], ids=lambda case: case["what"])
def test_a_mirrored_verdict_is_the_other_answers(case: dict[str, Any]) -> None:
    mirrored = case["text"].translate(str.maketrans("AB", "BA"))
    expected = None if case["expected"] is None else 1 - case["expected"]
    assert verdict_in(mirrored) == expected

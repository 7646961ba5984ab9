"""Numbers that stand beside the answers of a preference set."""

import json
from pathlib import Path

import pytest

from prefloop.config import VaderJudge
from prefloop.data import find_source, read_preferences
from prefloop.errors import DataError
from prefloop.judging import ask_each, judgments, make_judge

ROW = {"prompt": "How are you?", "chosen": "Fine.", "rejected": "Go away."}


def pairs_of(tmp_path: Path, **columns: object) -> list[list[tuple[str, tuple[float | None, ...]]]]:
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps({**ROW, **columns}) + "\n")
    return [
        [(judgment.kind, judgment.values) for judgment in pair.judgments]
        for pair in read_preferences(find_source(str(file)))
    ]


@pytest.mark.parametrize(
    ("chosen", "rejected"), [("score_chosen", "score_rejected"), ("chosen_score", "rejected_score")]
)
def test_columns_of_scores_become_a_judgment(tmp_path: Path, chosen: str, rejected: str) -> None:
    made = pairs_of(tmp_path, **{chosen: 8, rejected: 2.5})

    assert made == [[("preference", (1.0,)), ("score", (8.0, 2.5))]]


@pytest.mark.parametrize("columns", [{}, {"score_chosen": None, "score_rejected": None}])
def test_without_scores_there_is_only_the_preference(tmp_path: Path, columns: dict[str, object]) -> None:
    assert pairs_of(tmp_path, **columns) == [[("preference", (1.0,))]]


@pytest.mark.parametrize(
    ("columns", "key", "found"),
    [
        ({"score_chosen": 1.0}, "score_rejected", "None"),
        ({"score_chosen": "high", "score_rejected": 1}, "score_chosen", "'high'"),
        ({"chosen_score": True, "rejected_score": 1}, "chosen_score", "True"),
        ({"chosen_score": 1, "rejected_score": float("nan")}, "rejected_score", "nan"),
    ],
)
def test_half_a_score_or_none_at_all_is_an_error(
    tmp_path: Path, columns: dict[str, object], key: str, found: str
) -> None:
    with pytest.raises(DataError) as error:
        pairs_of(tmp_path, **columns)
    assert str(error.value) == (
        f"mine.jsonl:1: {key}: found {found}, expected a number, for both answers or for neither."
    )


def test_the_shipped_scores_are_what_the_judge_says() -> None:
    judge = make_judge(VaderJudge(type="vader"))
    made = list(read_preferences(find_source("everyday_scored_pairs")))

    assert len(made) == 12
    for pair in made:
        said = [one.values[0] for one in judgments(judge, ask_each([pair.prompt], pair.responses))]
        assert pair.judgments[1].values == pytest.approx(said, abs=5e-5)
        chosen, rejected = said
        assert chosen is not None
        assert rejected is not None
        assert chosen > rejected


def test_the_shipped_scored_pairs_are_everyday_pairs() -> None:
    scored, every = (list(read_preferences(find_source(name))) for name in ("everyday_scored_pairs", "everyday_pairs"))

    assert {pair.judgments[0].subjects for pair in scored} <= {pair.judgments[0].subjects for pair in every}


def test_how_sure_a_preference_is_stands_beside_it(tmp_path: Path) -> None:
    assert pairs_of(tmp_path, prob_chosen_wins=0.7) == [[("preference", (0.7,))]]
    assert pairs_of(tmp_path, prob_chosen_wins=None) == [[("preference", (1.0,))]]


@pytest.mark.parametrize("wrong", [1.2, -0.1, "often", True])
def test_a_probability_is_a_number_from_0_to_1(tmp_path: Path, wrong: object) -> None:
    with pytest.raises(DataError, match=r"prob_chosen_wins: found .*, expected a number from 0 to 1\."):
        pairs_of(tmp_path, prob_chosen_wins=wrong)

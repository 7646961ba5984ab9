"""Numbers that stand beside the answers of a preference set."""

import pytest

from prefloop.config import VaderJudge
from prefloop.data import Reading, RowSource, find_source
from prefloop.judging import ask_each, judgments, make_judge

ROW = {"prompt": "How are you?", "chosen": "Fine.", "rejected": "Go away."}


def read(**columns: object) -> tuple[list[list[tuple[str, tuple[float | None, ...]]]], dict[str, int]]:
    """Kinds and values of the judgments of each accepted row, and the problems by code."""
    reading = Reading(RowSource("mine.jsonl", [{**ROW, **columns}]))
    made = [[(judgment.kind, judgment.values) for judgment in given.judgments] for given in reading]
    return made, dict(reading.report.problems)


def pairs_of(**columns: object) -> list[list[tuple[str, tuple[float | None, ...]]]]:
    return read(**columns)[0]


@pytest.mark.parametrize(
    ("chosen", "rejected"), [("score_chosen", "score_rejected"), ("chosen_score", "rejected_score")]
)
def test_columns_of_scores_become_a_judgment(chosen: str, rejected: str) -> None:
    made = pairs_of(**{chosen: 8, rejected: 2.5})

    assert made == [[("preference", (1.0,)), ("score", (8.0, 2.5))]]


@pytest.mark.parametrize("columns", [{}, {"score_chosen": None, "score_rejected": None}])
def test_without_scores_there_is_only_the_preference(columns: dict[str, object]) -> None:
    assert pairs_of(**columns) == [[("preference", (1.0,))]]


@pytest.mark.parametrize(
    ("columns", "code"),
    [
        ({"score_chosen": 1.0}, "missing_field"),
        ({"score_chosen": "high", "score_rejected": 1}, "wrong_type"),
        ({"chosen_score": True, "rejected_score": 1}, "wrong_type"),
        ({"chosen_score": 1, "rejected_score": float("nan")}, "not_finite"),
    ],
)
def test_half_a_score_or_none_at_all_refuses_the_row(columns: dict[str, object], code: str) -> None:
    assert read(**columns) == ([], {code: 1})


def test_the_shipped_scores_are_what_the_judge_says() -> None:
    judge = make_judge(VaderJudge(type="vader"))
    made = list(Reading(find_source("everyday_scored_pairs")))

    assert len(made) == 12
    for pair in made:
        said = [one.values[0] for one in judgments(judge, ask_each([pair.prompt], pair.responses))]
        assert pair.judgments[1].values == pytest.approx(said, abs=5e-5)
        chosen, rejected = said
        assert chosen is not None
        assert rejected is not None
        assert chosen > rejected


def test_the_shipped_scored_pairs_are_everyday_pairs() -> None:
    scored, every = (list(Reading(find_source(name))) for name in ("everyday_scored_pairs", "everyday_pairs"))

    assert {pair.judgments[0].subjects for pair in scored} <= {pair.judgments[0].subjects for pair in every}


def test_how_sure_a_preference_is_stands_beside_it() -> None:
    assert pairs_of(prob_chosen_wins=0.7) == [[("preference", (0.7,))]]
    assert pairs_of(prob_chosen_wins=None) == [[("preference", (1.0,))]]


@pytest.mark.parametrize(
    ("wrong", "code"), [(1.2, "out_of_range"), (-0.1, "out_of_range"), ("often", "wrong_type"), (True, "wrong_type")]
)
def test_a_probability_is_a_number_from_0_to_1(wrong: object, code: str) -> None:
    assert read(prob_chosen_wins=wrong) == ([], {code: 1})

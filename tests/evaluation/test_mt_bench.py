"""`prefloop evaluate mt-bench`: ratings of real judgments, pairs in both orders, and who is asked what."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from prefloop.cli.app import app
from prefloop.errors import DataError, PrefloopError, RecipeError
from prefloop.evaluation import vote_agreement
from prefloop.pairing import grading_messages, judge_prompt_name, pair_winner, rating
from prefloop.statistics import mid_p_interval

RUNNER = CliRunner()
SHARED = Path(__file__).resolve().parents[2].parent / "shared"
published = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the published judgments are not at {SHARED}")


def evaluated(*arguments: str | Path) -> dict[str, Any]:
    result = RUNNER.invoke(app, ["evaluate", "mt-bench", *map(str, arguments), "--bootstrap", "60", "--json", "-"])
    if isinstance(result.exception, PrefloopError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def written(folder: Path, rows: list[dict[str, Any]], name: str = "judgments.jsonl") -> Path:
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def judged(question: int, turn: int, text: str | None, model: str = "mine", **columns: object) -> dict[str, Any]:
    return {"question_id": question, "model": model, "turn": turn, "judgment": text, **columns}


def pair(question: int, first: str, second: str, models: tuple[str, str] = ("x", "y")) -> dict[str, Any]:
    return {
        "question_id": question,
        "model_1": models[0],
        "model_2": models[1],
        "turn": 1,
        "g1_judgment": first,
        "g2_judgment": second,
    }


@published
def test_every_published_rating_and_table() -> None:
    folder = SHARED / "evaluation" / "data" / "mt_bench"
    with gzip.open(folder / "single_judgments.jsonl.gz", "rt") as lines:
        scores = [json.loads(line)["score"] for line in lines]
    questions = SHARED / "data" / "mt_bench_question.jsonl"
    found = evaluated(folder / "single_judgments.jsonl.gz", "--questions", questions)
    assert found["ratings"] == scores
    assert len(scores) == 320
    for name, expected in json.loads((folder / "expected.json").read_text()).items():
        one = found["models"][name]
        assert (one["n"], one["unparsed"]) == (expected["rows"], expected["failed"])
        for part in ("turn1", "turn2", "average"):
            assert one[part] == pytest.approx(expected[part], abs=1e-12)
            low, high = one["intervals"][part]
            assert low < one[part] < high
        assert len(one["categories"]) == 8
    assert found["warnings"] == []  # references exactly for math, reasoning and coding


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Rating: [[7]] and later [[9]]", 7),
        ("Rating: [8.5]", 8.5),
        ("[3] but finally [[4]]", 4),
        ("[[10.]]", 10.0),
        ("[[12]]", 12),  # not clipped
        ("rating 7", -1),
        ("[[seven]]", -1),
        ("", -1),
    ],
)
def test_ratings_of_texts(text: str, value: float) -> None:
    assert rating(text) == value
    assert type(rating(text)) is type(value)


def test_the_average_is_over_rows_not_turns_and_failures_are_counted(tmp_path: Path) -> None:
    rows = [
        judged(1, 1, "[[10]]"),
        judged(2, 1, "[[8]]"),
        judged(2, 1, "[[6]]"),  # a second run
        judged(1, 2, "[[2]]"),
        judged(2, 2, "none"),
        judged(3, 2, None),
    ]
    found = evaluated(written(tmp_path, rows))
    assert found["ratings"] == [10, 8, 6, 2, -1, -1]
    one = found["models"]["mine"]
    assert (one["turn1"], one["turn2"], one["average"]) == (8.0, 2.0, 6.5)
    assert (one["unparsed"], one["n"]) == (2, 4)
    assert one["intervals"]["turn2"] is None  # one question


def test_two_models_are_compared_on_the_questions_that_both_have(tmp_path: Path) -> None:
    """Differences 2, 4 and 0 by question; the fourth question is the other model's alone."""
    rows = [judged(number, 1, f"[[{value}]]", "x") for number, value in enumerate([3, 5, 4])]
    rows += [judged(number, 1, f"[[{value}]]", "y") for number, value in enumerate([5, 9, 4, 1])]
    (pair,) = evaluated(written(tmp_path, rows))["paired"]
    assert (pair["model"], pair["against"], pair["n"], pair["difference"]) == ("y", "x", 3, pytest.approx(2.0))
    assert pair["standard_error"] == pytest.approx(2 / 3**0.5, abs=1e-9)  # s = 2
    assert pair["detectable_difference"] == pytest.approx(2.8016 * 2 / 3**0.5, abs=1e-3)
    low, high = pair["interval"]
    assert low <= 2 <= high


def test_a_turn_without_ratings_has_no_mean(tmp_path: Path) -> None:
    one = evaluated(written(tmp_path, [judged(1, 1, "[[5]]"), judged(1, 2, "?")]))["models"]["mine"]
    assert (one["turn1"], one["turn2"], one["average"]) == (5.0, None, 5.0)


def test_judgments_with_the_wrong_prompt_are_counted(tmp_path: Path) -> None:
    questions = written(tmp_path, [{"question_id": 1, "category": "math"}], "questions.jsonl")
    rows = [
        judged(1, 1, "[[5]]", judge_prompt="single-v1"),
        judged(1, 2, "[[5]]", judge_prompt="single-math-v1-multi-turn"),
    ]
    assert evaluated(written(tmp_path, rows), "--questions", questions)["warnings"] == [
        "1 judgments were made with another prompt than the one of their category and turn"
    ]
    with pytest.raises(DataError, match="question 2 is not in the file of questions"):
        evaluated(written(tmp_path, [judged(2, 1, "[[5]]")]), "--questions", questions)


def test_prompts_by_category_and_turn() -> None:
    assert judge_prompt_name("writing", 1) == "single-v1"
    assert judge_prompt_name("math", 2) == "single-math-v1-multi-turn"
    assert judge_prompt_name("coding", 1, pairwise=True) == "pair-math-v1"


@pytest.mark.parametrize(
    ("text", "winner"),
    [
        ("so [[A]]", "A"),
        ("[[B]] not [[C]]", "B"),
        ("[[B]] or rather [[A]]", "A"),  # by containment, in the order A, B, C
        ("[[C]]", "tie"),
        ("[[8, 7.95]]", "tie"),
        ("[[8,7]]", "A"),
        ("[[3, 7]]", "B"),
        ("A is better", None),
    ],
)
def test_winners_of_texts(text: str, winner: str | None) -> None:
    assert pair_winner(text) == winner


def test_pairs_by_hand(tmp_path: Path) -> None:
    """A is x in the first game and y in the second."""
    rows = [
        pair(1, "[[A]]", "[[B]]"),  # x, x
        pair(2, "[[A]]", "[[A]]"),  # x, y: the judge likes the first
        pair(3, "[[C]]", "[[C]]"),
        pair(4, "[[B]]", "[[A]]"),  # y, y
        pair(5, "[[A]]", "[[B]]"),
        pair(6, "[[A]]", "?"),  # an error
    ]
    found = evaluated(written(tmp_path, rows))
    x, y = found["models"]["x"], found["models"]["y"]
    assert (x["win"], x["loss"], x["tie"]) == (2, 1, 2)
    assert (y["win"], y["loss"], y["tie"]) == (1, 2, 2)
    assert (x["win_rate"], x["win_rate_adjusted"]) == (0.4, pytest.approx(0.6))
    assert (found["consistency"], found["errors"], found["n"]) == (0.8, 1, 5)
    assert found["first_bias"] == pytest.approx(5 / 8 - 0.5)  # of eight games with a winner
    for one, name, interval in (
        (found, "consistency", "consistency_interval"),
        (found, "first_bias", "first_bias_interval"),
        (x, "win_rate", "win_rate_interval"),
        (x, "win_rate_adjusted", "interval"),
    ):
        low, high = one[interval]
        assert low < one[name] < high
    assert x["n"] == 5


def test_exchanging_the_models_exchanges_wins_and_losses(tmp_path: Path) -> None:
    rows = [pair(1, "[[A]]", "[[B]]"), pair(2, "[[A]]", "[[A]]")]
    swapped = [pair(number + 1, row["g2_judgment"], row["g1_judgment"], ("y", "x")) for number, row in enumerate(rows)]
    there, back = (evaluated(written(tmp_path, each)) for each in (rows, swapped))
    assert there["models"]["x"]["win"] == back["models"]["x"]["win"] == 1
    assert there["models"]["y"]["loss"] == back["models"]["y"]["loss"] == 1
    assert there["consistency"] == back["consistency"]


def test_a_judge_that_always_says_a_gives_ties_only(tmp_path: Path) -> None:
    found = evaluated(written(tmp_path, [pair(number, "[[A]]", "[[A]]") for number in range(6)]))
    assert (found["consistency"], found["first_bias"]) == (0.0, 0.5)
    assert found["models"]["x"]["tie"] == 6
    assert found["consistency_interval"] == pytest.approx(mid_p_interval(0.0, 6))
    assert found["first_bias_interval"] == pytest.approx([bound - 0.5 for bound in mid_p_interval(1.0, 6)])
    assert found["models"]["x"]["win_rate_interval"] == pytest.approx(mid_p_interval(0.0, 6))
    assert found["models"]["x"]["interval"] == [0.5, 0.5]


def test_stored_winners_are_read_and_a_baseline_selects(tmp_path: Path) -> None:
    def stored(models: tuple[str, str], winner: str) -> dict[str, Any]:
        return {
            "question_id": 1,
            "model_1": models[0],
            "model_2": models[1],
            "g1_winner": winner,
            "g2_winner": winner,
        }

    file = written(tmp_path, [stored(("x", "y"), "model_1"), stored(("z", "y"), "model_2"), stored(("x", "z"), "tie")])
    assert list(evaluated(file)["models"]) == ["x", "y", "z"]
    found = evaluated(file, "--baseline", "x")
    assert found["n"] == 2
    assert found["models"]["y"]["loss"] == 1
    with pytest.raises(DataError, match="--baseline is 'w', expected one of the models: x, y, z"):
        evaluated(file, "--baseline", "w")
    with pytest.raises(DataError, match=r"g1_winner is 'x', expected model_1, model_2, tie or error"):
        evaluated(written(tmp_path, [stored(("x", "y"), "x")]))


def test_the_table_for_people(tmp_path: Path) -> None:
    file = written(tmp_path, [judged(number, turn, "[[5]]") for number in (1, 2) for turn in (1, 2)])
    lines = [
        " ".join(line.split()) for line in RUNNER.invoke(app, ["evaluate", "mt-bench", str(file)]).output.splitlines()
    ]
    assert lines == [
        "model turn 1 turn 2 average n unparsed",
        "mine 5.00 [5.00, 5.00] 5.00 [5.00, 5.00] 5.00 [5.00, 5.00] 4 0",
        "in brackets 95 %, BCa bootstrap over prompts",
    ]


def test_the_table_of_pairs_for_people(tmp_path: Path) -> None:
    file = written(tmp_path, [pair(number, "[[A]]", "[[B]]" if number % 2 else "[[A]]") for number in range(8)])
    output = RUNNER.invoke(app, ["evaluate", "mt-bench", str(file)]).output
    said = " ".join(output.split())
    assert re.search(r"x 4 0 4 0\.50 \[0\.\d\d, 0\.\d\d\] 0\.75 \[", said)
    assert re.search(r"both orders agree 0\.50 \[0\.\d\d, 0\.\d\d\]", said)
    assert re.search(r"less 0\.5: \+0\.25 \[\+0\.\d\d, \+0\.\d\d\]", said)


def test_options_of_the_other_kind_are_refused(tmp_path: Path) -> None:
    single, pairs = (
        written(tmp_path, [judged(1, 1, "[[5]]")]),
        written(tmp_path, [pair(1, "[[A]]", "[[A]]")], "p.jsonl"),
    )
    questions = written(tmp_path, [{"question_id": 1, "category": "math"}], "questions.jsonl")
    with pytest.raises(DataError, match="which have no baseline"):
        evaluated(single, "--baseline", "x")
    with pytest.raises(RecipeError, match="--questions is about ratings"):
        evaluated(pairs, "--questions", questions)
    with pytest.raises(DataError, match="turn is 3, expected 1 or 2"):
        evaluated(written(tmp_path, [judged(1, 3, "[[5]]")]))


def test_votes_of_judges_by_hand() -> None:
    one = {"q1": ["model_1"], "q2": ["tie (inconsistent)"], "q3": ["model_2"]}
    other = {"q1": ["model_1", "model_2"], "q2": ["tie"], "q3": ["tie"], "q4": ["model_1"]}
    assert vote_agreement(one, other, with_ties=True) == (pytest.approx(2 / 4), 4)
    assert vote_agreement(one, other, with_ties=False) == (0.5, 2)
    assert vote_agreement(other, other, with_ties=True) == (0.0, 1)


def test_the_judge_sees_what_its_turn_allows() -> None:
    system, user = grading_messages(["first question"], ["first answer"], None, category="writing")
    assert "first question" in user["content"]
    assert "[[rating]]" in user["content"]
    assert "second" not in user["content"] + system["content"]
    system, user = grading_messages(
        ["first question", "other question"], ["one", "two"], ["good one", "good two"], category="math"
    )
    assert "[[rating]]" in system["content"]
    assert "second question" in system["content"]
    order = [
        user["content"].index(text) for text in ("good one", "good two", "### Assistant:\none", "### Assistant:\ntwo")
    ]
    assert order == sorted(order)


@pytest.mark.parametrize(("category", "references"), [("math", None), ("writing", ["r"]), ("math", ["r", "s"])])
def test_references_belong_to_three_categories(category: str, references: list[str] | None) -> None:
    with pytest.raises(ValueError, match="references belong to coding, math, reasoning"):
        grading_messages(["q"], ["a"], references, category=category)

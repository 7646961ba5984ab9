"""Judges against labels whose answers can be counted, and the forms in which labels come."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from prefloop.cli.app import app
from prefloop.config import LongerJudge, PythonJudge
from prefloop.errors import DataError
from prefloop.evaluation.labelled import against_labels, labelled_pairs
from prefloop.judging import Apart, Judge, make_judge

LONGER = Apart(make_judge(LongerJudge(type="longer")), compares=True)


def known(function: str) -> Judge:
    return make_judge(PythonJudge(type="python", compares=True, function=f"prefloop.testing.judges:{function}"))


def llmbar(folder: Path, *rows: tuple[str, str, int], subset: str = "natural") -> Path:
    file = folder / "llmbar.jsonl"
    lines = [
        {"subset": subset, "index": n, "prompt": f"Question {n}", "output_1": one, "output_2": two, "label": label}
        for n, (one, two, label) in enumerate(rows)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def measured(judge: Judge, file: Path, **settings: Any) -> dict[str, Any]:
    return against_labels(judge, labelled_pairs(file, **settings))["subsets"]["all"]


ROWS = [("a b c", "a", 1), ("a", "a b", 2), ("a b", "a", 2), ("a", "b", 1)]


def test_a_judge_of_length_is_right_where_the_label_is_the_longer(tmp_path: Path) -> None:
    found = measured(LONGER, llmbar(tmp_path, *ROWS))
    assert (found["n"], found["acc_ab"], found["acc_ba"], found["acc_both"]) == (4, 0.5, 0.5, 0.5)
    assert (found["ties"], found["invalid"], found["kept"]) == (2, 0, 0.75)
    assert found["wrong"] == pytest.approx(1 / 3)
    low, high = found["wrong_interval"]
    assert low < 1 / 3 < high
    assert found["prefers_longer"] == 1.0
    assert found["labels_prefer_longer"] == pytest.approx(2 / 3)


def test_a_judge_of_places_is_right_in_one_order_and_makes_no_pair(tmp_path: Path) -> None:
    found = measured(known("always_first"), llmbar(tmp_path, *ROWS))
    assert (found["acc_ab"], found["acc_ba"], found["acc_both"]) == (0.5, 0.5, 0.0)
    assert (found["first_share"], found["position_agreement"], found["kept"], found["wrong"]) == (1.0, 0.0, 0.0, None)
    assert found["kappa"] == pytest.approx(0.0)


def test_subsets_are_told_apart(tmp_path: Path) -> None:
    file = llmbar(tmp_path, *ROWS)
    file.write_text(
        file.read_text()
        + json.dumps({"subset": "manual", "prompt": "q", "output_1": "x", "output_2": "x y z", "label": 2})
        + "\n"
    )
    found = against_labels(LONGER, labelled_pairs(file))["subsets"]
    assert {name: one["n"] for name, one in found.items()} == {"all": 5, "manual": 1, "natural": 4}
    assert found["manual"]["acc_both"] == 1.0


def test_votes_on_four_answers_are_pairs_and_ties_are_none(tmp_path: Path) -> None:
    file = tmp_path / "qa.jsonl"
    row = {
        "question": "q",
        "passages": [["t", "p"]],
        "gold": "g",
        "responses": ["a", "b", "c", "d"],
        "preference": [0, 1, 2, 1, 0, 2],
    }
    file.write_text(json.dumps(row) + "\n")
    pairs = labelled_pairs(file)
    assert [(one.first.text, one.second.text, one.gold) for one in pairs] == [
        ("a", "c", "1"),
        ("a", "d", "2"),
        ("b", "c", "1"),
        ("c", "d", "2"),
    ]
    assert pairs[0].prompt.messages[0].content == "t\np\n\nq"


def test_any_form_of_preferences_is_read(tmp_path: Path) -> None:
    file = tmp_path / "trl.jsonl"
    file.write_text(
        "".join(json.dumps({"prompt": f"q{n}", "chosen": "long answer", "rejected": "no"}) + "\n" for n in range(3))
    )
    assert measured(LONGER, file)["acc_both"] == 1.0


def test_pairs_are_drawn_by_the_seed(tmp_path: Path) -> None:
    file = llmbar(tmp_path, *ROWS)
    drawn = [[one.prompt.source for one in labelled_pairs(file, count=2, seed=seed)] for seed in (0, 0, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert len({tuple(one) for one in drawn}) > 1
    assert all(len(one) == 2 for one in drawn)


def test_a_label_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"llmbar\.jsonl:1: label is 3, expected 1 or 2"):
        labelled_pairs(llmbar(tmp_path, ("a", "b", 3)))


def command(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["judge", *words])
    return result.exit_code, " ".join((result.stdout + str(result.exception or "")).split())


def test_the_command_says_what_the_errors_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = str(llmbar(tmp_path, *(("a b", "a", 1) for _ in range(30)), *(("a", "a b", 1) for _ in range(3))))
    code, said = command(file, "--against", "labels", "--judge", "longer", "--json", str(tmp_path / "out.json"))
    assert code == 0
    assert "of pairs like these about 9% are wrong" in said
    assert "label_smoothing: 0.09 expects that" in said
    assert json.loads((tmp_path / "out.json").read_text())["subsets"]["all"]["wrong"] == pytest.approx(3 / 33)
    _, said = command(file, "--against", "labels", "--judge", "shorter")
    assert "not shown to be better than chance here: its pairs would teach nothing" in said
    _, said = command(
        file,
        "--against",
        "labels",
        "--judge",
        "{type: python, compares: true, function: 'prefloop.testing.judges:always_first'}",
    )
    assert "it never says the same in both orders" in said


def test_what_is_outside_the_program_is_asked_within_a_limit_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five pairs in both orders: four calls under the limit, then the six others, then none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("judges_of_mine.py").write_text(
        "def first(*asked):\n    with open('calls', 'a') as calls:\n        print(*asked, file=calls)\n    return 1.0\n"
    )
    file = str(llmbar(tmp_path, *((f"a {n}", f"b {n}", 1) for n in range(5))))
    judge = "{type: python, compares: true, function: 'judges_of_mine:first', price: 0.5}"
    asked = (file, "--against", "labels", "--judge", judge)

    _, said = command(*asked, "--max-calls", "4")
    assert "judge: judge.max_calls is 4, and 4 calls for $2.00 were made; 6 more answers are needed now" in said
    assert len(Path("calls").read_text().splitlines()) == 4
    assert "judge.max_cost is $2.4" in command(*asked, "--max-cost", "2.4")[1]
    for _ in range(2):
        assert command(*asked)[0] == 0
        assert len(set(Path("calls").read_text().splitlines())) == len(Path("calls").read_text().splitlines()) == 10
    assert command(*asked, "--run", "elsewhere")[0] == 0
    assert len(Path("calls").read_text().splitlines()) == 20


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "needs either --answers FILE, for a run, or --against labels and --judge, for a labelled set"),
        (("--against", "labels"), "needs either --answers FILE"),
        (("--answers", "x", "--count", "3"), "needs either --answers FILE"),
        (("--answers", "x", "--max-calls", "3"), "needs either --answers FILE"),
        (("--against", "labels", "--judge", "longer", "--max-calls", "3"), "judge longer costs nothing: remove max_"),
        (
            ("--against", "labels", "--judge", "vadr"),
            "--judge vadr: Input tag 'vadr' found using 'type' does",
        ),
        (("--against", "labels", "--judge", "{type: llm, policy: current}"), "judges within a run only"),
    ],
)
def test_what_cannot_be_asked_is_said(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    _, found = command(str(tmp_path), *words)
    assert said in found

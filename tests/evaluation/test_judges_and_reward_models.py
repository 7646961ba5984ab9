"""`prefloop evaluate agreement` and `reward-bench` against published numbers; rule-verified accuracy."""

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from prefloop.cli.app import app
from prefloop.cli.evaluate import write_plot
from prefloop.errors import DataError, PrefloopError, RecipeError
from prefloop.evaluation import evaluate_agreement, evaluate_reward_bench, final_number, is_right, verified_accuracy
from prefloop.evaluation.reward_bench import EXAMPLE_COUNTS, SECTIONS
from prefloop.statistics import combined_interval, mid_p_interval

RUNNER = CliRunner()
SHARED = Path(__file__).resolve().parents[2].parent / "shared"
published = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the published files are not at {SHARED}")


def evaluated(command: str, file: Path, *options: str) -> dict[str, Any]:
    result = RUNNER.invoke(app, ["evaluate", command, str(file), *options, "--json", "-"])
    if isinstance(result.exception, PrefloopError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def written(folder: Path, rows: list[dict[str, Any]], name: str = "judges.jsonl") -> Path:
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def run(gold: Any, ab: Any, ba: Any, evaluator: str = "mine") -> dict[str, Any]:
    return {"subset": "natural", "evaluator": evaluator, "gold": gold, "order_ab": ab, "order_ba": ba}


@published
def test_every_published_judge() -> None:
    folder = SHARED / "evaluation" / "data" / "llmbar_judges"
    runs = evaluated("agreement", folder / "judges.jsonl.gz")["runs"]
    expected = json.loads((folder / "expected.json").read_text())
    assert set(runs) == set(expected)
    for name, numbers in expected.items():
        for field, value in numbers.items():
            assert runs[name][field] == pytest.approx(value, abs=1e-15), (name, field)
    assert sum(one["unparsed"] for one in runs.values()) == 2


def test_a_run_by_hand(tmp_path: Path) -> None:
    one = evaluated("agreement", written(tmp_path, [run([1, 2, 1, 2], ["1", "2", "1", 2], [1, "2 ", "2", None])]))
    one = one["runs"]["natural|mine"]
    assert (one["acc_ab"], one["acc_ba"], one["acc_both"], one["position_agreement"]) == (1.0, 0.5, 0.5, 0.5)
    assert (one["unparsed"], one["n"]) == (1, 4)
    assert one["kappa"] == pytest.approx((6 / 8 - (4 * 3 + 4 * 4) / 64) / (1 - 28 / 64), abs=1e-12)
    assert one["intervals"]["acc_ab"] == pytest.approx(mid_p_interval(1.0, 4))
    for name in ("acc_mean", "first_share", "kappa", "position_kappa"):
        low, high = one["intervals"][name]
        assert low <= one[name] <= high
        assert low < high


def test_no_verdict_at_all_has_no_first_share(tmp_path: Path) -> None:
    one = evaluated("agreement", written(tmp_path, [run([1], ["?"], ["?"])]))["runs"]["natural|mine"]
    assert (one["first_share"], one["acc_ab"], one["unparsed"]) == (None, 0.0, 2)
    assert (one["intervals"]["first_share"], one["intervals"]["kappa"]) == (None, None)


def test_verdicts_are_one_as_number_text_and_float(tmp_path: Path) -> None:
    file = written(tmp_path, [run([1, 2.0], ["1", 2], [1.0, "2 "])])
    assert evaluated("agreement", file)["runs"]["natural|mine"]["acc_both"] == 1.0


def test_seed_and_draws_of_the_bootstrap_are_ones_own(tmp_path: Path) -> None:
    file = written(tmp_path, [run([1, 2] * 9, ["1", "1", "2"] * 6, ["2", "1"] * 9)])
    intervals = [
        evaluate_agreement(file, draws=draws, seed=seed)["runs"]["natural|mine"]["intervals"]["kappa"]
        for draws, seed in ((100, 0), (100, 0), (100, 1), (50, 0))
    ]
    assert intervals[0] == intervals[1]
    assert intervals[0] not in intervals[2:]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (run([1, 2], ["1"], ["1", "2"]), "order_ab is ['1'], expected a list with one entry an item"),
        (run([], [], []), "gold is [], expected a list"),
        (run([1, 3], ["1", "1"], ["1", "2"]), "gold is [1, 3], expected labels 1 and 2."),
        ({"subset": "natural"}, "has no evaluator; its columns are subset."),
    ],
)
def test_bad_runs_are_one_line(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        evaluated("agreement", written(tmp_path, [row]))
    assert message in str(caught.value)


def test_a_run_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"judges.jsonl:2: the run natural\|mine stands twice"):
        evaluated("agreement", written(tmp_path, [run([1], ["1"], ["1"])] * 2))


@published
def test_every_published_reward_model_case() -> None:
    file = SHARED / "evaluation" / "data" / "rewardbench" / "vectors.json"
    given = json.loads(file.read_text())
    assert {name: list(subsets) for name, subsets in SECTIONS.items()} == given["sections"]
    assert dict(EXAMPLE_COUNTS) == given["example_counts"]
    found = evaluated("reward-bench", file)["cases"]
    assert len(found) == len(given["cases"]) == 3
    for one, case in zip(found, given["cases"], strict=True):
        assert one["seed"] == case["seed"]
        assert one["expected_best_of_4"] == case["expected_best_of_4"]
        for field in ("expected_subset_accuracy", "expected_sections", "expected_ties"):
            assert one[field] == pytest.approx(case[field], abs=1e-12), field
        assert one["expected_overall_four_sections"] == pytest.approx(case["expected_overall_four_sections"], abs=1e-12)


def test_lines_of_pairs_are_one_case(tmp_path: Path) -> None:
    rows = [
        {"subset": "hep-cpp", "chosen": 1.0, "rejected": 0.5},
        {"subset": "hep-cpp", "chosen": 1.0, "rejected": 1.0},
        {"subset": "math-prm", "chosen": 2, "rejected": 0},
        {"subset": "own", "chosen": 2, "rejected": 0},
    ]
    (one,) = evaluated("reward-bench", written(tmp_path, rows))["cases"]
    assert one["expected_subset_accuracy"] == {"hep-cpp": 0.5, "math-prm": 1.0, "own": 1.0}
    assert one["subset_ties"]["hep-cpp"] == 0.5
    assert one["expected_sections"]["Reasoning"] == pytest.approx((0.5 * 164 + 984) / (164 + 984), abs=1e-12)
    assert one["expected_overall_four_sections"] == pytest.approx(one["expected_sections"]["Reasoning"] / 4, abs=1e-12)
    assert one["not_in_a_section"] == ["own"]
    assert one["subset_intervals"]["hep-cpp"] == pytest.approx(mid_p_interval(0.5, 2))
    weights = [164 / (164 + 984), 984 / (164 + 984)]
    assert one["section_intervals"]["Reasoning"] == pytest.approx(combined_interval([0.5, 1.0], [2, 1], weights))
    assert one["section_intervals"]["Chat"] is None
    of_all = combined_interval([0.5, 1.0, 1.0], [2, 1, 1], [weights[0] / 4, weights[1] / 4, 0.0])
    assert one["overall_interval"] == pytest.approx(of_all)
    low, high = one["log_loss_intervals"]["hep-cpp"]
    losses = [math.log1p(math.exp(-0.5)), math.log(2)]
    assert (low + high) / 2 == pytest.approx(sum(losses) / 2)
    assert high - low == pytest.approx(2 * 12.7062047 * abs(losses[0] - losses[1]) / 2)  # t(1), s / sqrt(2)
    assert "by_length" not in one


def test_accuracy_by_length_shows_a_taste_for_length(tmp_path: Path) -> None:
    rows = [
        {"subset": "own", "chosen": gap, "rejected": 0, "len_chosen": 10 + gap, "len_rejected": 10}
        for gap in (3, 2, -1, -4, 0)
    ]
    found = evaluated("reward-bench", written(tmp_path, rows))["cases"][0]["by_length"]
    assert [(found[name]["accuracy"], found[name]["n"]) for name in ("chosen longer", "chosen shorter", "equal")] == [
        (1.0, 2),
        (0.0, 2),
        (0.0, 1),
    ]
    assert found["chosen longer"]["interval"] == pytest.approx(mid_p_interval(1.0, 2))


def test_best_of_four_and_ties_have_intervals(tmp_path: Path) -> None:
    best = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [2, 0, 0, 1]]
    ties = [
        {"id": f"{group}:{number}", "scores": [3, 1 + 3 * (number % 2)], "num_correct": 1}
        for group in ("tied", "ref")
        for number in range(6)
    ]
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"cases": [{"best_of_4": best, "ties": ties}]}))
    (one,) = evaluated("reward-bench", file)["cases"]
    assert one["best_of_4_score"] == 0.625
    assert one["best_of_4_interval"][0] < 0.625 < one["best_of_4_interval"][1]
    assert one["ties_interval"][0] < one["expected_ties"]["score"] < one["ties_interval"][1]
    assert one["ties_n"] == 6


def test_sections_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    case = {"pairs": [["a", 1, 0], ["b", 0, 1]]}
    file.write_text(json.dumps({"sections": {"S": ["a", "b"]}, "example_counts": {"a": 3, "b": 1}, "cases": [case]}))
    assert evaluated("reward-bench", file)["cases"][0]["expected_sections"] == {"S": 0.75}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "has no cases"),
        ("{", "is not JSON"),
        ('{"cases": [{"ties": [{"id": "ref:0", "num_correct": 2, "scores": [1, 2]}]}]}', "ref:0 has 2 correct of 2"),
        ('{"cases": [{"pairs": [["a", 1]]}]}', "mine.json, case 1: cannot be scored"),
        ('{"cases": [{"pairs": [["a", 1, NaN]]}]}', "a score is nan, expected a number"),
        ('{"cases": [{"best_of_4": [[1, null, 0, 0]]}]}', "a score is None, expected a number"),
        ('{"cases": [{"ties": [{"id": "ref:0", "num_correct": 1, "scores": [1, true]}]}]}', "a score is True"),
        ('{"cases": [{"pairs": []}]}', "case 1: has neither pairs nor best_of_4 nor ties, or they are empty."),
        ('{"cases": [], "sections": {}}', "has no cases"),
        ('{"cases": [{}], "sections": 5}', "sections and example_counts are no objects"),
        ('{"cases": [{}], "sections": {}}', "sections is empty. Leave it out for RewardBench's own."),
        ('{"cases": [{}], "sections": {"A": "z"}}', "sections.A is 'z', expected a list of subsets."),
        ('{"cases": [{}], "sections": {"A": ["z"]}}', "example_counts.z is None, expected a number > 0."),
        ('{"cases": [{"best_of_4": [[1, 2, 3, Infinity]]}]}', "a score is inf, expected a number"),
        ('{"cases": [{"pairs": [["a", 1e308, -1e308]]}]}', "a score is beyond 1e+300"),
    ],
)
def test_bad_cases_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.json"
    file.write_text(text)
    with pytest.raises(DataError) as caught:
        evaluated("reward-bench", file)
    assert message in str(caught.value)


def test_what_people_read(tmp_path: Path) -> None:
    file = written(tmp_path, [{"subset": "own", "chosen": 2, "rejected": 0}] * 4)
    lines = RUNNER.invoke(app, ["evaluate", "reward-bench", str(file)]).output.splitlines()
    assert lines[0] == "case 1"
    own = "  own: 1.00 [0.47, 1.00] of 4, 0.0% equal scores, log loss 0.13 [0.13, 0.13] nats, calibration error"
    assert any(line.startswith(own) for line in lines)
    assert "  Chat: no pair, counted as 0" in lines
    assert "  in no section: own" in lines
    judges = written(tmp_path, [run([1, 2], ["1", "2"], ["1", "2"])])
    table = RUNNER.invoke(app, ["evaluate", "agreement", str(judges)]).output.splitlines()
    right, same = table[1], table[3]
    assert right.split()[:4] == ["natural|mine", "1.00", "[0.22,", "1.00]"]
    assert same.split()[1:10] == ["1.00", "[0.22,", "1.00]", "1.00", "[-0.55,", "1.00]", "0.50", "[0.50,", "0.50]"]


def test_prior_sets_count_half_a_section(tmp_path: Path) -> None:
    """Overall with weights 2, 2, 2, 2, 1: only Reasoning has a pair, and of the prior sets half are right."""
    priors = [
        {"subset": name, "chosen": right, "rejected": 0.5}
        for name in ("anthropic_helpful", "anthropic_hhh", "shp", "summarize")
        for right in (0, 1)
    ]
    own = [{"subset": "hep-cpp", "chosen": 1, "rejected": 0}]
    (case,) = evaluated("reward-bench", written(tmp_path, own + priors))["cases"]
    assert case["prior_sets"] == 0.5
    assert case["overall_with_prior_sets"] == pytest.approx((2 * 1.0 + 0.5) / 9)
    low, high = case["overall_with_prior_sets_interval"]
    assert low < case["overall_with_prior_sets"] < high
    assert case["not_in_a_section"] == []
    (without,) = evaluated("reward-bench", written(tmp_path, own + priors[2:]))["cases"]
    assert "prior_sets" not in without
    assert without["not_in_a_section"] == ["anthropic_hhh", "shp", "summarize"]


def test_a_writing_judge_earns_half_for_what_is_no_verdict(tmp_path: Path) -> None:
    texts = ["better is [[A]]", "[[B]]", "I cannot tell", None]
    shown = [{"subset": "hep-cpp", "judgment": text, "chosen_shown": "A"} for text in texts]
    (case,) = evaluated("reward-bench", written(tmp_path, shown))["cases"]
    assert case["expected_subset_accuracy"] == {"hep-cpp": (1 + 0 + 0.5 + 0.5) / 4}
    assert "log_loss" not in case
    assert case["subset_intervals"]["hep-cpp"] == pytest.approx(mid_p_interval(0.5, 4))
    ratings = [{"subset": "hep-cpp", "chosen": 7, "rejected": other} for other in (7, 7, 3)]
    strict, half = (
        evaluated("reward-bench", written(tmp_path, ratings), *options)["cases"][0]["expected_subset_accuracy"]
        for options in ((), ("--generative",))
    )
    assert (strict, half) == ({"hep-cpp": pytest.approx(1 / 3)}, {"hep-cpp": pytest.approx(2 / 3)})
    with pytest.raises(DataError, match="chosen_shown is 'C', expected A or B"):
        evaluated("reward-bench", written(tmp_path, [{"subset": "a", "judgment": "", "chosen_shown": "C"}]))


@published
def test_the_rule_gives_all_5276_flags_of_gsm8k() -> None:
    right = total = 0
    with gzip.open(SHARED / "data" / "gsm8k_model_solutions.jsonl.gz", "rt") as lines:
        for line in lines:
            problem = json.loads(line)
            for name in ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"):
                solution = problem[name]
                assert is_right(solution["solution"], problem["ground_truth"]) is solution["is_correct"]
                right += solution["is_correct"]
                total += 1
    assert (right, total) == (286 + 515 + 458 + 742, 5276)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 3 + 4\nA: 1,234", 1234.0),
        ("A: 5 or 6", 6.0),
        ("A: 5\nno, A: -7.50", -7.5),
        ("A: .5", 0.5),
        ("A: $18.", 18.0),
        ("A: none", None),
        ("18", None),
    ],
)
def test_final_numbers(text: str, number: float | None) -> None:
    assert final_number(text) == number


def test_accuracy_by_rule_is_over_prompts() -> None:
    answers = ["A: 1", "A: 2", "A: x", "A: 3"]
    found = verified_accuracy(
        answers, ["#### 1", "#### 1", "#### 3", "#### 3"], ["p", "p", "q", "q"], reference_marker="####"
    )
    assert (found.accuracy, found.without_number, found.n) == (0.5, 1, 4)
    assert found.interval == (0.5, 0.5)  # either prompt has one right answer
    assert math.isnan(verified_accuracy(answers[:2], ["A: 1"] * 2, ["p", "p"]).interval[0])
    with pytest.raises(ValueError, match="reference 2 has no number behind 'A:'"):
        verified_accuracy(answers[:2], ["A: 1", "B: 1"], ["p", "p"])


def test_judges_and_reward_models_are_drawn_with_their_intervals(tmp_path: Path) -> None:
    run = {"gold": [1, 2, 1, 1], "order_ab": [1, 2, 2, 1], "order_ba": [1, 2, 1, 1]}
    judged = {"runs": {"s|judge": {"acc_both": 0.75, "intervals": {"acc_both": [0.3, 0.95]}}}}
    write_plot(tmp_path / "judges.svg", judged)
    assert "s|judge" in (tmp_path / "judges.svg").read_text()
    (tmp_path / "run.jsonl").write_text(json.dumps({"subset": "s", "evaluator": "e", **run}) + "\n")
    write_plot(tmp_path / "real.svg", evaluate_agreement(tmp_path / "run.jsonl"))
    assert (tmp_path / "real.svg").read_text().count("<circle") == 1
    (tmp_path / "pairs.jsonl").write_text('{"subset": "math-prm", "chosen": 2, "rejected": 1}\n')
    write_plot(tmp_path / "pairs.svg", evaluate_reward_bench(tmp_path / "pairs.jsonl"))
    assert "math-prm" in (tmp_path / "pairs.svg").read_text()
    with pytest.raises(RecipeError, match="no model has a value to draw"):
        write_plot(tmp_path / "none.svg", {"cases": [{}]})

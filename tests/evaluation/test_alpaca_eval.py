"""`prefloop evaluate alpaca-eval`: published numbers, the field's files both ways, and what users get wrong."""

import csv
import gzip
import json
import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from prefloop.cli.app import app
from prefloop.errors import DataError, PrefloopError, RecipeError
from prefloop.evaluation import (
    leaderboard_row,
    read_annotations,
    read_leaderboard,
    write_annotations,
    write_leaderboard,
)
from prefloop.evaluation.alpaca_eval import Settings, score
from prefloop.evaluation.alpaca_files import Judged
from prefloop.statistics import length_controlled

RUNNER = CliRunner()
PUBLISHED = Path(__file__).resolve().parents[2].parent / "shared" / "evaluation" / "data" / "alpacaeval"
published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"the published AlpacaEval rows are not at {PUBLISHED}")
MODELS = [
    "FuseChat-Gemma-2-9B-Instruct",
    "gpt-3.5-turbo-1106_verbose",
    "gpt-3.5-turbo-1106_concise",
    "gpt35_turbo_instruct",
]
FULL = (
    "--difficulty",
    str(PUBLISHED / "instruction_difficulty.csv"),
    "--gamed",
    str(PUBLISHED / "gamed_baselines_reconstructed.csv.gz"),
)


def evaluated(*arguments: str | Path) -> dict[str, Any]:
    draws = () if "--bootstrap" in arguments else ("--bootstrap", "40")
    result = RUNNER.invoke(app, ["evaluate", "alpaca-eval", *map(str, arguments), *draws, "--json", "-"])
    if isinstance(result.exception, PrefloopError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def one(*arguments: str | Path) -> dict[str, Any]:
    (model,) = evaluated(*arguments)["models"].values()
    return model


def written(folder: Path, rows: list[dict[str, Any]], name: str = "mine.jsonl") -> Path:
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def row(index: int, preference: float | None, baseline: int = 100, model: int = 120) -> dict[str, Any]:
    return {"index": index, "preference": preference, "len_baseline": baseline, "len_model": model}


def some_rows(count: int = 40) -> list[dict[str, Any]]:
    generator = np.random.default_rng(0)
    return [
        row(number, 1 + float(generator.uniform()), int(generator.integers(50, 900)), int(generator.integers(50, 900)))
        for number in range(count)
    ]


def a_difficulty_file(folder: Path, numbers: range, name: str = "d.csv", texts: bool = False) -> Path:
    file = folder / name
    head = "index,instruction_difficulty" + (",instruction" if texts else "")
    lines = [f"{number},{math.sin(number):.6f}" + (f",question {number}" if texts else "") for number in numbers]
    file.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    return file


@published
@pytest.mark.parametrize("model", MODELS)
def test_published_numbers(model: str) -> None:
    """By row number, as they were computed, and with C searched: that finds the C of the published fit, so that the
    tolerance is that of a fixed C. `gpt35_turbo_instruct` lacks a row: its published mean length is of 805 answers."""
    expected = json.loads((PUBLISHED / "expected.json").read_text())[model]
    found = one(PUBLISHED / f"{model}.jsonl.gz", *FULL, "--by-position")
    for field in ("win_rate", "standard_error", "n_wins", "n_wins_base", "n_draws", "n_total", "discrete_win_rate"):
        assert found[field] == pytest.approx(expected[field], abs=1e-9), field
    assert found["avg_length"] == expected["avg_length"] + (model == "gpt35_turbo_instruct")
    assert found["c"] == pytest.approx(expected["C_published_fit"], rel=1e-12)
    assert found["length_controlled_winrate"] == pytest.approx(expected["length_controlled_winrate"], abs=0.002)
    assert found["coefficients"] == pytest.approx(expected["coef_published"], abs=2e-3)
    if expected["lc_standard_error"] is not None:
        assert found["lc_standard_error"] == pytest.approx(expected["lc_standard_error"], abs=1e-4)
    low, high = found["lc_interval"]
    assert low < expected["length_controlled_winrate"] < high


def test_the_baseline_against_itself_has_exactly_50(tmp_path: Path) -> None:
    rows = [row(number, 1.5, 100 + number, 100 + number) for number in range(40)]
    gamed = tmp_path / "gamed.csv"
    gamed.write_text(
        "model,index,std_delta_len,instruction_difficulty,preference\n"
        + "".join(f"v,{number},-1.5,{math.sin(number)},0.8\n" for number in range(40))
    )
    options = ("--difficulty", a_difficulty_file(tmp_path, range(40)), "--gamed", gamed)
    found = one(written(tmp_path, rows), *options)
    assert (found["length_controlled_winrate"], found["lc_standard_error"]) == (50.0, 0.0)
    assert (found["lc_interval"], found["interval"]) == ([50.0, 50.0], [50.0, 50.0])
    assert (found["variant"], found["n_draws"], found["c"]) == ("full", 40, None)


@published
def test_verbose_and_concise_are_as_far_apart_as_published_and_differ_significantly() -> None:
    verbose, concise = (PUBLISHED / f"gpt-3.5-turbo-1106_{style}.jsonl.gz" for style in ("verbose", "concise"))
    found = evaluated(verbose, concise, *FULL, "--baseline", "gpt-3.5-turbo-1106_concise")
    rates = [model["length_controlled_winrate"] for model in found["models"].values()]
    assert rates[0] - rates[1] == pytest.approx(6.23, abs=0.01)
    (pair,) = found["paired"]
    assert (pair["model"], pair["against"], pair["n"]) == (concise.name[:-9], verbose.name[:-9], 805)
    assert pair["difference"] == pytest.approx(7.41586497762733 - 12.76316981026087, abs=1e-9)
    assert pair["interval"][1] < 0
    assert pair["detectable_difference"] == pytest.approx(2.8016 * pair["standard_error"], rel=1e-4)
    controlled = pair["length_controlled"]
    assert controlled["difference"] == pytest.approx(rates[1] - rates[0])
    assert controlled["interval"][0] < controlled["difference"] < controlled["interval"][1] < 0
    assert controlled["standard_error"] < pair["standard_error"] * 2
    against = [model["against"]["gpt-3.5-turbo-1106_concise"] for model in found["models"].values()]
    assert against[1] == 50.0
    assert against[0] > 60
    low, high = found["models"]["gpt-3.5-turbo-1106_verbose"]["against_interval"]["gpt-3.5-turbo-1106_concise"]
    assert 50 < low < against[0] < high


def test_two_models_are_compared_at_equal_lengths_on_the_same_resampled_instructions(tmp_path: Path) -> None:
    """A model differs from itself by nothing and from a shuffled one by something; without lengths by nobody knows."""
    rows = [row(n, 1.0 + 0.5 * (n % 3), model=100 + 7 * (n % 5)) for n in range(60)]
    files = [written(tmp_path, rows, "a.jsonl"), written(tmp_path, rows[::-1], "b.jsonl")]
    files.append(written(tmp_path, [{**one, "preference": 2.5 - one["preference"] / 2} for one in rows], "c.jsonl"))
    bare = [{"index": one["index"], "preference": one["preference"]} for one in rows]
    files.append(written(tmp_path, bare, "d.jsonl"))
    options = ("--bootstrap", "200", "--c", "100", "--baseline", "c")
    same, apart, unknown = (one["length_controlled"] for one in evaluated(*files, *options)["paired"])
    assert (same["difference"], same["standard_error"]) == (0.0, pytest.approx(0.0, abs=1e-9))
    assert apart["interval"][0] < apart["difference"] < apart["interval"][1]
    assert apart["detectable_difference"] == pytest.approx(2.8016 * apart["standard_error"], rel=1e-4)
    assert unknown is None
    found = evaluated(files[0], files[2], *options)["models"]["a"]
    low, high = found["against_interval"]["c"]
    assert low < found["against"]["c"] < high
    output = RUNNER.invoke(app, ["evaluate", "alpaca-eval", *map(str, files[1:3]), *options]).output
    assert "  at equal lengths: " in output
    assert re.search(r"b against c at equal lengths: \d+\.\d\d \[\d+\.\d\d, \d+\.\d\d\] %", output)


@published
def test_recomputed_orders_and_preferences_stand_in_the_result() -> None:
    with gzip.open(PUBLISHED / "logprob_vectors.jsonl.gz", "rt") as lines:
        stored = [json.loads(line) for line in lines]
    found = one(PUBLISHED / "logprob_vectors.jsonl.gz", "--order-coin")
    assert found["switched"] == [line["switched"] for line in stored]
    assert found["preference"] == pytest.approx([line["preference"] for line in stored], abs=1e-10)
    assert found["length_controlled_winrate"] is None


def test_everything_is_said_about_a_file(tmp_path: Path) -> None:
    rows = [
        row(0, 2.0, 100, 130),
        row(1, 1.0, 90, 80),
        row(2, 1.5, 70, 75),
        row(3, 0, 60, 60),
        row(4, None),
        row(5, -1),
    ]
    found = one(written(tmp_path, rows), "--c", "2")
    assert {name: found[name] for name in ("n_wins", "n_wins_base", "n_draws", "n_total", "n_failed")} == {
        "n_wins": 1,
        "n_wins_base": 1,
        "n_draws": 2,  # 0 is an old way to write a draw
        "n_total": 4,
        "n_failed": 2,
    }
    assert (found["win_rate"], found["discrete_win_rate"], found["avg_length"]) == (50.0, 50.0, 97)
    assert found["warnings"][0] == "2 of 6 judgments failed and are left out"
    assert "only 4 instructions: the fit of the length effect rests on few rows" in found["warnings"]
    assert (found["c"], found["lc_interval_c"]) == (2.0, 100.0)
    assert found["interval_method"] == "95 %, BCa bootstrap over prompts"
    assert list(found["coefficients"]) == ["length", "difficulty", "quality"]
    assert found["coefficients"]["difficulty"] is None


def test_the_table_for_people(tmp_path: Path) -> None:
    rows = [{"index": number, "preference": 1.5, "len_baseline": 10, "len_model": 10} for number in range(9)]
    result = RUNNER.invoke(app, ["evaluate", "alpaca-eval", str(written(tmp_path, rows))])
    assert result.exit_code == 0
    lines = [line.rstrip() for line in result.output.splitlines()]
    assert lines[1].split() == [
        *("mine", "50.00", "[50.00,", "50.00]", "50.00", "[50.00,", "50.00]"),
        *("-", "0", "0", "9", "10", "[10,", "10]"),
    ]
    assert lines[2] == "percent against the baseline; variant minimal; in brackets 95 %, BCa bootstrap over prompts"


def test_discrete_rates_and_lengths_have_intervals_too(tmp_path: Path) -> None:
    found = one(written(tmp_path, some_rows()), "--bootstrap", "1000")
    lengths = np.array([row["len_model"] for row in some_rows()])
    margin = stats.t.ppf(0.975, len(lengths) - 1) * lengths.std(ddof=1) / len(lengths) ** 0.5
    assert found["avg_length_interval"] == pytest.approx([lengths.mean() - margin, lengths.mean() + margin])
    low, high = found["discrete_interval"]
    assert low < found["discrete_win_rate"] < high
    won = np.array([round(row["preference"] - 1) for row in some_rows()])
    error = 100 * won.std(ddof=1) / len(won) ** 0.5
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.15)  # of 1,000 resamples


@pytest.mark.parametrize("variant", ["minimal", "noreg"])
def test_exchanging_the_sides_of_a_file_gives_100_less(tmp_path: Path, variant: str) -> None:
    rows = some_rows()
    swapped = [row(each["index"], 3 - each["preference"], each["len_model"], each["len_baseline"]) for each in rows]
    options = ("--variant", variant, "--difficulty", a_difficulty_file(tmp_path, range(40)))
    there, back = (one(written(tmp_path, each), *options) for each in (rows, swapped))
    assert there["length_controlled_winrate"] + back["length_controlled_winrate"] == pytest.approx(100, abs=1e-9)
    assert there["win_rate"] + back["win_rate"] == pytest.approx(100, abs=1e-9)


def test_order_of_rows_and_unit_of_length_change_nothing(tmp_path: Path) -> None:
    rows = some_rows()
    longer = [{**each, "len_baseline": 3 * each["len_baseline"], "len_model": 3 * each["len_model"]} for each in rows]
    options = ("--c", "2")
    found = [one(written(tmp_path, each), *options) for each in (rows, rows[::-1], longer)]
    for other in found[1:]:
        assert other["length_controlled_winrate"] == pytest.approx(found[0]["length_controlled_winrate"], abs=1e-9)


def test_difficulties_go_by_index_and_by_position_only_when_asked(tmp_path: Path) -> None:
    """Rows 5 to 39 of 40: by position each gets the difficulty of five rows before."""
    file, table = written(tmp_path, some_rows()[5:]), a_difficulty_file(tmp_path, range(40))
    options = ("--difficulty", table, "--c", "100")
    shifted = written(tmp_path, [{**each, "index": each["index"] - 5} for each in some_rows()[5:]], "shifted.jsonl")
    by_index, by_position = one(file, *options), one(file, *options, "--by-position")
    assert (by_index["difficulty_by"], by_position["difficulty_by"]) == ("index", "row number")
    assert by_position["coefficients"] == one(shifted, *options)["coefficients"]
    assert by_position["coefficients"]["difficulty"] != pytest.approx(by_index["coefficients"]["difficulty"], abs=1e-3)


def test_annotation_files_are_read_and_matched_by_instruction(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    rows: list[dict[str, Any]] = [
        {
            "instruction": f"question {number}",
            "output_1": "b" * int(generator.integers(5, 90)),
            "generator_1": "gpt4_1106_preview",
            "dataset": "koala",
            "output_2": "ö" * int(generator.integers(5, 90)),
            "generator_2": "mine",
            "annotator": "weighted_alpaca_eval_gpt4_turbo",
            "preference": 1 + float(generator.uniform()),
        }
        for number in range(30)
    ]
    lines = [
        row(number, each["preference"], len(each["output_1"]), len(each["output_2"]))
        for number, each in enumerate(rows)
    ]
    file = tmp_path / "annotations.json"
    write_annotations(file, rows[::-1])
    options = ("--difficulty", a_difficulty_file(tmp_path, range(40), texts=True))
    found, expected = one(file, *options), one(written(tmp_path, lines), *options)
    assert found["difficulty_by"] == "instruction"
    for name in ("win_rate", "avg_length"):
        assert found[name] == pytest.approx(expected[name], abs=1e-12)
    assert one(file, *options, "--c", "2")["coefficients"] == pytest.approx(
        one(written(tmp_path, lines), *options, "--c", "2")["coefficients"], abs=1e-9
    )


def test_rows_without_index_need_texts_positions_or_all_difficulties(tmp_path: Path) -> None:
    rows = [
        {"instruction": f"question {number}", "output_1": "a" * (number + 3), "output_2": "ab" * 9, "preference": 1.4}
        for number in range(9)
    ]
    file, plain = written(tmp_path, rows), a_difficulty_file(tmp_path, range(10))
    with pytest.raises(DataError, match="9 rows without an index meet 10 difficulties without texts"):
        one(file, "--difficulty", plain)
    all_known = a_difficulty_file(tmp_path, range(9), "nine.csv")
    positions = one(file, "--difficulty", plain, "--by-position", "--c", "9")
    assert one(file, "--difficulty", all_known, "--c", "9")["coefficients"] == positions["coefficients"]
    with pytest.raises(DataError, match="no difficulty is known for 'question 5'"):
        one(file, "--difficulty", a_difficulty_file(tmp_path, range(5), texts=True))


def test_repeated_instructions_vary_together(tmp_path: Path) -> None:
    """Every row four times: the same numbers, and the interval of a fourth of the rows."""
    rows = some_rows()
    once = one(written(tmp_path, rows), "--c", "100")
    four = one(written(tmp_path, rows * 4), "--c", "100")
    assert four["n_total"] == 160
    assert four["interval"] == pytest.approx(once["interval"], abs=1e-9)
    assert four["lc_interval"] == pytest.approx(once["lc_interval"], abs=0.5)  # the penalty weighs a fourth


def test_all_wins_have_an_interval_that_leaves_room(tmp_path: Path) -> None:
    found = one(written(tmp_path, [row(number, 2.0, 50 + number, 90) for number in range(20)]))
    assert found["win_rate"] == 100.0
    assert found["interval"] == pytest.approx([100 * 0.05 ** (1 / 20), 100.0])  # mid-P: half of p^20 is 2.5 %
    assert found["lc_interval"] == found["interval"]
    assert found["length_controlled_winrate"] > 99


def test_rows_without_lengths_have_a_win_rate_alone(tmp_path: Path) -> None:
    found = one(written(tmp_path, [{"index": number, "preference": 1.5 + number / 10} for number in range(5)]))
    assert (found["win_rate"], found["length_controlled_winrate"]) == (pytest.approx(70.0), None)
    assert (found["avg_length"], found["coefficients"]) == (None, None)
    assert found["warnings"] == ["the rows have no lengths: length cannot be controlled for"]


def test_one_row_has_no_interval(tmp_path: Path) -> None:
    found = one(written(tmp_path, [row(0, 1.7)]), "--c", "100")
    assert found["win_rate"] == pytest.approx(70.0)
    assert (found["standard_error"], found["interval"], found["lc_interval"]) == (None, None, None)


def test_lengths_that_separate_the_models_are_said_with_a_number(tmp_path: Path) -> None:
    generator = np.random.default_rng(2)
    rows = [
        row(number, 1 + float(generator.uniform()), length, length // 3)
        for number, length in enumerate(generator.integers(400, 1600, size=80).tolist())
    ]
    warnings = one(written(tmp_path, rows), "--c", "100")["warnings"]
    (weak,) = [warning for warning in warnings if "weakly identified" in warning]
    assert weak.startswith("weakly identified: the length effect multiplies the variance by ")
    assert weak.endswith("; the model is longer in 0 % of the rows")
    equal_gaps = [{**each, "len_model": each["len_baseline"] - 300 - number % 2} for number, each in enumerate(rows)]
    (weak,) = [
        warning
        for warning in one(written(tmp_path, equal_gaps), "--c", "100")["warnings"]
        if "weakly identified" in warning
    ]
    assert (
        weak
        == "weakly identified: the length effect cannot be told from quality; the model is longer in 0 % of the rows"
    )


def test_an_extreme_change_is_said(tmp_path: Path) -> None:
    """Longer answers always win, and the model is mostly longer."""
    rows = [row(number, 2.0, 100, 300) if number % 8 else row(number, 1.0, 300, 100) for number in range(80)]
    warnings = one(written(tmp_path, rows), "--c", "0.5")["warnings"]
    assert any(warning.startswith("control of length moves the win rate far, from 87.50 to ") for warning in warnings)


def test_a_constant_answer_is_said(tmp_path: Path) -> None:
    rows = [
        {"index": number, "instruction": f"q{number}", "output_1": "b" * number, "output_2": "same", "preference": 1.6}
        for number in range(60)
    ]
    assert (
        "every instruction got the same answer: a constant answer can win without being good"
        in one(written(tmp_path, rows))["warnings"]
    )


def test_order_coin_reads_completions_of_annotation_files(tmp_path: Path) -> None:
    def annotation(number: int, tokens: list[dict[str, Any]] | None, model: str = "answer") -> dict[str, Any]:
        completion = None if tokens is None else {"logprobs": {"content": [{"token": "m", "top_logprobs": tokens}]}}
        return {
            "instruction": f"question {number}",
            "output_1": "base",
            "output_2": model,
            "preference": 1.2,
            "raw_completion": completion,
        }

    likely = [{"token": "m", "logprob": -0.1}, {"token": "M", "logprob": -3.1}]
    rows = [annotation(0, likely), annotation(1, likely), annotation(2, None), annotation(3, likely, model="base")]
    found = one(written(tmp_path, rows), "--order-coin", "--c", "1")
    first = 1 / (1 + math.exp(-3))
    expected = [1 + first if switched else 2 - first for switched in found["switched"][:2]]
    assert found["preference"][:2] == pytest.approx(expected, abs=1e-12)
    assert found["preference"][2:] == [None, 1.5]  # no completion; equal answers are a draw


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"index": 0}], (), "mine.jsonl:1: has no preference; its columns are index."),
        ([row(0, "yes")], (), "mine.jsonl:1: preference is 'yes', expected a number."),  # pyright: ignore
        ([row(0, None), row(1, 7.0)], (), "mine: none of its 2 judgments succeeded."),
        ([{**row(0, 1.2), "generator_2": "a"}, {**row(1, 1.2), "generator_2": "b"}], (), "holds 2 models (a, b)"),
        ([row(0, 1.2)], ("--variant", "full"), "the variant full needs difficulties. Name their file: --difficulty."),
        ([row(0, 1.2)], ("--order-coin",), "mine.jsonl:1: has no instruction"),
        ([{**row(0, 1.2), "instruction": "q"}], ("--order-coin",), "mine.jsonl:1: has no top_logprobs"),
        (
            [{**row(0, 1.2), "instruction": "q", "top_logprobs": [["m"]]}],
            ("--order-coin",),
            "mine.jsonl:1: top_logprobs is [['m']], expected tokens with their log-probabilities.",
        ),
        ([row(0, 1.2), row(1, 1.3, 5)], (), "mine: 2 rows with a preference cannot be cut into 5 folds"),
    ],
)
def test_bad_rows_are_one_line(tmp_path: Path, rows: list[Any], options: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError) as caught:
        one(written(tmp_path, rows), *options)
    assert message in str(caught.value)


@pytest.mark.parametrize("c", ["0", "-1", "nan", "auto"])
def test_a_c_that_is_none_is_refused(tmp_path: Path, c: str) -> None:
    with pytest.raises(RecipeError, match="expected a number > 0, or search"):
        one(written(tmp_path, some_rows()), "--c", c)


def test_gamed_rows_need_difficulties(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="--gamed needs the difficulties"):
        one(written(tmp_path, some_rows()), "--gamed", "g.csv")


def test_missing_files_and_wrong_baselines_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        one(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="--baseline is 'other', expected one of the files: mine"):
        one(written(tmp_path, some_rows()), "--baseline", "other")


def test_an_instruction_without_difficulty_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no difficulty is known for instruction 30"):
        one(written(tmp_path, some_rows()), "--difficulty", a_difficulty_file(tmp_path, range(30)))


def test_options_that_a_variant_does_not_read_are_said(tmp_path: Path) -> None:
    table = a_difficulty_file(tmp_path, range(40))
    result = RUNNER.invoke(
        app,
        [
            "evaluate",
            "alpaca-eval",
            str(written(tmp_path, some_rows())),
            "--variant",
            "minimal",
            "--difficulty",
            str(table),
        ],
    )
    assert "the variant minimal does not read --difficulty\n" in result.output


def test_a_plot_shows_every_model_with_its_interval(tmp_path: Path) -> None:
    files = [written(tmp_path, some_rows(), f"{name}.jsonl") for name in ("one & only", "other")]
    found = evaluated(*files, "--c", "2", "--plot", tmp_path / "plot.svg")["models"]
    root = ElementTree.parse(tmp_path / "plot.svg").getroot()
    names = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"one & only", "other", "length-controlled win rate, percent"} <= set(names)
    said = [node.text for node in root.iter("{http://www.w3.org/2000/svg}title")]
    low, high = found["other"]["lc_interval"]
    assert f"other: {found['other']['length_controlled_winrate']:.2f} [{low:.2f}, {high:.2f}]" in said


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    files = [written(tmp_path / folder, some_rows(), "annotations.jsonl") for folder in ("a", "b")]
    found = evaluated(*files)
    assert list(found["models"]) == ["a/annotations", "b/annotations"]
    assert found["paired"][0]["difference"] == 0.0
    with pytest.raises(DataError, match="a second file is called a/annotations"):
        evaluated(files[0], files[0])


def test_annotations_are_written_back_equal(tmp_path: Path) -> None:
    text = (
        '[\n  {\n    "instruction":"half\\/half \\u00e4",\n    "output_1":"x",\n    "preference":1.0000001295,\n'
        '    "price_per_example":null,\n    "raw_completion":{\n      "text":"m"\n    }\n  }\n]'
    )
    there, back = tmp_path / "annotations.json", tmp_path / "again.json"
    there.write_text(text, encoding="utf-8")
    write_annotations(back, read_annotations(there))
    assert back.read_text(encoding="utf-8") == text


def test_a_leaderboard_is_written_back_equal_and_takes_our_row(tmp_path: Path) -> None:
    text = (
        ",win_rate,standard_error,n_wins,n_wins_base,n_draws,n_total,discrete_win_rate,mode,avg_length,"
        "length_controlled_winrate,lc_standard_error\n"
        "gpt4_1106_preview,50.0,0.0,0,0,805,805,50.0,minimal,2049,50.0,\n"
        '"a, b",12.76316981026087,1.044246819212278,94,709,2,805,11.801242236024844,verified,1058,22.0,0.5\n'
    )
    there, back = tmp_path / "leaderboard.csv", tmp_path / "again.csv"
    there.write_text(text, encoding="utf-8")
    rows = read_leaderboard(there)
    write_leaderboard(back, rows)
    assert back.read_text(encoding="utf-8") == text
    result = one(written(tmp_path, some_rows()), "--c", "2")
    write_leaderboard(back, [*rows, leaderboard_row("mine", result)])
    with back.open(newline="") as file:
        mine = list(csv.DictReader(file))[2]
    assert (mine[""], mine["mode"], float(mine["win_rate"])) == ("mine", "community", result["win_rate"])
    assert float(mine["length_controlled_winrate"]) == result["length_controlled_winrate"]


def test_a_broken_leaderboard_is_named(tmp_path: Path) -> None:
    file = tmp_path / "board.csv"
    file.write_text(",win_rate\na,1,2\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"board.csv:2: 3 cells under 2 columns"):
        read_leaderboard(file)


@pytest.mark.slow
def test_printed_intervals_cover_the_truth_as_often_as_stated() -> None:
    """600 data sets of 120 coin-flip judgments before a judge that pays for length, C searched in each. The truth is
    the fit of a population of 400,000; the simulation's own standard error is 0.9 %."""
    theta, slope, scale = 0.5, -1.2, 900.0

    def drawn(generator: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        baseline, model = np.exp(generator.normal(7.0, 0.4, size=size)), np.exp(generator.normal(6.8, 0.5, size=size))
        return baseline, model, 1 / (1 + np.exp(-slope * np.tanh((baseline - model) / scale) - theta))

    baseline, model, prob = drawn(np.random.default_rng(5), 400_000)
    truth = {
        "win_rate": 100 * prob.mean(),
        "length_controlled_winrate": length_controlled(prob, baseline, model, c=1e6).length_controlled_winrate,
    }
    covered = np.zeros(2)
    generator = np.random.default_rng(1)
    for number in range(600):
        baseline, model, prob = drawn(generator, 120)
        wins = (generator.uniform(size=120) < prob).astype(float)
        found = score(
            Judged("one", wins, (baseline, model), None, None), Settings("minimal", draws=500, seed=number)
        ).result
        for place, (interval, rate) in enumerate(
            (("interval", "win_rate"), ("lc_interval", "length_controlled_winrate"))
        ):
            low, high = found[interval]
            covered[place] += low <= truth[rate] <= high
    assert np.all((covered / 600 >= 0.93) & (covered / 600 <= 0.97)), covered / 600


def test_lengths_below_zero_and_too_few_rows_for_a_search_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mine\.jsonl:1: len_model is -1, expected a number of characters >= 0\."):
        one(written(tmp_path, [row(0, 1.5, model=-1)]))
    with pytest.raises(DataError, match=r"mine: 1 rows with a preference cannot be cut into 5 folds\. Name a penalty"):
        one(written(tmp_path, [row(0, 1.5)]))


def test_rows_of_one_instruction_are_said(tmp_path: Path) -> None:
    said = "2 rows are of an instruction that stands before: rows of one vary together"
    rows = some_rows()
    assert said in one(written(tmp_path, [*rows, rows[0], rows[1]]))["warnings"]
    assert said not in one(written(tmp_path, rows))["warnings"]

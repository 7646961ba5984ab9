"""`prefloop evaluate arena`: published tables, verdicts, and battles that cannot be compared."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from prefloop.cli.app import app
from prefloop.errors import DataError, PrefloopError, RecipeError
from prefloop.evaluation import (
    ArenaSettings,
    Battle,
    battles_of_games,
    evaluate_arena,
    markdown_counts,
    read_battles,
    read_style,
    table_of_version_2,
)
from prefloop.evaluation.arena_table import style_features
from prefloop.pairing import verdict
from prefloop.statistics import Battles, bradley_terry, resampled

RUNNER = CliRunner()
PUBLISHED = Path(__file__).resolve().parents[2].parent / "shared" / "evaluation" / "data" / "arena_hard"
published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"the published battles are not at {PUBLISHED}")


def evaluated(*arguments: str | Path) -> dict[str, Any]:
    result = RUNNER.invoke(app, ["evaluate", "arena", *map(str, arguments), "--json", "-"])
    if isinstance(result.exception, PrefloopError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def written(folder: Path, rows: list[dict[str, Any]], name: str = "battles.jsonl") -> Path:
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def battle(q: int, a: str, b: str, winner: str, n: float = 1) -> dict[str, Any]:
    return {"q": f"q{q}", "a": a, "b": b, "winner": winner, "n": n}


def some_battles(prompts: int = 30, models: tuple[str, ...] = ("base", "x", "y")) -> list[dict[str, Any]]:
    generator = np.random.default_rng(0)
    return [
        battle(
            number,
            models[0],
            model,
            str(generator.choice(["model_a", "model_b", "tie"])),
            int(generator.integers(1, 4)),
        )
        for number in range(prompts)
        for model in models[1:]
    ]


@published
def test_the_published_table_of_two_models() -> None:
    expected = json.loads((PUBLISHED / "official_v01_expected.json").read_text())
    found = evaluated(PUBLISHED / "official_v01_two_models.jsonl.gz", "--cluster", "none")
    clustered = evaluated(PUBLISHED / "official_v01_two_models.jsonl.gz")
    assert found["baseline"] == "gpt-4-0314"
    for name, row in expected.items():
        one = found["models"][name]
        assert round(one["score"], len(str(row["score"]).split(".")[1])) == row["score"]
        assert one["interval"] == pytest.approx([row["rating_q025"], row["rating_q975"]], abs=0.35)  # of 100 draws
        wide, narrow = (each["models"][name]["interval"] for each in (clustered, found))
        assert 1.55 < (wide[1] - wide[0]) / (narrow[1] - narrow[0]) < 1.85
    assert clustered["models"]["gpt-4-0613"]["interval"] == pytest.approx([34.0, 41.9], abs=0.2)  # of 20,000


@published
def test_the_published_table_of_eight_models_to_two_decimals() -> None:
    expected = json.loads((PUBLISHED / "fork_20240815_expected.json").read_text())
    found = evaluated(PUBLISHED / "fork_20240815.jsonl.gz", "--cluster", "none", "--bootstrap", "300")
    for name, row in expected.items():
        assert round(found["models"][name]["score"], 2) == row["score"]
        assert found["models"][name]["interval"] == pytest.approx([row["rating_q025"], row["rating_q975"]], abs=0.8)


@published
@pytest.mark.parametrize("columns", ["style", "length", "markdown"])
def test_style_control_of_version_0_1(columns: str) -> None:
    """Its L2 penalty is on twice the battles and on ratings over ln 10; expected values have four and six decimals."""
    expected = json.loads((PUBLISHED / "official_v01_style_expected.json").read_text())
    names = {"style": "token_len,header,list,bold", "length": "token_len", "markdown": "header,list,bold"}[columns]
    scores, style = expected["win_percent_vs_gpt_4_0314_and_style_coefficients"][columns]["unregularised"]
    options = ("--style", PUBLISHED / "official_v01_style.jsonl.gz", "--features", names, "--style-offset", "1")
    found = evaluated(PUBLISHED / "official_v01_two_models.jsonl.gz", *options, "--bootstrap", "0")
    assert {name: one["score"] for name, one in found["models"].items()} == pytest.approx(scores, abs=3e-4)
    assert found["style"] == pytest.approx(style, abs=2e-5)
    assert list(found["style"]) == names.split(",")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("I choose [[A>B]], no: [[B>>A]].", "B>>A"),  # the last
        ("my verdict: [A=B]", "A=B"),  # single brackets
        ("[A>B] but finally [[B>A]] or [A=B]", "B>A"),  # double brackets first
        ("[[a>>b]]", "A>>B"),
        ("[[A]]", None),
        ("[[A>]]", None),
        ("A>B", None),
        ("", None),
    ],
)
def test_verdicts_of_texts(text: str, label: str | None) -> None:
    assert verdict(text) == label


def test_games_become_battles_from_the_baselines_side() -> None:
    """Game 0 shows the baseline as A, game 1 the model; `significantly` weighs 3."""
    found = battles_of_games("q", "base", "mine", ["A>>B", "A>B"], form="v2.0")
    assert [(one.outcome, one.weight) for one in found] == [(1.0, 3), (0.0, 1)]
    assert [(one.first, one.second) for one in found] == [("base", "mine")] * 2
    mirrored = battles_of_games("q", "base", "mine", ["B<<A", "B<A"], form="v2.0")
    assert [(one.outcome, one.weight) for one in mirrored] == [(1.0, 3), (0.0, 1)]


def test_a_failed_game_costs_the_prompt_in_2_0_and_the_game_in_0_1() -> None:
    assert battles_of_games("q", "base", "mine", [None, "A>B"], form="v2.0") == []
    assert len(battles_of_games("q", "base", "mine", [None, "A>B"], form="v0.1")) == 1


def test_exchanging_the_games_of_a_consistent_judge_changes_nothing() -> None:
    mirror = {"A>>B": "B>>A", "A>B": "B>A", "A=B": "A=B", "B>A": "A>B", "B>>A": "A>>B"}
    games = [("A>>B", "B>>A"), ("A=B", "A=B"), ("B>A", "A>B"), ("A>B", "B>A")]
    scores = []
    for pairs in (games, [(mirror[second], mirror[first]) for first, second in games]):
        battles = [
            one
            for number, pair in enumerate(pairs)
            for one in battles_of_games(f"q{number}", "base", "mine", pair, form="v2.0")
        ]
        scores.append(evaluate_arena(battles, ArenaSettings(draws=20))["models"]["mine"]["score"])
    # of 12 battles the model wins the two of B>A, A>B and half of the two ties
    assert scores == pytest.approx([100 * 3 / 12] * 2, abs=1e-9)


def test_judgments_with_games_are_read(tmp_path: Path) -> None:
    rows = [
        {"uid": "1", "model": "mine", "games": [{"score": "A>B"}, {"score": "B>>A"}]},
        {"uid": "2", "model": "mine", "games": [{"score": None}, {"score": "B>>A"}]},
        {"uid": "3", "model": "mine", "games": [{"score": "B>A"}, {"score": "a>b"}]},
    ]
    file = written(tmp_path, rows)
    found = evaluated(file, "--baseline", "base", "--bootstrap", "20")
    assert found["models"]["mine"]["score"] == pytest.approx(100 * 2 / 6, abs=1e-9)
    older = written(tmp_path, [{"question_id": row["uid"], "model": "mine", "games": row["games"]} for row in rows])
    assert evaluated(older, "--baseline", "base", "--bootstrap", "20")["models"]["mine"]["n"] == 9
    with pytest.raises(DataError, match="holds games and not who they were held against"):
        evaluated(file)


def test_markdown_is_counted_outside_of_fences() -> None:
    fenced = "```\n# no\n- no\n**no**\n```\n"
    text = f"# One\n####### no\ntext # no\n{fenced}1. a\n- b\n  * c\n+ d\n-no\n**bold** and __too__ **\n"
    assert markdown_counts(text) == {"header": 1, "list": 4, "bold": 2}


def test_scores_are_the_mean_outcomes_and_n_and_labels_weigh(tmp_path: Path) -> None:
    rows = [
        battle(0, "base", "x", "model_b", 3),
        battle(0, "base", "x", "tie (bothbad)", 0.5),
        battle(0, "base", "x", "both_bad", 0.5),
        battle(1, "base", "x", "model_a", 2),
        battle(1, "x", "base", "A>>B"),
        {"q": "q2", "a": "base", "b": "x", "winner": "tie"},
    ]
    one = evaluated(written(tmp_path, rows), "--bootstrap", "50")["models"]["x"]
    assert one["score"] == pytest.approx(100 * (3 + 0.5 + 0 + 3 + 0.5) / 10, abs=1e-9)
    assert (one["n"], one["prompts"]) == (10, 3)
    assert one["rating"] == pytest.approx(math.log(0.7 / 0.3) / 2, abs=1e-9)


def test_options_have_their_effects(tmp_path: Path) -> None:
    file = written(tmp_path, some_battles())
    plain = evaluated(file)
    assert plain["interval_method"] == "95 %, BCa bootstrap over prompts"
    assert evaluated(file) == plain
    assert evaluated(file, "--seed", "1")["models"]["x"]["interval"] != plain["models"]["x"]["interval"]
    rows = evaluated(file, "--cluster", "none")
    assert rows["interval_method"] == "95 %, percentile bootstrap over single battles"
    analytic = evaluated(file, "--bootstrap", "0")
    assert analytic["interval_method"] == "95 %, sandwich, scores summed by prompt"
    assert analytic["models"]["x"]["interval"] == pytest.approx(plain["models"]["x"]["interval"], abs=4)
    single = evaluated(file, "--bootstrap", "0", "--cluster", "none")
    width = [each["models"]["x"]["interval"] for each in (analytic, single)]
    assert width[0][1] - width[0][0] > 1.2 * (width[1][1] - width[1][0])
    other = evaluated(file, "--baseline", "x")
    assert other["models"]["base"]["score"] == pytest.approx(100 - plain["models"]["x"]["score"], abs=1e-9)
    assert other["models"]["x"]["interval"] == [50, 50]


def test_the_row_wise_interval_is_percentiles_of_resampled_battles(tmp_path: Path) -> None:
    rows = some_battles(models=("base", "x"))
    outcomes = {"model_a": 1.0, "tie": 0.5, "model_b": 0.0}
    data = Battles(
        np.zeros(30, int),
        np.ones(30, int),
        np.array([outcomes[row["winner"]] for row in rows]),
        np.array([float(row["n"]) for row in rows]),
        np.arange(30),
        np.zeros((30, 0)),
        2,
    )
    draws = resampled(data, bradley_terry(data), clustered=False, draws=300, seed=4)
    expected = 100 / (1 + np.exp(-np.quantile(draws[:, 1] - draws[:, 0], [0.025, 0.975])))
    found = evaluated(written(tmp_path, rows), "--cluster", "none", "--seed", "4", "--bootstrap", "300")
    assert found["models"]["x"]["interval"] == pytest.approx(expected.tolist(), abs=1e-9)


@pytest.mark.parametrize("options", [(), ("--bootstrap", "0"), ("--cluster", "none")])
def test_neighbours_of_the_table_are_compared_on_the_same_battles(tmp_path: Path, options: tuple[str, ...]) -> None:
    """y wins the 60 of 120 prompts that x wins, and 15 more: by prompt the difference is 1 or 0."""
    rows = [
        battle(number, "base", model, "model_b" if number % 2 or (model == "y" and number % 8 == 0) else "model_a")
        for number in range(120)
        for model in ("x", "y")
    ]
    (pair,) = evaluated(written(tmp_path, rows), *options)["paired"]
    assert (pair["model"], pair["against"]) == ("y", "x")
    assert pair["difference"] == pytest.approx(12.5, abs=1e-9)
    variance = 0.5 * 0.5 + 0.625 * 0.375 if "none" in options else 0.125 * 0.875
    assert pair["standard_error"] == pytest.approx(100 * math.sqrt(variance / 120), abs=1e-6)
    assert pair["detectable_difference"] == pytest.approx(2.8016 * pair["standard_error"], rel=1e-4)
    low, high = pair["interval"]
    assert low < 12.5 < high
    assert high - low == pytest.approx(2 * 1.96 * pair["standard_error"], rel=0.15)


def test_style_by_its_definition(tmp_path: Path) -> None:
    """Outcomes follow length: with it controlled for, x is as good as the baseline; other columns stand aside."""
    generator = np.random.default_rng(5)
    rows, style = [], []
    for number in range(400):
        lengths = {"base": float(generator.integers(50, 150)), "x": float(generator.integers(80, 250))}
        gap = (lengths["base"] - lengths["x"]) / (lengths["base"] + lengths["x"])
        rows.append(
            battle(number, "base", "x", "model_a" if generator.uniform() < 1 / (1 + math.exp(-5 * gap)) else "model_b")
        )
        style += [{"q": f"q{number}", "model": name, "tokens": length, "other": 1} for name, length in lengths.items()]
    file, table = written(tmp_path, rows), written(tmp_path, style, "style.jsonl")
    plain, styled = (
        evaluated(file, "--bootstrap", "0"),
        evaluated(file, "--style", table, "--features", "tokens", "--bootstrap", "0"),
    )
    assert plain["models"]["x"]["interval"][0] > 60
    low, high = styled["models"]["x"]["interval_at_equal_style"]
    assert low < styled["models"]["x"]["score_at_equal_style"] < high
    assert low < 50 < high
    # centred features leave the value of the baseline's mean style in the score
    assert styled["models"]["x"]["score"] == pytest.approx(plain["models"]["x"]["score"], abs=5)
    low, high = styled["style_intervals"]["tokens"]
    assert 0.5 < low < styled["style"]["tokens"] < high
    everything = evaluated(file, "--style", table, "--bootstrap", "0")["style"]
    assert everything["other"] == 0.0  # it does not vary
    assert everything["tokens"] == pytest.approx(styled["style"]["tokens"], abs=1e-9)


def test_all_wins_are_named_and_have_the_mid_p_interval(tmp_path: Path) -> None:
    rows = [*some_battles(models=("base", "x")), *(battle(number, "base", "z", "model_b") for number in range(12))]
    found = evaluated(written(tmp_path, rows), "--bootstrap", "100")
    assert found["models"]["z"]["score"] > 99
    assert found["models"]["z"]["interval"] == pytest.approx(
        [100 * 0.05 ** (1 / 12), 100.0]
    )  # mid-P: half of p^12 is 2.5 %
    assert found["ridge"] == 0.001
    assert found["warnings"] == [
        "separated: all battles between these groups went one way, so that their difference is infinite: z > base, x; "
        "ratings are those of a ridge of 0.001"
    ]


def test_models_without_a_chain_of_battles_have_no_score(tmp_path: Path) -> None:
    rows = [*some_battles(models=("base", "x")), battle(0, "y", "z", "model_a"), battle(1, "y", "z", "model_b")]
    found = evaluated(written(tmp_path, rows), "--baseline", "base", "--bootstrap", "50")
    assert (found["models"]["y"]["score"], found["models"]["y"]["interval"]) == (None, None)
    assert found["models"]["y"]["rating"] == pytest.approx(0, abs=1e-9)
    assert found["warnings"] == ["no chain of battles connects these 2 groups, which cannot be compared: base, x; y, z"]


def test_a_baseline_that_had_to_be_guessed_is_said(tmp_path: Path) -> None:
    rows = [battle(0, "a", "b", "model_a"), battle(1, "b", "c", "model_a"), battle(2, "c", "a", "model_a")]
    found = evaluated(written(tmp_path, rows), "--bootstrap", "20")
    assert found["baseline"] == "a"
    assert found["warnings"] == [
        "no model is in every battle: scores are against the first one, a; --baseline names another"
    ]


def test_one_prompt_has_no_interval(tmp_path: Path) -> None:
    rows = [battle(0, "base", "x", "model_a"), battle(0, "base", "x", "model_b")]
    assert evaluated(written(tmp_path, rows))["models"]["x"]["interval"] is None


def test_repeating_every_battle_leaves_the_clustered_interval(tmp_path: Path) -> None:
    once, twice = (evaluated(written(tmp_path, some_battles() * times))["models"]["x"] for times in (1, 2))
    assert twice["score"] == pytest.approx(once["score"], abs=1e-9)
    assert twice["interval"] == pytest.approx(once["interval"], abs=1e-3)


def test_the_table_for_people(tmp_path: Path) -> None:
    rows = [battle(number, "base", "x", "tie") for number in range(3)]
    result = RUNNER.invoke(app, ["evaluate", "arena", str(written(tmp_path, rows))])
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    assert lines == [
        "model score rating battles prompts",
        "base 50.00 [50.00, 50.00] +0.000 3 3",
        "x 50.00 [50.00, 50.00] +0.000 3 3",
        "score: percent against base; in brackets 95 %, BCa bootstrap over prompts",
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (battle(0, "a", "a", "tie"), "battles.jsonl:1: b is 'a', expected another model than a."),
        (battle(0, "a", "b", "a"), "winner is 'a', expected model_a, model_b, tie, or a label such as A>>B."),
        (battle(0, "a", "b", "tie", 0), "n is 0, expected a number of battles > 0."),
        ({"q": 1, "a": "x", "b": "y"}, "battles.jsonl:1: has no winner; its columns are q, a, b."),
    ],
)
def test_bad_battles_are_one_line(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        evaluated(written(tmp_path, [row]))
    assert message in str(caught.value)


def test_options_that_cannot_work_are_refused(tmp_path: Path) -> None:
    file = written(tmp_path, some_battles())
    with pytest.raises(RecipeError, match="are about a style file"):
        evaluated(file, "--features", "tokens")
    with pytest.raises(RecipeError, match="--bootstrap is 1"):
        evaluated(file, "--bootstrap", "1")
    with pytest.raises(DataError, match="--baseline is 'gpt', expected one of the models: base, x, y"):
        evaluated(file, "--baseline", "gpt")
    style = written(tmp_path, [{"q": "q0", "model": "base", "tokens": 3}], "style.jsonl")
    with pytest.raises(DataError, match=r"battles.jsonl:1: the style of x on q0 is not in the style file"):
        evaluated(file, "--style", style)


def test_bad_style_files_are_named(tmp_path: Path) -> None:
    row = {"q": "q0", "model": "base", "tokens": 3}
    with pytest.raises(DataError, match=r"style.jsonl:2: the style of base on q0 stands twice"):
        read_style(written(tmp_path, [row, row], "style.jsonl"), None)
    with pytest.raises(DataError, match=r"tokens is -3, expected a number >= 0"):
        read_style(written(tmp_path, [{**row, "tokens": -3}], "style.jsonl"), None)
    with pytest.raises(DataError, match="has no column beside q and model"):
        read_style(written(tmp_path, [{"q": "q0", "model": "base"}], "style.jsonl"), None)


def test_judgments_without_any_verdict_are_no_battles(tmp_path: Path) -> None:
    rows = [{"uid": "1", "model": "mine", "games": [{"score": None}, {"score": None}]}]
    with pytest.raises(DataError, match="no judgment has a verdict"):
        read_battles(written(tmp_path, rows), baseline="base")


@pytest.mark.slow
def test_printed_intervals_cover_the_truth_as_often_as_stated() -> None:
    """600 sets of 150 prompts with two games each, weight 1 or 3, that share a liking of their prompt. The truth is the
    mean over 400,000 prompts; the simulation's own standard error is 0.9 %."""

    def drawn(generator: np.random.Generator, prompts: int) -> tuple[np.ndarray, np.ndarray]:
        liking = generator.normal(0.9, 1.2, size=(prompts, 1))
        wins = generator.uniform(size=(prompts, 2)) < 1 / (1 + np.exp(-liking))
        return wins.astype(float), np.where(generator.uniform(size=(prompts, 2)) < 0.3, 3.0, 1.0)

    wins, weights = drawn(np.random.default_rng(0), 400_000)
    truth = 100 * np.average(wins, weights=weights)
    generator, covered = np.random.default_rng(1), 0
    for number in range(600):
        wins, weights = drawn(generator, 150)
        battles = [
            Battle(f"{prompt}", "mine", "base", float(wins[prompt, game]), float(weights[prompt, game]))
            for prompt in range(150)
            for game in range(2)
        ]
        settings = ArenaSettings(baseline="base", draws=500, seed=number)
        low, high = evaluate_arena(battles, settings)["models"]["mine"]["interval"]
        covered += low <= truth <= high
    assert 0.93 <= covered / 600 <= 0.97


@published
def test_the_table_of_version_2_0_has_the_scores_of_0_1_and_narrower_ends() -> None:
    """Of battles against one baseline both are mean outcomes; 90 % of 100 resamples of single battles."""
    expected = json.loads((PUBLISHED / "official_v01_expected.json").read_text())
    found = evaluated(PUBLISHED / "official_v01_two_models.jsonl.gz", "--table", "v2.0", "--bootstrap", "0")
    assert found["table"].keys() == expected.keys()
    for name, row in expected.items():
        one = found["table"][name]
        assert one["score"] == pytest.approx(row["score"], abs=0.35)
        narrower = 1.645 / 1.96 * (row["rating_q975"] - row["rating_q025"])
        assert one["interval"][1] - one["interval"][0] == pytest.approx(narrower, rel=0.3)
    assert found["table_method"].startswith("5 to 95 %, 100 resamples of single battles")


def test_the_table_of_version_2_0_resamples_units_of_weight_of_one_model() -> None:
    battles = [Battle("q0", "base", "x", 0.0, 3), Battle("q1", "base", "x", 1.0, 1), Battle("q0", "y", "base", 1.0, 2)]
    found = table_of_version_2(battles, "base", seed=0)
    assert found["y"] == {"score": 100.0, "interval": [100.0, 100.0]}
    means = np.random.default_rng(0).multinomial(4, [0.75, 0.25], size=100)[:, 0] / 4
    assert found["x"]["score"] == pytest.approx(100 * means.mean())
    assert found["x"]["interval"] == pytest.approx(np.quantile(100 * means, [0.05, 0.95]).tolist())


def test_the_style_of_version_2_0_is_of_lengths_and_densities() -> None:
    style = {("q", "base"): [99, 10], ("q", "x"): [199, 40], ("r", "base"): [49, 0], ("r", "x"): [49, 5]}
    battles = [Battle("q", "base", "x", 1.0, 2), Battle("r", "x", "base", 1.0, 1)]
    found = style_features(battles, (style, ("token_len", "list")))
    length = np.array([(99 - 199) / (99 + 199)] * 2 + [0.0])
    density = np.array([(0.1 - 0.2) / (0.1 + 0.2 + 1)] * 2 + [0.1 / 1.1])
    expected = [(one - one.mean()) / one.std(ddof=1) for one in (length, density)]
    assert found == pytest.approx(np.array(expected).T[1:])


def test_with_style_the_table_of_version_2_0_is_the_median_of_refits(tmp_path: Path) -> None:
    """Where outcomes follow length alone, the controlled score is near 50 and the plain one is not."""
    generator = np.random.default_rng(0)
    rows, style = [], []
    for number in range(300):
        lengths = {"base": int(generator.integers(50, 150)), "x": int(generator.integers(80, 260))}
        gap = (lengths["base"] - lengths["x"]) / (lengths["base"] + lengths["x"])
        won = generator.random() < 1 / (1 + math.exp(4 * gap))  # the longer answer is preferred
        rows.append(battle(number, "base", "x", "model_b" if won else "model_a"))
        style += [{"q": f"q{number}", "model": name, "token_len": length} for name, length in lengths.items()]
    file = written(tmp_path, rows)
    plain = evaluated(file, "--table", "v2.0", "--bootstrap", "0")
    given = ("--style", written(tmp_path, style, "style.jsonl"))
    found = evaluated(file, *given, "--table", "v2.0", "--bootstrap", "0")
    low, high = found["table"]["x"]["interval"]
    assert plain["table"]["x"]["score"] > 65
    assert low < found["table"]["x"]["score"] < high
    assert found["table"]["x"]["score"] == pytest.approx(found["models"]["x"]["score"], abs=1.5)  # the median of refits
    assert "v2.0 prints" in RUNNER.invoke(app, ["evaluate", "arena", str(file), "--table", "v2.0"]).output


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (battle(9, "x", "y", "tie"), "x met y, and the table of v2.0 is of battles against one baseline, base."),
        (battle(9, "base", "y", "tie", 0.5), "n is 0.5, expected a whole number under --table v2.0."),
    ],
)
def test_battles_that_version_2_0_does_not_have_are_named(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError) as caught:
        evaluated(written(tmp_path, [*some_battles(), row]), "--baseline", "base", "--table", "v2.0")
    assert said in str(caught.value)


def test_names_may_be_numbers_but_not_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"battles\.jsonl:1: b is None, expected a name"):
        evaluated(written(tmp_path, [{"q": 1, "a": "x", "b": None, "winner": "tie"}]))
    assert evaluated(written(tmp_path, [{"q": 1, "a": 1, "b": 2, "winner": "tie"}]))["models"].keys() == {"1", "2"}


def test_battles_are_read_as_version_0_1_writes_them(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"question_id": f"q{n}", "model_a": "base", "model_b": "x", "winner": "model_b"} for n in range(2)
    ]
    rows.append({**rows[0], "question_id": "q2", "winner": "model_a", "conv_metadata": {}})
    found = evaluated(written(tmp_path, rows), "--bootstrap", "0")
    assert found["models"]["x"]["score"] == pytest.approx(200 / 3)
    with pytest.raises(DataError, match="model_b is 'base', expected another model than model_a"):
        evaluated(written(tmp_path, [{**rows[0], "model_b": "base"}]))

"""`prefloop evaluate`: statistics from judgments on file."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from prefloop.cli.console import output, say
from prefloop.errors import RecipeError


def alpaca_eval_command(  # noqa: PLR0913  an option each
    files: Sequence[Path],
    *,
    difficulty: Path | None,
    gamed: Path | None,
    variant: Literal["full", "noreg", "minimal"] | None,
    c: str,
    by_position: bool,
    order_coin: bool,
    p_label_flip: float,
    baseline: str | None,
    bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """Prints the leaderboard row of every file.

    Raises:
        RecipeError: an option cannot be used.
        DataError: a file cannot be used.
    """
    from prefloop.evaluation import Settings, evaluate_alpaca, read_difficulties, read_gamed

    if gamed is not None and difficulty is None:
        raise RecipeError("--gamed needs the difficulties of the model's own rows too. Name their file: --difficulty.")
    allowed = "minimal" if difficulty is None else "noreg" if gamed is None else "full"
    settings = Settings(
        variant=variant or allowed,
        c=_inverse_penalty(c),
        difficulties=None if difficulty is None else read_difficulties(difficulty),
        gamed=None if gamed is None else read_gamed(gamed),
        by_position=by_position,
        draws=bootstrap,
        seed=seed,
    )
    result = evaluate_alpaca(files, settings, order_coin=order_coin, p_label_flip=p_label_flip, baseline=baseline)
    models: dict[str, dict[str, Any]] = result["models"]
    table = Table("model", "win rate", "length-controlled", "C", "wins", "losses", "draws", "length", box=None)
    for name, one in models.items():
        table.add_row(
            name,
            with_interval(one["win_rate"], one["interval"]),
            with_interval(one["length_controlled_winrate"], one["lc_interval"]),
            number(one["c"], ".3g"),
            *(str(one[column]) for column in ("n_wins", "n_wins_base", "n_draws")),
            with_interval(one["avg_length"], one["avg_length_interval"], digits=0),
        )
    output().print(table)
    say(_alpaca_notes(models, result["paired"], settings.variant, unread=_unread(settings.variant, difficulty, gamed)))
    return result


def arena_command(
    file: Path,
    *,
    baseline: str | None,
    bootstrap: int | None,
    seed: int,
    clustered: bool,
    style: Path | None,
    features: str | None,
    style_offset: float | None,
    table_of: Literal["v2.0"] | None = None,
) -> dict[str, Any]:
    """Prints every model's score against the baseline.

    Raises:
        RecipeError: an option cannot be used.
        DataError: a file cannot be used.
    """
    from prefloop.evaluation import ArenaSettings, evaluate_arena, read_battles, read_style, table_of_version_2
    from prefloop.evaluation.arena_table import METHOD

    if style is None and (features is not None or style_offset is not None):
        raise RecipeError("--features and --style-offset are about a style file. Name it: --style.")
    if bootstrap == 1:
        raise RecipeError("--bootstrap is 1, expected 0 or >= 2.")
    draws = bootstrap if bootstrap is not None else 4000 if style is None else 1000
    settings = ArenaSettings(
        baseline=baseline, draws=draws, seed=seed, clustered=clustered, style_offset=style_offset or 0.0
    )
    columns = None if features is None else [name.strip() for name in features.split(",")]
    battles, styles = read_battles(file, baseline=baseline), None if style is None else read_style(style, columns)
    result = evaluate_arena(battles, settings, styles)
    printed: Mapping[str, dict[str, Any]] = {}
    if table_of is not None:
        printed = table_of_version_2(battles, result["baseline"], seed=seed, style=styles)
        result |= {"table": printed, "table_method": METHOD}
    controlled = () if style is None else ("at equal style",)
    as_printed = () if table_of is None else (f"{table_of} prints",)
    table = Table("model", "score", *controlled, *as_printed, "rating", "battles", "prompts", box=None)
    for name, one in result["models"].items():
        equal = () if style is None else (with_interval(one["score_at_equal_style"], one["interval_at_equal_style"]),)
        table.add_row(
            name,
            with_interval(one["score"], one["interval"]),
            *equal,
            *_as_printed(printed, name),
            f"{one['rating']:+.3f}",
            f"{one['n']:,g}",
            f"{one['prompts']:,}",
        )
    output().print(table)
    say(_arena_notes(result))
    return result


def _as_printed(printed: Mapping[str, Mapping[str, Any]], name: str) -> tuple[str, ...]:
    """A model's cell of the published table; no cell where that is not asked for."""
    if not printed:
        return ()
    return (with_interval(printed[name]["score"], printed[name]["interval"]),) if name in printed else ("-",)


def _arena_notes(result: Mapping[str, Any]) -> Iterator[str]:
    yield f"score: percent against {result['baseline']}; in brackets {result['interval_method']}"
    if result["style"]:
        yield "with style: score holds it at its mean difference between a and b, as published; at equal style: at none"
    if "table" in result:
        yield f"v2.0 prints: in brackets {result['table_method']}"
    yield from paired_lines(result["paired"], " points")
    for name, value in result["style"].items():
        interval = result["style_intervals"][name]
        bounds = "unknown" if interval is None else f"{interval[0]:+.3f}, {interval[1]:+.3f}"
        yield f"{name}: {value:+.3f} [{bounds}] nats a standard deviation (sandwich)"
    yield from result["warnings"]


def mt_bench_command(
    file: Path, *, questions: Path | None, baseline: str | None, bootstrap: int, seed: int
) -> dict[str, Any]:
    """Prints the table of single ratings, or of pairs.

    Raises:
        DataError: a file cannot be used.
    """
    from prefloop.evaluation import evaluate_mt_bench, read_categories

    categories = None if questions is None else read_categories(questions)
    result = evaluate_mt_bench(file, categories=categories, baseline=baseline, draws=bootstrap, seed=seed)
    models: dict[str, dict[str, Any]] = result["models"]
    if "ratings" in result:
        table = Table("model", "turn 1", "turn 2", "average", "n", "unparsed", box=None)
        for name, one in models.items():
            shown = [with_interval(one[part], one["intervals"][part]) for part in ("turn1", "turn2", "average")]
            table.add_row(name, *shown, str(one["n"]), str(one["unparsed"]))
    else:
        if questions is not None:
            raise RecipeError("--questions is about ratings of single answers; the file holds pairs.")
        table = Table("model", "win", "loss", "tie", "win rate", "adjusted", box=None)
        for name, one in models.items():
            rates = [
                with_interval(one[rate], one[interval])
                for rate, interval in (("win_rate", "win_rate_interval"), ("win_rate_adjusted", "interval"))
            ]
            table.add_row(name, *(str(one[key]) for key in ("win", "loss", "tie")), *rates)
    output().print(table)
    say(_mt_bench_notes(result))
    return result


def _mt_bench_notes(result: Mapping[str, Any]) -> Iterator[str]:
    yield f"in brackets {result['interval_method']}"
    yield from paired_lines(result.get("paired", ()), "")
    if "consistency" in result:
        yield (
            f"{result['n']:,} pairs judged in both orders, {result['errors']:,} left out for errors; "
            f"share in which both orders agree {with_interval(result['consistency'], result['consistency_interval'])}; "
            f"share of games with a winner that the answer shown first wins, less 0.5: "
            f"{with_interval(result['first_bias'], result['first_bias_interval'], sign='+')}"
        )
    for name, one in result["models"].items():
        if "categories" in one:
            parts = ", ".join(f"{category} {number(mean, '.2f')}" for category, mean in one["categories"].items())
            yield f"{name}: {parts}"
    yield from result["warnings"]


AGREEMENT = (
    {"acc_ab": "right, order 1-2", "acc_ba": "right, order 2-1", "acc_both": "right in both"},
    {"position_agreement": "same verdict", "kappa": "kappa", "first_share": "shown first"},
)
"""Columns of the two tables about judges."""


def agreement_command(file: Path, *, bootstrap: int, seed: int) -> dict[str, Any]:
    """Prints a line a run: how often it is right, and how far it agrees with itself.

    Raises:
        DataError: the file cannot be used.
    """
    from prefloop.evaluation import evaluate_agreement

    result = evaluate_agreement(file, draws=bootstrap, seed=seed)
    for columns in AGREEMENT:
        table = Table("run", *columns.values(), "unparsed", "n", box=None)
        for name, one in result["runs"].items():
            shares = [with_interval(one[column], one["intervals"][column]) for column in columns]
            table.add_row(name, *shares, str(one["unparsed"]), str(one["n"]))
        output().print(table)
    say(
        [
            "shares of verdicts; same verdict: in both orders; shown first: of parsed verdicts; kappa: with the label",
            f"in brackets {result['interval_method']}",
        ]
    )
    return result


def reward_bench_command(file: Path, *, generative: bool, bootstrap: int, seed: int) -> dict[str, Any]:
    """Prints sections and subsets of every case.

    Raises:
        DataError: the file cannot be used.
    """
    from prefloop.evaluation import evaluate_reward_bench

    result = evaluate_reward_bench(file, generative=generative, draws=bootstrap, seed=seed)
    for place, case in enumerate(result["cases"], start=1):
        say(_reward_bench_lines(place, case))
    return result


def _reward_bench_lines(place: int, case: Mapping[str, Any]) -> Iterator[str]:
    yield f"case {place}"
    if "expected_sections" in case:
        n: Mapping[str, int] = case["n"]
        listed = sum(count for name, count in n.items() if name not in case["not_in_a_section"])
        overall = with_interval(case["expected_overall_four_sections"], case["overall_interval"])
        yield f"  overall {overall} of {listed:,}" if listed else "  overall: no pair is in a section"
        if "prior_sets" in case:
            prior, both = (
                with_interval(case[name], case[f"{name}_interval"])
                for name in ("prior_sets", "overall_with_prior_sets")
            )
            yield f"  with prior sets {both}; prior sets {prior}"
        for name, value in case["expected_sections"].items():
            interval = case["section_intervals"][name]
            yield f"  {name}: {'no pair, counted as 0' if interval is None else with_interval(value, interval)}"
        for name, value in case["expected_subset_accuracy"].items():
            calibration = ""
            if "log_loss" in case:
                loss = with_interval(case["log_loss"][name], case["log_loss_intervals"][name])
                error = with_interval(case["calibration_error"][name], case["calibration_intervals"][name])
                calibration = f", log loss {loss} nats, calibration error {error}"
            yield (
                f"  {name}: {with_interval(value, case['subset_intervals'][name])} of {n[name]:,}, "
                f"{case['subset_ties'][name]:.1%} equal scores{calibration}"
            )
        for name, one in case.get("by_length", {}).items():
            yield f"  {name}: {with_interval(one['accuracy'], one['interval'])} of {one['n']:,}"
        yield f"  in brackets {case['interval_method']}"
        if case["not_in_a_section"]:
            yield f"  in no section: {', '.join(case['not_in_a_section'])}"
    if "expected_best_of_4" in case:
        best = with_interval(case["best_of_4_score"], case["best_of_4_interval"])
        yield f"  best of four: {best} of {len(case['expected_best_of_4']):,}"
    if "expected_ties" in case:
        ties = case["expected_ties"]
        yield (
            f"  ties: {with_interval(ties['score'], case['ties_interval'])} of {case['ties_n']:,} "
            f"(tied {ties['tied_accuracy']:.4f}, ref {ties['ref_accuracy']:.4f})"
        )
    yield f"  in brackets {case['bootstrap_method']}"


PLOTTED = {
    "length_controlled_winrate": ("lc_interval", "length-controlled win rate, percent", 50.0),
    "win_rate_adjusted": ("interval", "win rate with ties as half", 0.5),
    "score": ("interval", "score, percent against the baseline", 50.0),
    "average": ("average", "mean rating", None),
    "win_rate": ("interval", "win rate, percent", 50.0),
}
"""What is drawn of a model: the first of these that it has, with its interval, the axis, and where no one wins."""


def write_plot(file: Path | None, result: Mapping[str, Any]) -> None:
    """Draws the models of a result where `--plot` says; those without the value are left out."""
    if file is None:
        return
    from prefloop.report import NamedValue, interval_plot

    axis, reference, values = _drawn(result)
    rows = [
        NamedValue(name, value, None if interval is None else (interval[0], interval[1]))
        for name, value, interval in values
        if value is not None
    ]
    if not rows:
        raise RecipeError(f"--plot {file}: no model has a value to draw.")
    file.write_text(interval_plot(rows, axis, reference=reference), encoding="utf-8")


Drawn = list[tuple[str, float | None, Sequence[float] | None]]
"""Names with their values and intervals."""


def _drawn(result: Mapping[str, Any]) -> tuple[str, float | None, Drawn]:
    """The axis, where nobody is ahead, and what is drawn."""
    if "runs" in result:
        runs: Mapping[str, Any] = result["runs"]
        values: Drawn = [(name, one["acc_both"], one["intervals"]["acc_both"]) for name, one in runs.items()]
        return "share right in both orders", None, values
    if "cases" in result:
        cases = list(enumerate(result["cases"], start=1))
        return (
            "accuracy",
            0.5,
            [
                (f"{number}: {name}" if len(cases) > 1 else name, value, case["subset_intervals"][name])
                for number, case in cases
                for name, value in case.get("expected_subset_accuracy", {}).items()
            ],
        )
    if "lm_eval_version" in result:
        metrics: Mapping[str, Mapping[str, Any]] = result["results"]
        found = [
            (f"{task}, {metric.removesuffix(',none')}", one["value"], one["interval"])
            for task, measured in metrics.items()
            for metric, one in measured.items()
        ]
        return "value of the metric", None, found
    models: Mapping[str, Any] = result.get("models") or {
        f"{name}, {judge}" if judge else name: duel
        for name, one in result.get("against", {}).items()
        for judge, duel in ({"": one} if "win_rate" in one else one).items()
    }
    key = next((key for key in PLOTTED if any(one.get(key) is not None for one in models.values())), None)
    if key is None:
        return "", None, []
    where, axis, reference = PLOTTED[key]
    return axis, reference, [(name, one[key], one.get("intervals", one).get(where)) for name, one in models.items()]


def _inverse_penalty(text: str) -> float | Literal["search"]:
    if text == "search":
        return "search"
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value > 0:
        raise RecipeError(f"--c is {text!r}, expected a number > 0, or search.")
    return value


def _unread(variant: str, difficulty: Path | None, gamed: Path | None) -> list[str]:
    unread = {
        "--difficulty": difficulty if variant == "minimal" else None,
        "--gamed": gamed if variant != "full" else None,
    }
    return [option for option, path in unread.items() if path is not None]


def _alpaca_notes(
    models: Mapping[str, Mapping[str, Any]], paired: Sequence[Mapping[str, Any]], variant: str, unread: Sequence[str]
) -> Iterator[str]:
    method = next(iter(models.values()))["interval_method"]
    yield f"percent against the baseline; variant {variant}; in brackets {method}"
    for how in dict.fromkeys(one["difficulty_by"] for one in models.values()):
        if how is not None:
            yield f"difficulties by {how}"
    if unread:
        yield f"the variant {variant} does not read {' and '.join(unread)}"
    yield from warnings_of(models)
    yield from paired_lines(paired, " points")
    for name, one in models.items():
        for opponent, rate in one.get("against", {}).items():
            interval = one["against_interval"][opponent]
            yield f"{name} against {opponent} at equal lengths: {with_interval(rate, interval)} %"


def paired_lines(paired: Sequence[Mapping[str, Any]], unit: str) -> Iterator[str]:
    """Differences of models on the same prompts, with what could have been seen."""
    for one in paired:
        shared = f" on {one['n']:,} shared prompts" if "n" in one else ""
        yield (
            f"{one['model']} against {one['against']}{shared}: "
            f"{with_interval(one['difference'], one['interval'], sign='+')}{unit}; "
            f"{one['detectable_difference']:.2f} would have been found in 80 % of cases"
        )
        controlled = one.get("length_controlled")
        if controlled is not None and controlled["detectable_difference"] is not None:
            gap = with_interval(controlled["difference"], controlled["interval"], sign="+")
            yield (
                f"  at equal lengths: {gap}{unit}; "
                f"{controlled['detectable_difference']:.2f} would have been found in 80 % of cases"
            )


def warnings_of(models: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What has to be known of each model's numbers."""
    for name, one in models.items():
        for warning in one["warnings"]:
            yield f"{name}: {warning}"


def with_interval(value: float | None, interval: Iterable[float] | None, *, sign: str = "", digits: int = 2) -> str:
    """A number with its interval in brackets; a dash where there is none."""
    if value is None:
        return "-"
    form = f"{sign}.{digits}f"
    if interval is None:
        return f"{value:{form}} [unknown]"
    low, high = interval
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def number(value: float | None, form: str) -> str:
    """A number, or a dash where there is none."""
    return "-" if value is None else "inf" if value == inf else format(value, form)

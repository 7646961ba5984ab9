"""`prefloop evaluate`: statistics from judgments on file."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from prefloop.cli.console import output, say
from prefloop.errors import RecipeError


def alpaca_eval_command(
    files: Sequence[Path],
    *,
    difficulty: Path | None,
    gamed: Path | None,
    variant: Literal["full", "noreg", "minimal"] | None,
    c: str,
    by_position: bool,
    order_coin: bool,
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
    result = evaluate_alpaca(files, settings, order_coin=order_coin, baseline=baseline)
    models: dict[str, dict[str, Any]] = result["models"]
    table = Table("model", "win rate", "length-controlled", "C", "wins", "losses", "draws", "length", box=None)
    for name, one in models.items():
        table.add_row(
            name,
            with_interval(one["win_rate"], one["interval"]),
            with_interval(one["length_controlled_winrate"], one["lc_interval"]),
            number(one["c"], ".3g"),
            *(str(one[column]) for column in ("n_wins", "n_wins_base", "n_draws")),
            number(one["avg_length"], ",d"),
        )
    output().print(table)
    say(_alpaca_notes(models, result["paired"], settings.variant, unread=_unread(settings.variant, difficulty, gamed)))
    return result


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
    if unread:
        yield f"the variant {variant} does not read {' and '.join(unread)}"
    yield from warnings_of(models)
    for one in paired:
        yield (
            f"{one['model']} against {one['against']} on {one['n']:,} shared instructions: "
            f"{with_interval(one['difference'], one['interval'], sign='+')} points; "
            f"{one['detectable_difference']:.2f} would have been found in 80 % of cases"
        )
    for name, one in models.items():
        for opponent, rate in one.get("against", {}).items():
            yield f"{name} against {opponent} at equal lengths: {number(rate, '.2f')} %"


def warnings_of(models: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What has to be known of each model's numbers."""
    for name, one in models.items():
        for warning in one["warnings"]:
            yield f"{name}: {warning}"


def with_interval(value: float | None, interval: Iterable[float] | None, *, sign: str = "") -> str:
    """A number with its interval in brackets; a dash where there is none."""
    if value is None:
        return "-"
    if interval is None:
        return f"{value:{sign}.2f} [unknown]"
    low, high = interval
    return f"{value:{sign}.2f} [{low:{sign}.2f}, {high:{sign}.2f}]"


def number(value: float | None, form: str) -> str:
    """A number, or a dash where there is none."""
    return "-" if value is None else "inf" if value == inf else format(value, form)

"""`prefloop evaluate frontier`: reward against KL, of runs or of points on file."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from rich.table import Table

from prefloop.cli.console import output, say
from prefloop.cli.evaluate import paired_lines, with_interval
from prefloop.errors import DataError, RecipeError
from prefloop.report.frontier_read import Reward


@dataclass(frozen=True)
class FrontierOptions:
    """What the command line says."""

    sources: Sequence[str]
    reward: Reward
    by: str
    at: str
    up_to: float | None
    best_of_n: Path | None
    bootstrap: int
    seed: int


def frontier_command(options: FrontierOptions) -> dict[str, Any]:
    """Prints every method's points, rewards at equal KL, and best-of-n.

    Raises:
        RecipeError: an option cannot be used.
        DataError: a file or run cannot be used.
    """
    import numpy as np

    from prefloop.evaluation import FrontierSettings, evaluate_frontier, read_measured, read_reward_sets
    from prefloop.report.frontier_read import measured_rounds, samples_of

    named = [_named(text) for text in options.sources]
    if (twice := _twice([path for _, path in named])) is not None:
        raise RecipeError(f"{twice}: named twice. Name every run and file once.")
    if options.up_to is not None and not isfinite(options.up_to):
        raise RecipeError(f"--up-to is {options.up_to}, expected a KL in nats.")
    runs = [(name, path) for name, path in named if path.is_dir()]
    measured = [*measured_rounds(runs, options.reward, options.by)]
    measured += [one for name, path in named if not path.is_dir() for one in read_measured(path, name)]
    samples = None
    if options.best_of_n is not None:
        samples = read_reward_sets(options.best_of_n)
    elif runs and options.reward == "score":
        samples = {prompt: np.array(each) for prompt, each in samples_of(runs[0][1], options.by).items()}
    settings = FrontierSettings(_numbers(options.at), options.up_to, options.bootstrap, options.seed)
    unit = "percent against the initial model" if options.reward == "win_rate" else "reward"
    result = {"reward": unit, **evaluate_frontier(measured, settings, samples)}
    _print(result)
    return result


def _named(text: str) -> tuple[str | None, Path]:
    """METHOD=PATH, or a path."""
    name, equals, path = text.partition("=")
    if not equals or Path(text).exists():
        return None, _there(Path(text))
    if not name:
        raise RecipeError(f"{text}: has no name before '='. Say METHOD=RUN.")
    return name, _there(Path(path))


def _twice(paths: Sequence[Path]) -> Path | None:
    resolved = [path.resolve() for path in paths]
    return next((path for number, path in enumerate(paths) if resolved[number] in resolved[:number]), None)


def _there(path: Path) -> Path:
    if not path.exists():
        raise DataError(f"{path}: there is no such file or run. Name runs, or files of point, prompt, kl, reward.")
    return path


def _numbers(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(isfinite(one) and one >= 0 for one in found):
        raise RecipeError(f"--at is {text!r}, expected KLs in nats by commas, such as 1,2,5.")
    return found


def _print(result: Mapping[str, Any]) -> None:
    table = Table("method", "point", "KL, nats", result["reward"], "on the envelope", "n", box=None)
    for name, one in result["methods"].items():
        for point, at in one["points"].items():
            shown = [with_interval(at[key]["value"], at[key]["interval"]) for key in ("kl", "reward")]
            table.add_row(name, point, *shown, "yes" if at["on_envelope"] else "no", str(one["n"]))
    for one in result["best_of_n"]:
        shown = with_interval(one["reward"]["value"], one["reward"]["interval"])
        table.add_row("best of n", str(one["n_samples"]), f"{one['kl']:.2f}", shown, "", str(one["reward"]["n"]))
    output().print(table)
    say(_notes(result))


def _notes(result: Mapping[str, Any]) -> Iterator[str]:
    yield f"in brackets {result['interval_method']}"
    for name, one in result["methods"].items():
        reached = [
            f"{with_interval(at['value'], at['interval'])} at {at['kl']:g} nats"
            for at in one["reward_at"]
            if at["value"] is not None
        ]
        area = one["area"]
        yield (
            f"{name}: {'; '.join(reached) or 'reaches none of the KLs of --at'}; area up to {area['up_to']:.3g} nats "
            f"{with_interval(area['value'], area['interval'])}"
        )
        if one["left_out"]:
            yield f"  {one['left_out']:,} prompts were not measured at all of its points and are left out"
    for row in result["paired"]:
        yield from (f"at {row['kl']:g} nats, {line}" for line in paired_lines([row], ""))
    if result["best_of_n"]:
        yield "best of n: KL log n - (n - 1)/n, an upper bound where rewards tie; reward by the unbiased estimator"


def write_frontier_plot(file: Path | None, result: Mapping[str, Any]) -> None:
    """Draws points, envelopes and best-of-n where `--plot` says."""
    if file is None:
        return
    from prefloop.report.frontier_plot import FrontierCurve, FrontierPoint, frontier_plot

    curves = [
        FrontierCurve(
            name,
            [
                FrontierPoint(
                    point,
                    at["kl"]["value"],
                    at["reward"]["value"],
                    at["kl"]["interval"],
                    at["reward"]["interval"],
                    at["on_envelope"],
                )
                for point, at in one["points"].items()
            ],
        )
        for name, one in result["methods"].items()
    ]
    if result["best_of_n"]:
        of_n = [
            FrontierPoint(
                f"best of {one['n_samples']}", one["kl"], one["reward"]["value"], None, one["reward"]["interval"]
            )
            for one in result["best_of_n"]
        ]
        curves.append(FrontierCurve("best of n", of_n, is_reference=True))
    file.write_text(frontier_plot(curves, result["reward"]), encoding="utf-8")

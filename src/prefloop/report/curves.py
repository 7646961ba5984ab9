"""Which plots a run gets, and the numbers in them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import isfinite
from typing import Any

from prefloop.config import at_round
from prefloop.records import Estimate
from prefloop.report.figures import ABSENT, compact, count, fixed
from prefloop.report.plots import Cloud, DataTable, Level, Plot, Point, Series, nice_ticks
from prefloop.report.table import kl_of, ratio_of
from prefloop.report.view import Answers, Evaluation, PlainRound, Round, RunView, Training
from prefloop.report.view import Level as MeasuredLevel

MOST_POINTS = 240
"""Of a training curve; longer ones are drawn as means of neighbouring steps."""
MOST_DOTS = 400
"""Of one policy in a scatter plot: the first in file order."""
BINS = 6
"""Lines of the table beside a scatter plot."""

_EVEN = Point(0, 50.0, 50.0, 50.0)
_VIEWS = (
    ("judge", "judge", "raw", "Judge, raw", "As the loop hears it, with whatever taste for length it has."),
    (
        "controlled",
        "judge",
        "controlled",
        "Judge, length-controlled",
        "The judge, if both answers were equally long (AlpacaEval 2's control).",
    ),
    ("truth", "truth", "raw", "Truth", "The judge without the flaw that was planted in it. The loop never saw it."),
)
"""Kind, judge and rate of each panel, its title and what it means."""
_TRAINING = (
    ("training-loss", "Training loss", "nats", "Mean over the examples of an optimiser step.", (("", "main", "loss"),)),
    (
        "training-margins",
        "Reward margin",
        "reward units",
        "Implicit reward of the chosen answer minus that of the rejected one.",
        (("", "main", "rewards/margins"),),
    ),
)


def win_rates(run: RunView) -> tuple[Plot, ...]:
    """The policy against the initial model, round by round: one panel for each way of counting, on one scale."""
    evaluated = _evaluated(run)
    panels = [_panel(run, evaluated, *view) for view in _VIEWS]
    plots = [plot for plot in panels if plot is not None]
    values = [value for plot in plots for line in plot.series for p in line.points for value in (p.low, p.high, p.y)]
    known = [value for value in values if value is not None]
    span = (min([40.0, *known]), max([60.0, *known]))
    return tuple(replace(plot, at_least=span) for plot in plots)


def _panel(
    run: RunView, evaluated: Sequence[Round], kind: str, judge: str, rate: str, title: str, caption: str
) -> Plot | None:
    duels = [(one, duel) for one in evaluated if (duel := one.duel(judge)) is not None]
    if not duels:
        return None
    own = (_EVEN, *(_point(one, duel.controlled if rate == "controlled" else duel.raw) for one, duel in duels))
    field = "length_controlled_winrate" if rate == "controlled" else "win_rate"
    return Plot(
        name=f"win-{kind}",
        title=title,
        caption=caption,
        y_label="wins, %",
        x_label="after round",
        ticks=_round_ticks(run, evaluated),
        series=(*_plain(run, kind, _EVEN), Series("this run" if run.plain else "", kind, (own,))),
        levels=(Level(50.0, ""),),
        source=f"round-NN/evaluation.json: against.initial.{judge}.{field} and its interval",
        width=330.0,
        height=235.0,
    )


def _plain(run: RunView, figure: str, start: Point) -> tuple[Series, ...]:
    """The committed curve of plain DPO, as far as this run has rounds to compare; nothing where there is none."""
    if run.plain is None:
        return ()
    rounds = run.plain.rounds[: run.recipe.rounds]
    points = tuple(_at(number, _committed(one, figure)) for number, one in enumerate(rounds, start=1))
    return (Series("plain", "plain", ((start, *points),)),)


def _committed(one: PlainRound, figure: str) -> Estimate:
    return {"judge": one.judge, "controlled": one.controlled, "truth": one.truth, "length": one.length_ratio}[figure]


def measures(run: RunView) -> tuple[Plot, ...]:
    """What the win rate was paid with: length, distance, cut answers, repetition."""
    evaluated = _evaluated(run)
    if not evaluated:
        return ()

    def plot(
        name: str,
        title: str,
        unit: str,
        caption: str,
        values: list[Point],
        span: tuple[float, float],
        source: str,
        beside: tuple[Series, ...] = (),
    ) -> Plot:
        level = (Level(values[0].y, ""),) if name != "kl" else ()
        line = Series("this run" if beside else "", "main", (tuple(values),))
        return Plot(
            name=name,
            title=title,
            caption=caption,
            y_label=unit,
            x_label="after round",
            ticks=_round_ticks(run, evaluated),
            series=(*beside, line),
            at_least=span,
            levels=level,
            source=f"round-NN/evaluation.json: {source}",
        )

    first = _evaluation(evaluated[0])
    one = Point(0, 1.0, 1.0, 1.0)
    ratios = [_point(found, ratio) for found in evaluated if (ratio := ratio_of(found)) is not None]
    finished = [_level(found.number + 1, _evaluation(found).finish_rate, 100) for found in evaluated]
    plots = [
        plot(
            "length",
            "Answer length",
            "\N{MULTIPLICATION SIGN} the initial model's",
            f"Mean tokens of an answer; the initial model's has {fixed(first.length.initial, 1)}.",
            [one, *ratios],
            (0.8, 1.2),
            "length.ratio and its interval",
            _plain(run, "length", one),
        )
    ]
    distances = [_point(found, kl) for found in evaluated if (kl := kl_of(_evaluation(found))) is not None]
    if distances:
        plots.append(
            plot(
                "kl",
                "KL from the initial model",
                "nats an answer",
                "How far the policy has moved, on its own answers.",
                [Point(0, 0.0, 0.0, 0.0), *distances],
                (0, 0),
                "kl",
            )
        )
    plots.append(
        plot(
            "finish-rate",
            "Finished answers",
            "%",
            "End by themselves, not at the length limit.",
            [Point(0, 100 * first.finish_rate.initial), *finished],
            (min(80.0, *(point.y for point in finished)), 100),
            "finish_rate",
        )
    )
    varied = [(found.number + 1, level) for found in evaluated if (level := _evaluation(found).distinct_2) is not None]
    if varied:
        values = [Point(0, varied[0][1].initial), *(_level(x, level) for x, level in varied)]
        caption = "Different word pairs, as a share of all (distinct-2); a fall means repetition."
        plots.append(plot("distinct-2", "Variety", "share", caption, values, (0.5, 1), "distinct_2"))
    return tuple(plots)


def scatter(run: RunView) -> tuple[Plot, ...]:
    """Score against length of single answers, before and after, by the judge and by the truth."""
    shown = run.last_accepted
    if shown is None:
        return ()
    labels = {"judge": ("Judge's score", "judgments"), "truth": ("True score", "truth")}
    plots = (
        _scatter(judge, title, f"after round {shown.label}", run.before, run.after, suffix)
        for judge, (title, suffix) in labels.items()
    )
    found = [plot for plot in plots if plot is not None]
    values = [y for plot in found for cloud in plot.clouds for _, y in cloud.dots]
    return tuple(replace(plot, at_least=(min(values), max(values))) for plot in found)


def _scatter(judge: str, title: str, after: str, before: Answers, now: Answers, suffix: str) -> Plot | None:
    clouds = tuple(
        Cloud(label, kind, dots[:MOST_DOTS])
        for label, kind, answers in (("initial", "before", before), (after, "after", now))
        if (dots := _scored(answers, judge))
    )
    if len(clouds) < 2:
        return None
    ends = nice_ticks(0, max(x for cloud in clouds for x, _ in cloud.dots))
    return Plot(
        name=f"scatter-{judge}",
        title=f"{title} against length",
        caption="A dot is an answer; the large marks are the means.",
        y_label="score",
        x_label="tokens of the answer",
        ticks=tuple((tick, compact(tick)) for tick in ends),
        series=(),
        clouds=clouds,
        source=f"setup/evaluation-initial and round-NN/evaluation-samples, and what lies beside them as ...-{suffix}",
        data=_binned(clouds),
        width=400.0,
        height=250.0,
    )


def _scored(answers: Answers, judge: str) -> tuple[tuple[float, float], ...]:
    return tuple((float(one.num_tokens), one.scores[judge]) for one in answers.all if judge in one.scores)


def _binned(clouds: Sequence[Cloud]) -> DataTable:
    """Mean score by length, in bins of equal width."""
    longest = max(x for cloud in clouds for x, _ in cloud.dots)
    width = max(1, -(-int(longest) // BINS))

    def cell(cloud: Cloud, low: int) -> str:
        inside = [y for x, y in cloud.dots if low < x <= low + width]
        return f"{fixed(_mean(inside), 2)} of {len(inside)}" if inside else ABSENT

    return DataTable(
        headings=("tokens", *(f"{cloud.label}: mean score" for cloud in clouds)),
        lines=tuple(
            (f"{low + 1} to {low + width}", *(cell(cloud, low) for cloud in clouds))
            for low in range(0, int(longest), width)
        ),
        note=" ".join(
            f"{cloud.label}: {count(len(cloud.dots))} answers, mean {fixed(cloud.mean[0], 1)} tokens, "
            f"mean score {fixed(cloud.mean[1], 2)}."
            for cloud in clouds
        ),
    )


def training(run: RunView) -> tuple[Plot, ...]:
    """How the rounds were trained, and the constants fitted for them."""
    trained = [one for one in run.rounds if one.training]
    if not trained:
        return ()
    names = sorted({name for one in trained for train in one.training for name in train.fitted})
    plots = (_log_ratios(run, trained), *(_curves(trained, *shape) for shape in _TRAINING))
    return (*(plot for plot in plots if plot is not None), *(_fitted(trained, name) for name in names))


def _log_ratios(run: RunView, trained: Sequence[Round]) -> Plot | None:
    """Implicit rewards divided by their beta; as they are where the recipe does not say one."""
    betas = {
        train.place: beta
        for one in trained
        for train in one.training
        if (beta := _in_round(run.recipe.setting(train.step, "objective", "beta"), one.number)) is not None
    }
    known = all(train.place in betas for one in trained for train in one.training)
    if known:
        trained = [replace(one, training=tuple(_divided(t, betas[t.place]) for t in one.training)) for one in trained]
    plot = _curves(
        trained,
        "log-ratios",
        "Log-ratios to the reference" if known else "Implicit rewards",
        "nats an answer" if known else "reward units",
        "Policy against the round's reference. Both may fall; the gap is what is learnt.",
        (("chosen", "chosen", "rewards/chosen"), ("rejected", "rejected", "rewards/rejected")),
    )
    if plot is None:
        return None
    source = f"{plot.source}, divided by the recipe's beta" if known else plot.source
    return replace(plot, levels=(Level(0.0, ""),), source=source)


def _in_round(value: Any, number: int) -> float | None:
    """A number of the recipe in one round, where it is one."""
    found = at_round(value, number)
    return float(found) if isinstance(found, int | float) and found else None


def _divided(train: Training, beta: float) -> Training:
    steps = ({name: v / beta if name.startswith("rewards/") else v for name, v in step.items()} for step in train.steps)
    return replace(train, steps=tuple(steps))


def _curves(
    trained: Sequence[Round], name: str, title: str, unit: str, caption: str, metrics: tuple[tuple[str, str, str], ...]
) -> Plot | None:
    """Optimiser steps of all rounds in a row; a curve starts anew with each round."""
    ends = [0]
    for one in trained:
        ends.append(ends[-1] + sum(len(train.steps) for train in one.training))
    series = tuple(
        Series(label, kind, tuple(_lines(trained, ends, metric)), marked=ends[-1] <= 1)
        for label, kind, metric in metrics
    )
    if not any(line.points for line in series):
        return None
    middles = tuple(
        (0.5 + (start + end) / 2, one.label) for start, end, one in zip(ends, ends[1:], trained, strict=False)
    )
    return Plot(
        name,
        title,
        caption,
        unit,
        f"round · {ends[-1]} optimiser steps",
        middles,
        series,
        dividers=tuple(end + 0.5 for end in ends[1:-1]),
        source=f"round-NN/policy/training.jsonl: {', '.join(metric for _, _, metric in metrics)}",
    )


def _lines(trained: Sequence[Round], ends: Sequence[int], metric: str) -> Iterator[tuple[Point, ...]]:
    width = max(1, -(-ends[-1] // MOST_POINTS))
    for start, one in zip(ends, trained, strict=False):
        values = [step.get(metric) for train in one.training for step in train.steps]
        known = [
            (start + number, value)
            for number, value in enumerate(values, start=1)
            if value is not None and isfinite(value)
        ]
        buckets = [known[index : index + width] for index in range(0, len(known), width)]
        yield tuple(Point(_mean([x for x, _ in bucket]), _mean([y for _, y in bucket])) for bucket in buckets)


def _fitted(trained: Sequence[Round], name: str) -> Plot:
    """A round with several blocks shows each of its fits."""
    points = tuple(
        Point(one.number + 1, fit.value)
        for one in trained
        for train in one.training
        if (fit := train.fitted.get(name)) is not None
    )
    return Plot(
        name=f"fitted-{name}",
        title=f"Fitted {name}",
        caption="Fitted on the round's own pairs before training.",
        y_label=name,
        x_label="round",
        source="round-NN/policy/fitted.json",
        ticks=tuple((float(one.number + 1), one.label) for one in trained),
        series=(Series("", "main", (points,)),),
        at_least=(0.0, 0.0),
    )


def _evaluated(run: RunView) -> tuple[Round, ...]:
    return tuple(one for one in run.rounds if one.evaluation is not None)


def _evaluation(one: Round) -> Evaluation:
    assert one.evaluation is not None
    return one.evaluation


def _point(one: Round, estimate: Estimate) -> Point:
    return _at(one.number + 1, estimate)


def _level(x: float, level: MeasuredLevel, scale: float = 1.0) -> Point:
    low, high = level.interval or (None, None)
    return Point(x, scale * level.value, None if low is None else scale * low, None if high is None else scale * high)


def _at(x: float, estimate: Estimate) -> Point:
    low, high = estimate.interval or (None, None)
    return Point(x, estimate.value, low, high)


def _round_ticks(run: RunView, evaluated: Sequence[Round]) -> tuple[tuple[float, str], ...]:
    """Rounds that were not accepted carry a dagger."""
    refused = {one.number for one in run.finished if not one.accepted}
    rounds = ((float(one.number + 1), one.label + ("†" if one.number in refused else "")) for one in evaluated)
    return ((0.0, "initial"), *rounds)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

"""Which plots a run gets, and the numbers in them."""

from collections.abc import Iterator, Sequence
from math import isfinite

from prefloop.records import Estimate
from prefloop.report.plots import Level, Plot, Point, Series
from prefloop.report.table import kl_of, length_of
from prefloop.report.view import Evaluation, Round, RunView

MOST_POINTS = 240
"""Of a training curve; longer ones are drawn as means of neighbouring steps."""

_EVEN = Point(0, 50.0, 50.0, 50.0)
_TRAINING = (
    ("training-loss", "Training loss", "nats", "Mean over the examples of an optimiser step.", (("", "main", "loss"),)),
    (
        "training-margins",
        "Reward margin",
        "reward units",
        "Implicit reward of the chosen answer minus that of the rejected one.",
        (("", "main", "rewards/margins"),),
    ),
    (
        "training-logps",
        "Log-probabilities",
        "nats an answer",
        "Of chosen and rejected answers under the policy. Both falling together is normal.",
        (("chosen", "chosen", "logps/chosen"), ("rejected", "rejected", "logps/rejected")),
    ),
)


def win_rates(run: RunView) -> Plot | None:
    """The policy against the initial model, round by round, as each way of counting sees it."""
    evaluated = _evaluated(run)
    truth = [(one, duel.raw) for one in evaluated if (duel := one.duel("truth")) is not None]
    controlled = [(one, duel.controlled) for one in evaluated if (duel := one.duel("judge")) is not None]
    judge = [(one, duel.raw) for one in evaluated if (duel := one.duel("judge")) is not None]
    series = tuple(
        Series(name, name, ((_EVEN, *(_point(one, rate) for one, rate in rates)),))
        for name, rates in (("truth", truth), ("controlled", controlled), ("judge", judge))
        if rates
    )
    if not series:
        return None
    return Plot(
        name="win-rate",
        title="Win rate against the initial model",
        caption="Held-out prompts; ties count half. Bands: 95 % intervals, clustered by prompt. 50 % is a draw.",
        y_label="win rate, %",
        x_label="round",
        ticks=_round_ticks(run, evaluated),
        series=series,
        at_least=(30.0, 70.0),
        levels=(Level(50.0, ""),),
        width=400.0,
        height=280.0,
    )


def measures(run: RunView) -> tuple[Plot, ...]:
    """What the win rate was paid with: length, cut answers, distance, repetition."""
    evaluated = _evaluated(run)
    if not evaluated:
        return ()

    def plot(name: str, title: str, unit: str, caption: str, values: list[Point], span: tuple[float, float]) -> Plot:
        level = (Level(values[0].y, "initial"),) if name != "kl" else ()
        line = Series("", "main", (tuple(values),))
        return Plot(name, title, caption, unit, "round", _round_ticks(run, evaluated), (line,), span, level)

    first = _evaluation(evaluated[0])
    lengths = [_point(one, length_of(_evaluation(one))) for one in evaluated]
    finished = [Point(one.number + 1, 100 * _evaluation(one).finish_rate.value) for one in evaluated]
    plots = [
        plot(
            "length",
            "Mean answer length",
            "tokens",
            "Band: 95 % interval.",
            [Point(0, first.length.initial), *lengths],
            (0, 0),
        ),
        plot(
            "finish-rate",
            "Finished answers",
            "%",
            "Answers that end by themselves, not at the length limit.",
            [Point(0, 100 * first.finish_rate.initial), *finished],
            (0, 100),
        ),
    ]
    distances = [_point(one, kl) for one in evaluated if (kl := kl_of(_evaluation(one))) is not None]
    if distances:
        caption = "Nats an answer. Band: 95 % interval."
        plots.append(
            plot("kl", "KL from the initial model", "nats", caption, [Point(0, 0.0, 0.0, 0.0), *distances], (0, 0))
        )
    varied = [(one.number + 1, level) for one in evaluated if (level := _evaluation(one).distinct_2) is not None]
    if varied:
        values = [Point(0, varied[0][1].initial), *(Point(x, level.value) for x, level in varied)]
        caption = "Different word pairs, as a share of all; a fall means repetition."
        plots.append(plot("distinct-2", "Variety (distinct-2)", "share", caption, values, (0, 1)))
    return tuple(plots)


def training(run: RunView) -> tuple[Plot, ...]:
    """How the rounds were trained, and the constants fitted for them."""
    trained = [one for one in run.rounds if one.training]
    plots = [_curves(trained, *shape) for shape in _TRAINING if trained]
    names = sorted({name for one in trained for train in one.training for name in train.fitted})
    return (*(plot for plot in plots if plot is not None), *(_fitted(trained, name) for name in names))


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
        caption="Fitted on the round's own examples before training.",
        y_label=name,
        x_label="round",
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
    low, high = estimate.interval or (None, None)
    return Point(one.number + 1, estimate.value, low, high)


def _round_ticks(run: RunView, evaluated: Sequence[Round]) -> tuple[tuple[float, str], ...]:
    """Rounds that were not accepted carry a dagger."""
    refused = {one.number for one in run.finished if not one.accepted}
    rounds = ((float(one.number + 1), one.label + ("†" if one.number in refused else "")) for one in evaluated)
    return ((0.0, "initial"), *rounds)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

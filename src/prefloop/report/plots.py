"""Plots as inline SVG, in words and as tables: pure functions of numbers. Colours and fonts are in page.css."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor, log10

from markupsafe import Markup, escape

from prefloop.report.figures import ABSENT, compact, fixed

_CHARACTER = 7.2  # of bold figures in a wide sans serif at the page's 11.5 px
_LINE = 13.5
_TOP = 26.0
_BOTTOM = 40.0
FEW_TICKS = 10
"""So few are not crowded; the first may stand away from the axis."""
MOST_LINES = 60
"""Of a table of numbers beside a plot."""


@dataclass(frozen=True)
class Point:
    """A measured value, with its interval where there is one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Series:
    """One curve. `kind` chooses colour, dashes and marker, so that it can be told apart without colour."""

    label: str
    """Written at the end of the curve; empty for a plot's only curve."""
    kind: str
    lines: tuple[tuple[Point, ...], ...]
    """Pieces that are not joined."""
    marked: bool = True
    """Whether every point has a marker; off for curves of many points."""

    @property
    def points(self) -> tuple[Point, ...]:
        """All points, in order."""
        return tuple(point for line in self.lines for point in line)


@dataclass(frozen=True)
class Cloud:
    """Single dots, with a mark at their mean; `kind` chooses their look."""

    label: str
    """Written at the mean."""
    kind: str
    dots: tuple[tuple[float, float], ...]

    @property
    def mean(self) -> tuple[float, float]:
        """The middle of the dots."""
        count = len(self.dots)
        return sum(x for x, _ in self.dots) / count, sum(y for _, y in self.dots) / count


@dataclass(frozen=True)
class DataTable:
    """The numbers of a plot, for those who cannot or would rather not read it off the picture."""

    headings: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Level:
    """A horizontal line to compare with."""

    y: float
    label: str


@dataclass(frozen=True)
class Plot:
    """What is drawn, in its own units."""

    name: str
    """Unique on the page: ids are made of it."""
    title: str
    caption: str
    y_label: str
    x_label: str
    ticks: tuple[tuple[float, str], ...]
    """Of the x axis."""
    series: tuple[Series, ...]
    at_least: tuple[float, float] | None = None
    """The y axis covers this range and whatever the values need."""
    levels: tuple[Level, ...] = ()
    dividers: tuple[float, ...] = ()
    """Vertical lines between rounds."""
    clouds: tuple[Cloud, ...] = ()
    source: str = ""
    """Which files the numbers are from."""
    data: DataTable | None = None
    """Its numbers; None: every point of every curve."""
    width: float = 290.0
    height: float = 210.0

    @property
    def table(self) -> DataTable:
        """The numbers behind the picture."""
        return self.data or _points_table(self)


@dataclass(frozen=True)
class Frame:
    """From a plot's units to the picture's."""

    left: float
    right: float
    top: float
    bottom: float
    x_span: tuple[float, float]
    y_span: tuple[float, float]

    def x(self, value: float) -> float:
        """Pixels from the left."""
        low, high = self.x_span
        return self.left + (value - low) / (high - low) * (self.right - self.left)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        low, high = self.y_span
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)


def nice_ticks(low: float, high: float, count: int = 5) -> tuple[float, ...]:
    """About `count` round numbers that cover low to high; the first is <= low, the last >= high."""
    if high <= low:
        low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
    rough = (high - low) / count
    magnitude = 10.0 ** floor(log10(rough))
    step = next(factor * magnitude for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * magnitude >= rough * (1 - 1e-9))
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return tuple(round(index * step, 12) for index in range(first, last + 1))


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> tuple[float, ...]:
    """Positions near the wanted ones, at least `gap` apart and, where there is room, within low to high."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    placed: list[float] = []
    for index in order:
        placed.append(max(wanted[index], placed[-1] + gap if placed else low))
    if placed and placed[-1] > high:
        placed[-1] = high
        for index in range(len(placed) - 2, -1, -1):
            placed[index] = min(placed[index], placed[index + 1] - gap)
    positions = dict(zip(order, placed, strict=True))
    return tuple(positions[index] for index in range(len(wanted)))


def svg(plot: Plot) -> Markup:
    """The plot as an SVG element with a title and a description for those who cannot see it."""
    y_ticks = _y_ticks(plot)
    labels = _end_labels(plot)
    frame = _frame(plot, y_ticks, [text for _, text, _ in labels])
    parts = [
        *_grid(frame, y_ticks),
        *_x_axis(plot, frame),
        *(_line(frame.left, frame.y(level.y), frame.right, frame.y(level.y), "level") for level in plot.levels),
        *(band for series in plot.series for band in _bands(series, frame)),
        *(_dots(cloud, frame) for cloud in plot.clouds),
        *(mark for series in plot.series for mark in _curve(series, frame)),
        *_means(plot.clouds, frame),
        *_written(labels, frame),
        _text(2, 13, plot.y_label, "axis-name"),
    ]
    head = Markup(
        '<svg viewBox="0 0 {width} {height}" role="img" aria-labelledby="{name}-title {name}-text">'
        '<title id="{name}-title">{title}</title><desc id="{name}-text">{text}</desc>'
    ).format(
        width=compact(plot.width), height=compact(plot.height), name=plot.name, title=plot.title, text=described(plot)
    )
    return head + Markup("").join(parts) + Markup("</svg>")


def described(plot: Plot) -> str:
    """The plot in words: every value, or the ends of curves with many."""
    names = dict(plot.ticks)
    sentences = [f"{level.label}: {compact(level.y)}." for level in plot.levels]
    for series in plot.series:
        points = series.points
        if not points:
            continue
        head = f"{series.label or plot.title}: "
        if series.marked:
            sentences.append(head + ", ".join(f"{names.get(p.x, compact(p.x))}: {_valued(p)}" for p in points) + ".")
        else:
            sentences.append(f"{head}from {compact(points[0].y)} to {compact(points[-1].y)}.")
    for cloud in plot.clouds:
        x, y = map(compact, cloud.mean)
        sentences.append(f"{cloud.label}: {len(cloud.dots)} dots, on average at {x} and {y}.")
    return " ".join(sentences)


def _points_table(plot: Plot) -> DataTable:
    """A line an x value, a column a curve; of long curves every second, third, ... value."""
    names = dict(plot.ticks) if all(series.marked for series in plot.series) else {}
    columns = [{point.x: _valued(point) for point in series.points} for series in plot.series]
    xs = sorted({x for column in columns for x in column})
    stride = max(1, ceil(len(xs) / MOST_LINES))
    return DataTable(
        headings=(
            plot.x_label if names else "optimiser step",
            *(f"{series.label or plot.title}, {plot.y_label}".removesuffix(", ") for series in plot.series),
        ),
        lines=tuple((names.get(x, compact(x)), *(column.get(x, ABSENT) for column in columns)) for x in xs[::stride]),
        note=f"Every {stride}th of {len(xs)} values." if stride > 1 else "",
    )


def _valued(point: Point) -> str:
    ends = "" if point.low is None or point.high is None else f" ({compact(point.low)} to {compact(point.high)})"
    return compact(point.y) + (ends if point.low != point.high else "")


def _y_ticks(plot: Plot) -> tuple[float, ...]:
    values = [level.y for level in plot.levels] + list(plot.at_least or ())
    values += [y for cloud in plot.clouds for _, y in cloud.dots]
    for point in (point for series in plot.series for point in series.points):
        values += [value for value in (point.y, point.low, point.high) if value is not None]
    return nice_ticks(min(values), max(values)) if values else (0.0, 1.0)


def _end_labels(plot: Plot) -> list[tuple[float, str, str]]:
    """Value, text and kind of what is written right of the curves."""
    ends = [(series, series.points[-1]) for series in plot.series if series.points]
    labels = [(point.y, f"{series.label} {compact(point.y)}".strip(), series.kind) for series, point in ends]
    return [*labels, *((level.y, level.label, "level") for level in plot.levels if level.label)]


def _frame(plot: Plot, y_ticks: tuple[float, ...], labels: list[str]) -> Frame:
    left = 9 + 0.92 * _CHARACTER * max(len(text) for text in _tick_texts(y_ticks))
    right = plot.width - 9 - _CHARACTER * max((len(text) for text in labels), default=0)
    xs = (
        [x for x, _ in plot.ticks]
        + [point.x for series in plot.series for point in series.points]
        + list(plot.dividers)
        + [x for cloud in plot.clouds for x, _ in cloud.dots]
    )
    low, high = min(xs, default=0.0), max(xs, default=1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    pad = (0.07 if len(plot.ticks) <= FEW_TICKS and not plot.clouds else 0.03) * (high - low)
    return Frame(left, right, _TOP, plot.height - _BOTTOM, (low - pad, high + pad), (y_ticks[0], y_ticks[-1]))


def _tick_texts(ticks: tuple[float, ...]) -> tuple[str, ...]:
    """With as many decimals as the steps between them need."""
    step = min((after - before for before, after in pairwise(ticks)), default=1.0)
    digits = next((digits for digits in range(7) if abs(round(step, digits) - step) < 1e-9), 7)
    return tuple(fixed(tick, digits) for tick in ticks)


def _grid(frame: Frame, y_ticks: tuple[float, ...]) -> Iterator[Markup]:
    for tick, text in zip(y_ticks, _tick_texts(y_ticks), strict=True):
        yield _line(frame.left, frame.y(tick), frame.right, frame.y(tick), "grid")
        yield _text(frame.left - 6, frame.y(tick) + 4, text, "tick end")


def _x_axis(plot: Plot, frame: Frame) -> Iterator[Markup]:
    yield _line(frame.left, frame.bottom, frame.right, frame.bottom, "axis")
    for divider in plot.dividers:
        yield _line(frame.x(divider), frame.top, frame.x(divider), frame.bottom, "divider")
    for x, text in _readable(plot.ticks, frame):
        yield _text(frame.x(x), frame.bottom + 17, text, "tick middle")
    yield _text((frame.left + frame.right) / 2, frame.bottom + 33, plot.x_label, "axis-name middle")


def _readable(ticks: tuple[tuple[float, str], ...], frame: Frame) -> tuple[tuple[float, str], ...]:
    """Every tick, or every second, third, ... so that no label touches the next."""
    for stride in range(1, len(ticks)):
        shown = ticks[::stride]
        gaps = (
            (frame.x(b) - frame.x(a), _CHARACTER * (len(left) + len(right) + 1) / 2)
            for (a, left), (b, right) in pairwise(shown)
        )
        if all(gap >= needed for gap, needed in gaps):
            return shown
    return ticks[:1]


def _bands(series: Series, frame: Frame) -> Iterator[Markup]:
    """The intervals of neighbouring points as one area, and each as a whisker."""
    for line in series.lines:
        sure = [(p.x, p.low, p.high) for p in line if p.low is not None and p.high is not None]
        if len(sure) > 1:
            corners = [(x, high) for x, _, high in sure] + [(x, low) for x, low, _ in reversed(sure)]
            yield Markup('<path class="band {}" d="{}Z"/>').format(series.kind, _path(frame, corners))
        for x, low, high in sure:
            if low < high:
                yield _line(frame.x(x), frame.y(low), frame.x(x), frame.y(high), f"whisker {series.kind}")


def _curve(series: Series, frame: Frame) -> Iterator[Markup]:
    for line in series.lines:
        if len(line) > 1:
            yield Markup('<path class="curve {}" d="{}"/>').format(
                series.kind, _path(frame, [(p.x, p.y) for p in line])
            )
    if series.marked:
        yield from (_marker(series.kind, frame.x(p.x), frame.y(p.y), _valued(p)) for p in series.points)


def _marker(kind: str, x: float, y: float, value: str) -> Markup:
    """Circle, square, triangle: the shape tells the curve, the tooltip the value."""
    shapes = {
        "controlled": f"M{x - 4:.1f} {y - 4:.1f}h8v8h-8Z",
        "truth": f"M{x:.1f} {y - 5.5:.1f}l5.2 9.4h-10.4Z",
        "rejected": f"M{x - 4:.1f} {y - 4:.1f}h8v8h-8Z",
        "plain": f"M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5Z",
        "after": f"M{x:.1f} {y - 7:.1f}l7 12.5h-14Z",
        "before": f"M{x - 6:.1f} {y:.1f}a6 6 0 1 0 12 0a6 6 0 1 0 -12 0Z",
    }
    circle = f"M{x - 4.2:.1f} {y:.1f}a4.2 4.2 0 1 0 8.4 0a4.2 4.2 0 1 0 -8.4 0Z"
    return Markup('<path class="marker {}" d="{}"><title>{}</title></path>').format(
        kind, shapes.get(kind.split(maxsplit=1)[0], circle), value
    )


def _dots(cloud: Cloud, frame: Frame) -> Markup:
    """All dots as one path; circles or, for `after`, triangles."""
    shape = "m0 -2.6l2.4 4.4h-4.8Z" if cloud.kind == "after" else "m-2 0a2 2 0 1 0 4 0a2 2 0 1 0 -4 0Z"
    corners = "".join(f"M{frame.x(x):.1f} {frame.y(y):.1f}{shape}" for x, y in cloud.dots)
    return Markup('<path class="dots {}" d="{}"/>').format(cloud.kind, corners)


def _means(clouds: Sequence[Cloud], frame: Frame) -> Iterator[Markup]:
    """A mark for each; the name of the highest stands above it, the others' below, so that they cannot meet."""
    for rank, cloud in enumerate(sorted(clouds, key=lambda one: -one.mean[1])):
        x, y = frame.x(cloud.mean[0]), frame.y(cloud.mean[1])
        yield _marker(f"{cloud.kind} mean", x, y, f"mean: {compact(cloud.mean[0])}, {compact(cloud.mean[1])}")
        half = _CHARACTER * len(cloud.label) / 2
        inside = min(max(x, frame.left + half), frame.right - half)
        yield _text(inside, y + (21 if rank else -12), cloud.label, f"end-label halo middle {cloud.kind}")


def _written(labels: list[tuple[float, str, str]], frame: Frame) -> Iterator[Markup]:
    heights = spread([frame.y(value) + 4 for value, _, _ in labels], _LINE, frame.top + 4, frame.bottom + 4)
    for height, (_, text, kind) in zip(heights, labels, strict=True):
        yield _text(frame.right + 7, height, text, f"end-label {kind}")


def _path(frame: Frame, points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{frame.x(x):.1f} {frame.y(y):.1f}" for x, y in points)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<path class="{}" d="M{} {}L{} {}"/>').format(
        kind, f"{x1:.1f}", f"{y1:.1f}", f"{x2:.1f}", f"{y2:.1f}"
    )


def _text(x: float, y: float, text: str, kind: str) -> Markup:
    return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(kind, f"{x:.1f}", f"{y:.1f}", escape(text))

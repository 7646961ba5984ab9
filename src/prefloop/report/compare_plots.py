"""The plots of a comparison: win rate against length, and the win rates of each arm by round."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import hypot

from markupsafe import Markup, escape

from prefloop.records import Estimate
from prefloop.report.compare import Arm, Measured, RunComparison
from prefloop.report.figures import compact, fixed, with_interval
from prefloop.report.plots import Frame, Level, Plot, Point, Series, nice_ticks

LOOKS = 8
"""Colours and shapes of arms; more arms begin anew, and are told apart by their labels."""

MOST_LABELLED = 4
"""Of more arms the labels would hide each other; up to LOOKS of them the legend tells them apart."""

_WIDTH, _HEIGHT = 470.0, 380.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 42.0, 14.0, 26.0, 42.0
_CHARACTER = 7.6  # of bold letters in a wide sans serif at 12.5 px
_LINE = 14.0
_EVEN = 50.0
_PLACES = (
    (0.0, 16.0, 4.0),
    (1.0, -16.0, 4.0),
    (0.0, 12.0, -13.0),
    (0.0, 12.0, 23.0),
    (1.0, -12.0, -13.0),
    (1.0, -12.0, 23.0),
    (0.5, 0.0, -18.0),
    (0.5, 0.0, 28.0),
    (0.0, 26.0, -28.0),
    (0.0, 26.0, 38.0),
    (1.0, -26.0, -28.0),
    (1.0, -26.0, 38.0),
)
"""Where a name may stand: the share of it that is left of the mark, and how far right and down of it."""
_SHAPES = (
    "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0Z",
    "M-4.6 -4.6h9.2v9.2h-9.2Z",
    "M0 -7.2l6.8 11.2h-13.6Z",
    "M0 -6.4l6.4 6.4l-6.4 6.4l-6.4 -6.4Z",
    "M0 6.8l6.8 -11.2h-13.6Z",
    "M-3 -6h6v3h3v6h-3v3h-6v-3h-3v-6h3Z",
    "M0 -6.2l5.4 3.1v6.2l-5.4 3.1l-5.4 -3.1v-6.2Z",
    "M-6 -3.6h12v7.2h-12Z",
)


@dataclass(frozen=True)
class Stop:
    """A measured point of a trajectory: times the initial length, and percent won."""

    label: str
    """The round; empty for the seeds' own last rounds and for their mean."""
    length: Estimate
    wins: Estimate


@dataclass(frozen=True)
class Track:
    """One arm, from its initial model round by round."""

    label: str
    look: int
    rounds: tuple[Stop, ...]
    last: Stop
    """All seeds after their last accepted round: the large mark with intervals and the arm's name."""
    seeds: tuple[Stop, ...]
    """Each seed's own; empty where there is one."""


@dataclass(frozen=True)
class TrackPlot:
    """Win rate, by one judge, against length."""

    name: str
    title: str
    caption: str
    tracks: tuple[Track, ...]


def against_length(comparison: RunComparison) -> tuple[TrackPlot, ...]:
    """One plot for the truth, where it was recorded, and one for the judge."""
    described = {
        "truth": (
            "By the truth",
            "What the loop never saw: the judge without its planted flaw. Up is better; right is longer.",
        ),
        "judge": (
            "By the judge",
            "What the loop was paid for. Right and up together is a judge that length has bought.",
        ),
    }
    plots = (
        TrackPlot(f"{judge}-against-length", title, caption, tuple(_tracks(comparison.arms, judge)))
        for judge, (title, caption) in described.items()
    )
    return tuple(plot for plot in plots if plot.tracks)


def by_round(comparison: RunComparison) -> tuple[Plot, ...]:
    """For each arm its win rates round by round, all on one scale."""
    shown = [arm for arm in comparison.arms if arm.rounds]
    ends = [end for arm in shown for one in arm.rounds for end in _ends(one.measured)]
    scale = (min([*ends, 40.0]), max([*ends, 60.0]))
    return tuple(_by_round(arm, f"arm-{number}-by-round", scale) for number, arm in enumerate(shown))


def svg_of(plot: TrackPlot, scale: Sequence[TrackPlot]) -> Markup:
    """The plot as SVG, on the axes that all of `scale` fit on."""
    frame, x_ticks, y_ticks = _frame(scale)
    parts = [
        *_axes(frame, x_ticks, y_ticks),
        *(part for track in plot.tracks for part in _path(track, frame)),
        *(part for track in plot.tracks for part in _marks(track, frame)),
        *(_labels(plot.tracks, frame) if not MOST_LABELLED < len(plot.tracks) <= LOOKS else ()),
    ]
    head = Markup(
        '<svg viewBox="0 0 {} {}" role="img" aria-labelledby="{name}-title {name}-text">'
        '<title id="{name}-title">Win rate against length: {title}</title><desc id="{name}-text">{text}</desc>'
    ).format(compact(_WIDTH), compact(_HEIGHT), name=plot.name, title=plot.title, text=described(plot))
    return head + Markup("").join(parts) + Markup("</svg>")


def described(plot: TrackPlot) -> str:
    """The plot in words."""
    return " ".join(
        f"{track.label}: "
        + "".join(
            f"after round {stop.label} {fixed(stop.length.value, 2)} times the length, {fixed(stop.wins.value, 1)} %; "
            for stop in track.rounds
        )
        + "after the last accepted round "
        + f"{with_interval(track.last.length, 2)} times, {with_interval(track.last.wins)} %."
        for track in plot.tracks
    )


def marker(look: int) -> Markup:
    """The arm's mark, for a key."""
    return Markup(
        '<svg class="key-mark arm-{}" viewBox="-8 -8 16 16" aria-hidden="true"><path class="mark" d="{}"/></svg>'
    ).format(look, _SHAPES[look])


def _tracks(arms: Sequence[Arm], judge: str) -> Iterator[Track]:
    for number, arm in enumerate(arms):
        last = _stop("", arm.last, judge)
        rounds = [_stop(one.label + ("†" if one.refused else ""), one.measured, judge) for one in arm.rounds]
        seeds = [_stop("", one.measured, judge) for one in arm.seeds] if len(arm.seeds) > 1 else []
        if last is not None:
            yield Track(
                label=arm.label,
                look=number % LOOKS,
                rounds=tuple(stop for stop in rounds if stop is not None),
                last=last,
                seeds=tuple(stop for stop in seeds if stop is not None),
            )


def _stop(label: str, measured: Measured, judge: str) -> Stop | None:
    wins = measured.truth if judge == "truth" else measured.judge
    return None if wins is None else Stop(label, measured.length, wins)


def _frame(plots: Sequence[TrackPlot]) -> tuple[Frame, tuple[float, ...], tuple[float, ...]]:
    tracks = [track for plot in plots for track in plot.tracks]
    stops = [stop for track in tracks for stop in (*track.rounds, *track.seeds, track.last)]
    xs = [
        1.0,
        *(stop.length.value for stop in stops),
        *(end for track in tracks for end in track.last.length.interval or ()),
    ]
    ys = [
        _EVEN,
        *(stop.wins.value for stop in stops),
        *(end for track in tracks for end in track.last.wins.interval or ()),
    ]
    x_ticks = nice_ticks(min(0.9, *xs), max(1.1, *xs))
    y_ticks = nice_ticks(min(45.0, *ys), max(55.0, *ys))
    frame = Frame(_LEFT, _WIDTH - _RIGHT, _TOP, _HEIGHT - _BOTTOM, (x_ticks[0], x_ticks[-1]), (y_ticks[0], y_ticks[-1]))
    return frame, x_ticks, y_ticks


def _axes(frame: Frame, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> Iterator[Markup]:
    for tick, text in zip(y_ticks, _tick_texts(y_ticks), strict=True):
        yield _line("grid", frame.left, frame.y(tick), frame.right, frame.y(tick))
        yield _text("tick end", frame.left - 6, frame.y(tick) + 4, text)
    for tick, text in zip(x_ticks, _tick_texts(x_ticks), strict=True):
        yield _line("grid", frame.x(tick), frame.top, frame.x(tick), frame.bottom)
        yield _text("tick middle", frame.x(tick), frame.bottom + 16, text)
    yield _line("level", frame.left, frame.y(_EVEN), frame.right, frame.y(_EVEN))
    yield _line("level", frame.x(1.0), frame.top, frame.x(1.0), frame.bottom)
    yield _text("axis-name", 2, 13, "win rate against the initial model, %")
    yield _text("axis-name end", frame.right, frame.bottom + 33, "length of answers, times the initial model's")


def _path(track: Track, frame: Frame) -> Iterator[Markup]:
    """From the initial model through the rounds; the intervals of the result; the seeds, faint."""
    stops = [(1.0, _EVEN), *((stop.length.value, stop.wins.value) for stop in track.rounds)]
    path = "L".join(f"{frame.x(x):.1f} {frame.y(y):.1f}" for x, y in stops)
    yield Markup('<path class="track arm-{}" d="M{}"/>').format(track.look, path)
    last = track.last
    x, y = frame.x(last.length.value), frame.y(last.wins.value)
    if last.length.interval is not None:
        low, high = map(frame.x, last.length.interval)
        yield _line(f"error arm-{track.look}", low, y, high, y)
    if last.wins.interval is not None:
        low, high = map(frame.y, last.wins.interval)
        yield _line(f"error arm-{track.look}", x, low, x, high)
    for seed in track.seeds:
        yield _mark("seed", track.look, frame, seed, 0.8)


def _marks(track: Track, frame: Frame) -> Iterator[Markup]:
    """The rounds with their numbers inside, and a ring around where the arm stands."""
    for stop in track.rounds:
        x, y = frame.x(stop.length.value), frame.y(stop.wins.value)
        yield _mark("mark", track.look, frame, stop, 1.6)
        yield _text("round middle", x, y + 3.6, stop.label)
    yield _mark("last", track.look, frame, track.last, 2.3)


def _mark(kind: str, look: int, frame: Frame, stop: Stop, size: float) -> Markup:
    return Markup(
        '<path class="{} arm-{}" transform="translate({} {}) scale({})" d="{}"><title>{} times, {} %</title></path>'
    ).format(
        kind,
        look,
        f"{frame.x(stop.length.value):.1f}",
        f"{frame.y(stop.wins.value):.1f}",
        size,
        _SHAPES[look],
        fixed(stop.length.value, 2),
        fixed(stop.wins.value, 1),
    )


def _labels(tracks: Sequence[Track], frame: Frame) -> Iterator[Markup]:
    """Names beside the ringed marks, each where it covers least."""
    yield _text("start", frame.x(1.0) + 5, frame.y(_EVEN) + 14, "initial")
    taken = [spot for track in tracks for spot in _spots(track, frame)]
    for track in tracks:
        x, y = frame.x(track.last.length.value), frame.y(track.last.wins.value)
        wide = _CHARACTER * len(track.label)
        places = [(x + shift - wide * share, y + fall, share) for share, shift, fall in _PLACES]
        left, base, share = min(places, key=lambda place: _covered(place[0], place[1], wide, taken, frame))
        taken += [(left + step, base - _LINE / 3) for step in range(0, int(wide), 6)]
        anchor = {0.0: "", 0.5: "middle", 1.0: "end"}[share]
        text = Markup('<text class="name arm-{} {}" x="{}" y="{}">{}</text>')
        yield text.format(track.look, anchor, f"{left + wide * share:.1f}", f"{base:.1f}", track.label)


def _spots(track: Track, frame: Frame) -> Iterator[tuple[float, float]]:
    """Where marks and lines are: every mark twice, and the lines in steps."""
    stops = [(frame.x(stop.length.value), frame.y(stop.wins.value)) for stop in (*track.rounds, *track.seeds)]
    yield from stops * 2
    path = [(frame.x(1.0), frame.y(_EVEN)), *stops[: len(track.rounds)]]
    for (x1, y1), (x2, y2) in pairwise(path):
        steps = max(1, int(hypot(x2 - x1, y2 - y1) / 8))
        yield from ((x1 + (x2 - x1) * step / steps, y1 + (y2 - y1) * step / steps) for step in range(steps))


def _covered(left: float, base: float, wide: float, taken: Sequence[tuple[float, float]], frame: Frame) -> float:
    """How much a name would cover, and by far the worst: how much of it would be outside."""
    outside = max(0.0, frame.left - left) + max(0.0, left + wide - frame.right)
    outside += max(0.0, frame.top + _LINE - base) + max(0.0, base - frame.bottom)
    margin = 6.0
    inside = [
        1
        for x, y in taken
        if left - margin < x < left + wide + margin and base - _LINE - margin / 2 < y < base + margin
    ]
    return 10.0 * outside + len(inside)


def _tick_texts(ticks: Sequence[float]) -> list[str]:
    """All with as many decimals as one of them needs."""
    digits = next((digits for digits in range(4) if all(abs(round(tick, digits) - tick) < 1e-9 for tick in ticks)), 4)
    return [fixed(tick, digits) for tick in ticks]


def _by_round(arm: Arm, name: str, scale: tuple[float, float]) -> Plot:
    initial = Point(0, _EVEN, _EVEN, _EVEN)
    kinds = {
        "truth": [(one.number, one.measured.truth) for one in arm.rounds],
        "controlled": [(one.number, one.measured.controlled) for one in arm.rounds],
        "judge": [(one.number, one.measured.judge) for one in arm.rounds],
    }
    series = [
        Series(kind, kind, ((initial, *(_point(number, wins) for number, wins in found if wins is not None)),))
        for kind, found in kinds.items()
        if any(wins is not None for _, wins in found)
    ]
    return Plot(
        name=name,
        title=arm.label,
        caption="Win rate against the initial model. Bands: 95 % intervals.",
        y_label="win rate, %",
        x_label="round",
        ticks=((0.0, "initial"), *((one.number + 1.0, one.label + ("†" if one.refused else "")) for one in arm.rounds)),
        series=tuple(series),
        at_least=scale,
        levels=(Level(_EVEN, ""),),
        width=340.0,
        height=240.0,
    )


def _point(number: int, wins: Estimate) -> Point:
    low, high = wins.interval or (None, None)
    return Point(number + 1, wins.value, low, high)


def _ends(measured: Measured) -> Iterator[float]:
    for wins in (measured.truth, measured.judge, measured.controlled):
        if wins is not None:
            yield from (wins.value, *(wins.interval or ()))


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return Markup('<path class="{}" d="M{} {}L{} {}"/>').format(
        kind, f"{x1:.1f}", f"{y1:.1f}", f"{x2:.1f}", f"{y2:.1f}"
    )


def _text(kind: str, x: float, y: float, text: str) -> Markup:
    return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(kind, f"{x:.1f}", f"{y:.1f}", escape(text))

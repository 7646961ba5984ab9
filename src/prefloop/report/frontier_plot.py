"""Reward against KL as one SVG file that needs nothing beside it: points with intervals, envelopes, best-of-n."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from prefloop.report.plots import nice_ticks

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 660.0, 420.0, 64.0, 24.0, 470.0, 370.0
COLOURS = ("#1f5fa8", "#b3541e", "#2f7d4f", "#7a3f9d", "#8a6d00", "#a12a5b")
BEST_OF_N = "#666"
_STYLE = (
    "text{font:12px sans-serif;fill:#222}.grid{stroke:#ddd}.interval{stroke-width:1.2;stroke-opacity:.55}"
    ".envelope{fill:none;stroke-width:2}.reference{fill:none;stroke-width:1.5;stroke-dasharray:4 3}"
)

Interval = tuple[float, float] | None


@dataclass(frozen=True)
class FrontierPoint:
    """A policy: its KL and its reward, each with its interval."""

    name: str
    kl: float
    reward: float
    kl_interval: Interval = None
    reward_interval: Interval = None
    on_envelope: bool = True


@dataclass(frozen=True)
class FrontierCurve:
    """A method's points; those on its envelope are joined by rising KL."""

    name: str
    points: Sequence[FrontierPoint]
    is_reference: bool = False
    """Best-of-n, which methods are held against: grey and dashed."""


@dataclass(frozen=True)
class _Scale:
    x_ticks: tuple[float, ...]
    y_ticks: tuple[float, ...]

    def x(self, kl: float) -> float:
        return LEFT + (RIGHT - LEFT) * (kl - self.x_ticks[0]) / (self.x_ticks[-1] - self.x_ticks[0])

    def y(self, reward: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (reward - self.y_ticks[0]) / (self.y_ticks[-1] - self.y_ticks[0])


def frontier_plot(curves: Sequence[FrontierCurve], reward: str) -> str:
    """An SVG document.

    Args:
        curves: In the order of the legend.
        reward: What the y axis is.

    Raises:
        ValueError: there is no point.
    """
    points = [point for curve in curves for point in curve.points]
    if not points:
        raise ValueError("there is nothing to plot")
    kls = [end for point in points for end in (point.kl, *(point.kl_interval or ()))]
    rewards = [end for point in points for end in (point.reward, *(point.reward_interval or ()))]
    scale = _Scale(nice_ticks(min(0.0, *kls), max(kls)), nice_ticks(min(rewards), max(rewards)))
    parts = [*_axes(scale, reward)]
    colours = iter(COLOURS * (1 + len(curves) // len(COLOURS)))
    for number, curve in enumerate(curves):
        colour = BEST_OF_N if curve.is_reference else next(colours)
        parts += [*_curve(curve, scale, colour), *_legend(curve.name, number, colour)]
    head = Markup('<svg xmlns="http://www.w3.org/2000/svg" role="img" {}><title>{}</title><style>{}</style>').format(
        Markup('width="{0:.0f}" height="{1:.0f}" viewBox="0 0 {0:.0f} {1:.0f}"').format(WIDTH, HEIGHT),
        f"{reward} against KL",
        Markup(_STYLE),
    )
    return str(head + Markup("\n").join(parts) + Markup("</svg>\n"))


def _axes(scale: _Scale, reward: str) -> Iterator[Markup]:
    for tick in scale.x_ticks:
        yield _line("grid", scale.x(tick), TOP, scale.x(tick), BOTTOM)
        yield _text(scale.x(tick), BOTTOM + 16, f"{tick:g}", "middle")
    for tick in scale.y_ticks:
        yield _line("grid", LEFT, scale.y(tick), RIGHT, scale.y(tick))
        yield _text(LEFT - 8, scale.y(tick) + 4, f"{tick:g}", "end")
    yield _text((LEFT + RIGHT) / 2, BOTTOM + 36, "KL from the reference, nats", "middle")
    yield _text(4, TOP - 8, reward, "start")


def _curve(curve: FrontierCurve, scale: _Scale, colour: str) -> Iterator[Markup]:
    joined = sorted((point.kl, point.reward) for point in curve.points if point.on_envelope)
    path = " ".join(f"{scale.x(kl):.1f},{scale.y(reward):.1f}" for kl, reward in joined)
    kind = "reference" if curve.is_reference else "envelope"
    yield Markup('<polyline class="{}" stroke="{}" points="{}"/>').format(kind, colour, path)
    for point in curve.points:
        x, y = scale.x(point.kl), scale.y(point.reward)
        if point.kl_interval is not None:
            yield _line("interval", *(scale.x(point.kl_interval[0]), y, scale.x(point.kl_interval[1]), y), colour)
        if point.reward_interval is not None:
            low, high = map(scale.y, point.reward_interval)
            yield _line("interval", x, low, x, high, colour)
        said = f"{curve.name}, {point.name}: {point.kl:.3f} nats, {point.reward:.3f}"
        yield Markup('<circle cx="{:.1f}" cy="{:.1f}" r="4" stroke="{}" fill="{}"><title>{}</title></circle>').format(
            x, y, colour, colour if point.on_envelope else "#fff", escape(said)
        )


def _legend(name: str, number: int, colour: str) -> Iterator[Markup]:
    y = TOP + 18 * number
    yield Markup('<circle cx="{:.1f}" cy="{:.1f}" r="4" fill="{}"/>').format(RIGHT + 18, y, colour)
    yield _text(RIGHT + 28, y + 4, name, "start")


def _line(kind: str, x1: float, y1: float, x2: float, y2: float, colour: str | None = None) -> Markup:
    stroke = Markup("") if colour is None else Markup(' stroke="{}"').format(colour)
    form = '<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"{}/>'
    return Markup(form).format(kind, x1, y1, x2, y2, stroke)


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, escape(text))

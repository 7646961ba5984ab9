"""Named values with their intervals as one SVG file that needs nothing beside it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from prefloop.report.plots import nice_ticks

_ROW, _TOP, _BOTTOM, _WIDTH, _CHARACTER = 26.0, 34.0, 40.0, 420.0, 7.4
_STYLE = (
    "text{font:12px sans-serif;fill:#222}.grid{stroke:#ddd}.at{stroke:#888;stroke-dasharray:4 3}"
    ".interval{stroke:#1f5fa8;stroke-width:2}circle{fill:#1f5fa8}"
)


@dataclass(frozen=True)
class NamedValue:
    """A value with its interval, where it has one."""

    name: str
    value: float
    interval: tuple[float, float] | None = None


def interval_plot(rows: Sequence[NamedValue], axis: str, *, reference: float | None = None) -> str:
    """An SVG document: a line a row, its value as a dot and its interval as a bar.

    Args:
        rows: From top to bottom.
        axis: What the values are, written below them.
        reference: A value that is marked by a dashed line, such as 50 %.

    Raises:
        ValueError: there is no row.
    """
    if not rows:
        raise ValueError("there is nothing to plot")
    ends = [end for row in rows for end in (row.value, *(row.interval or ()))]
    ticks = nice_ticks(min(ends), max(ends)) if max(ends) > min(ends) else (ends[0] - 1.0, ends[0], ends[0] + 1.0)
    low, high = min(ticks[0], *ends), max(ticks[-1], *ends)
    left = 16 + _CHARACTER * max(len(row.name) for row in rows)
    bottom = _TOP + _ROW * len(rows)

    def at(value: float) -> float:
        return left + _WIDTH * (value - low) / (high - low)

    parts = [*_axis(ticks, at=[at(tick) for tick in ticks], bottom=bottom)]
    if reference is not None and low <= reference <= high:
        parts.append(_line("at", at(reference), _TOP, at(reference), bottom))
    for number, row in enumerate(rows):
        y = _TOP + _ROW * (number + 0.5)
        parts.append(_text(left - 8, y + 4, row.name, "end"))
        if row.interval is not None:
            parts.append(_line("interval", at(row.interval[0]), y, at(row.interval[1]), y))
        said = f"{row.name}: {row.value:.2f}" + (
            f" [{row.interval[0]:.2f}, {row.interval[1]:.2f}]" if row.interval is not None else ""
        )
        dot = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="4"><title>{}</title></circle>').format(at(row.value), y, said)
        parts.append(dot)
    parts.append(_text(left + _WIDTH / 2, bottom + 34, axis, "middle"))
    size = Markup('width="{0:.0f}" height="{1:.0f}" viewBox="0 0 {0:.0f} {1:.0f}"').format(
        left + _WIDTH + 40, bottom + _BOTTOM + 4
    )
    head = Markup('<svg xmlns="http://www.w3.org/2000/svg" role="img" {}><title>{}</title><style>{}</style>')
    return str(head.format(size, axis, Markup(_STYLE)) + Markup("\n").join(parts) + Markup("</svg>\n"))


def _axis(ticks: Sequence[float], *, at: Sequence[float], bottom: float) -> Iterator[Markup]:
    for tick, x in zip(ticks, at, strict=True):
        yield _line("grid", x, _TOP, x, bottom)
        yield _text(x, bottom + 16, f"{tick:g}", "middle")


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    form = '<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>'
    return Markup(form).format(kind, x1, y1, x2, y2)


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, escape(text))

"""The plot of named values: where dots and bars stand."""

from xml.etree import ElementTree

import pytest

from prefloop.report import NamedValue, interval_plot

SVG = "{http://www.w3.org/2000/svg}"


def test_dots_and_bars_stand_where_their_values_are() -> None:
    rows = [NamedValue("a", 25.0, (0.0, 50.0)), NamedValue("b <c>", 100.0)]
    root = ElementTree.fromstring(interval_plot(rows, "percent", reference=50.0))
    dots = [float(dot.attrib["cx"]) for dot in root.iter(f"{SVG}circle")]
    lines = {
        kind: [line.attrib for line in root.iter(f"{SVG}line") if line.attrib["class"] == kind]
        for kind in ("interval", "at")
    }
    (bar,), (middle,) = lines["interval"], lines["at"]
    left, right = float(bar["x1"]), float(bar["x2"])
    assert dots[0] == pytest.approx((left + right) / 2, abs=0.1)
    assert dots[1] - left == pytest.approx(2 * (right - left), abs=0.2)
    assert float(middle["x1"]) == right
    assert "b <c>" in [text.text for text in root.iter(f"{SVG}text")]


def test_a_single_value_without_interval_is_drawn() -> None:
    root = ElementTree.fromstring(interval_plot([NamedValue("a", 3.0)], "rating", reference=50.0))
    assert len(list(root.iter(f"{SVG}circle"))) == 1
    assert not [line for line in root.iter(f"{SVG}line") if line.attrib["class"] in {"interval", "at"}]


def test_nothing_cannot_be_plotted() -> None:
    with pytest.raises(ValueError, match="nothing to plot"):
        interval_plot([], "percent")

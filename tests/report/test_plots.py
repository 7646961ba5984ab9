from xml.etree import ElementTree

import pytest

from prefloop.report.plots import Level, Plot, Point, Series, described, nice_ticks, spread, svg


def plot(*points: Point, levels: tuple[Level, ...] = ()) -> Plot:
    ticks = tuple((point.x, f"{point.x:.0f}") for point in points)
    return Plot("p", "Title", "", "unit", "round", ticks, (Series("judge", "judge", (points,)),), levels=levels)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 100, (0, 20, 40, 60, 80, 100)),
        (0.49, 0.71, (0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75)),
        (-58, -41, (-60, -55, -50, -45, -40)),
        (3, 3, (1, 2, 3, 4, 5)),
        (0, 0, (-0.6, -0.4, -0.2, 0, 0.2, 0.4, 0.6)),
    ],
)
def test_ticks_are_round_numbers_that_cover_the_range(low: float, high: float, ticks: tuple[float, ...]) -> None:
    assert nice_ticks(low, high) == pytest.approx(ticks)


def test_labels_keep_their_distance_and_their_order() -> None:
    assert spread([50, 10, 12], gap=13, low=0, high=100) == (50, 10, 23)
    assert spread([100, 98], gap=13, low=0, high=100) == (100, 87)


def test_a_point_lies_where_its_value_says() -> None:
    root = ElementTree.fromstring(svg(plot(Point(0, 0), Point(1, 100))))
    axis = next(path for path in root.iter("path") if path.get("class") == "axis")
    curve = next(path for path in root.iter("path") if path.get("class") == "curve judge")
    bottom = float(axis.attrib["d"].split()[-1])
    start, end = (tuple(map(float, corner.split())) for corner in curve.attrib["d"][1:].split("L"))
    assert start[1] == bottom  # 0 is the lowest tick
    assert end == (pytest.approx(end[0]), 26.0)  # 100 the highest


def test_a_band_needs_an_interval() -> None:
    with_ends = svg(plot(Point(0, 50, 50, 50), Point(1, 60, 55, 65)))
    assert with_ends.count('class="band') == 1
    assert with_ends.count('class="whisker') == 1
    assert 'class="band' not in svg(plot(Point(0, 50), Point(1, 60)))


def test_the_description_says_every_value() -> None:
    text = described(plot(Point(0, 50), Point(1, 60, 55.5, 65), levels=(Level(50, "initial"),)))
    assert text == "initial: 50. judge: 0: 50, 1: 60 (55.5 to 65)."


def test_text_is_escaped() -> None:
    hostile = Plot('"><x>', "<b>&", "", "<u>", "<r>", ((0, "<t>"),), (Series("<s>", "judge", ((Point(0, 1),),)),))
    root = ElementTree.fromstring(svg(hostile))
    assert root.get("aria-labelledby") == '"><x>-title "><x>-text'
    assert "<s> 1" in [text.text for text in root.iter("text")]


@pytest.mark.parametrize(
    ("rounds", "shown"), [(4, ["0", "1", "2", "3"]), (100, [str(ten) for ten in range(0, 100, 10)])]
)
def test_tick_labels_never_touch(rounds: int, shown: list[str]) -> None:
    root = ElementTree.fromstring(svg(plot(*(Point(number, 50) for number in range(rounds)))))
    assert [text.text for text in root.iter("text") if text.get("class") == "tick middle"] == shown

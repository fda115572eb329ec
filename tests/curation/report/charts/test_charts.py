"""Charts: well-formed whatever they are given, escaped, and within their frame."""

import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.report.charts.bars import Bar, Group, Part, bars, stacked_bar
from curation.report.charts.frame import PLOT_PX, Axis, Label, Mark, draw_labels
from curation.report.charts.histogram import Bins, Series, histogram
from curation.report.charts.lines import Line, Point, line_chart
from curation.report.charts.scale import linear, logarithmic

FINITE = st.floats(-1e9, 1e9, allow_subnormal=False)
ABOVE_ZERO = st.floats(1e-3, 1e9)


def percents(svg: str, tag: str, attribute: str) -> list[float]:
    root = ElementTree.fromstring(svg)
    return [float(e.attrib[attribute].rstrip("%")) for e in root.iter(tag) if e.attrib.get(attribute, "").endswith("%")]


def points_of(svg: str) -> list[tuple[float, float]]:
    (curve,) = ElementTree.fromstring(svg).iter("polyline")
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in curve.attrib["points"].split())]


def test_labels_are_escaped() -> None:
    svg = str(bars("<b>", [Group("<i>", (Bar("<script>", 0.5, "&", "a"),))]))
    assert "<script>" not in svg
    assert "<i>" not in svg
    assert ElementTree.fromstring(svg)[0].text == "<b>"


@given(st.lists(st.lists(st.floats(-5, 5), max_size=4), max_size=4))
def test_bars_stay_within_the_frame(groups: list[list[float]]) -> None:
    made = [Group(str(i), tuple(Bar("x", length, "1") for length in lengths)) for i, lengths in enumerate(groups)]
    svg = str(bars("bars", made))
    assert all(0 <= width <= 100 for width in percents(svg, "rect", "width"))
    height = float(ElementTree.fromstring(svg).attrib["height"])
    assert all(float(e.attrib["y"]) <= height for e in ElementTree.fromstring(svg).iter("rect"))


@given(st.lists(st.floats(0, 1e6), max_size=6))
def test_parts_fill_the_whole_and_no_more(values: list[float]) -> None:
    svg = str(stacked_bar("parts", [Part(str(i), value, "", "a") for i, value in enumerate(values)]))
    assert sum(percents(svg, "rect", "width")) <= 100.01


@given(st.lists(st.lists(st.floats(0, 1), min_size=7, max_size=7), min_size=1, max_size=3), st.integers(1, 500))
def test_histograms_are_well_formed(shares: list[list[float]], width: int) -> None:
    series = [Series("x", one, "a") for one in shares]
    svg = str(histogram("h", series, Bins(width, "words"), "share", [Mark(77, "77"), Mark(120, "120")]))
    assert all(0 <= x <= 100 for x in percents(svg, "line", "x1"))
    assert "nan" not in svg


def test_a_bin_tells_what_it_holds() -> None:
    words, shares = Bins(10, "words"), Bins(0.02, "share", whole=False)
    assert (words.span(0, 3), words.span(2, 3)) == ("0 to 9", "20 and more")
    assert shares.span(1, 3) == "0.02 to under 0.04"
    assert Bins(1, "words").span(4, 9) == "4"


@given(st.lists(FINITE, min_size=2, max_size=30), st.booleans())
def test_curves_stay_within_the_frame(ys: list[float], from_zero: bool) -> None:
    points = [(float(i), abs(y) if from_zero else y) for i, y in enumerate(ys)]
    x, y = linear([p[0] for p in points]), linear([p[1] for p in points], from_zero=from_zero)
    svg = str(line_chart("l", [Line("x", points, "a")], Axis(x, "step"), Axis(y, "loss")))
    assert all(-0.1 <= x <= 1000.1 and -0.1 <= y <= 1000.1 for x, y in points_of(svg))


@given(st.lists(ABOVE_ZERO, min_size=2, max_size=30))
def test_curves_on_logarithmic_axes_stay_within_the_frame(ys: list[float]) -> None:
    points = [(i + 1.0, y) for i, y in enumerate(ys)]
    x, y = logarithmic([p[0] for p in points]), logarithmic(ys)
    svg = str(
        line_chart("l", [Line("x", points, "a")], Axis(x, "rank"), Axis(y, "n"), [Point("p", 1.0, ys[0], "told")])
    )
    assert all(-0.1 <= x <= 1000.1 and -0.1 <= y <= 1000.1 for x, y in points_of(svg))
    assert "told" in svg


@pytest.mark.parametrize("mark", [77, 120])
def test_a_mark_lies_at_its_value(mark: int) -> None:
    svg = str(histogram("h", [Series("x", [0.5, 0.5], "a")], Bins(100, "tokens"), "share", [Mark(mark, str(mark))]))
    (line,) = [e for e in ElementTree.fromstring(svg).iter("line") if e.attrib["class"] == "mark"]
    assert float(line.attrib["x1"].rstrip("%")) == pytest.approx(mark / 2)


@given(st.lists(st.floats(0, PLOT_PX), max_size=8))
def test_labels_never_lie_on_one_another(heights: list[float]) -> None:
    svg = f"<svg>{draw_labels([Label(1, y, 'x', 'a') for y in heights])}</svg>"
    places = [float(e.attrib["y"]) for e in ElementTree.fromstring(svg)]
    assert all(b - a >= 14.8 for a, b in pairwise(places))

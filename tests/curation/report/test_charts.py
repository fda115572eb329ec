"""Charts: well-formed whatever they are given, escaped, and within their frame."""

import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.report.charts import Bar, Line, Part, Series, bars, histogram, line_chart, stacked_bar

FINITE = st.floats(-1e9, 1e9, allow_subnormal=False)


def percents(svg: str, tag: str, attribute: str) -> list[float]:
    root = ElementTree.fromstring(svg)
    return [float(e.attrib[attribute].rstrip("%")) for e in root.iter(tag) if e.attrib.get(attribute, "").endswith("%")]


def test_labels_are_escaped() -> None:
    svg = str(bars("<b>", [Bar("<script>", 0.5, "&", "a")]))
    assert "<script>" not in svg
    assert ElementTree.fromstring(svg)[0].text == "<b>"


@given(st.lists(st.floats(-5, 5), max_size=5))
def test_bars_stay_within_the_frame(lengths: list[float]) -> None:
    svg = str(bars("bars", [Bar(str(i), length, "1") for i, length in enumerate(lengths)]))
    assert all(0 <= width <= 100 for width in percents(svg, "rect", "width"))


@given(st.lists(st.floats(0, 1e6), max_size=6))
def test_parts_fill_the_whole_and_no_more(values: list[float]) -> None:
    svg = str(stacked_bar("parts", [Part(str(i), value, "", "a") for i, value in enumerate(values)]))
    assert sum(percents(svg, "rect", "width")) <= 100.01


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.integers(1, 500))
def test_histograms_are_well_formed(shares: list[float], width: int) -> None:
    svg = str(histogram("h", [Series("x", shares, "a")], width, "words", "share", (77, 120)))
    assert all(0 <= x <= 100 for x in percents(svg, "line", "x1"))
    assert "nan" not in svg


@given(st.lists(FINITE, min_size=1, max_size=30), st.booleans())
def test_curves_stay_within_the_frame(ys: list[float], from_zero: bool) -> None:
    points = [(float(i), abs(y) if from_zero else y) for i, y in enumerate(ys)]
    svg = str(line_chart("l", [Line("x", points, "a")], "step", "loss", from_zero=from_zero))
    (curve,) = ElementTree.fromstring(svg).iter("polyline")
    pairs = [pair.split(",") for pair in curve.attrib["points"].split()]
    assert all(-0.1 <= float(x) <= 1000.1 and -0.1 <= float(y) <= 1000.1 for x, y in pairs)


@pytest.mark.parametrize("mark", [77, 120])
def test_a_mark_lies_at_its_value(mark: int) -> None:
    svg = str(histogram("h", [Series("x", [0.5, 0.5], "a")], 100, "tokens", "share", (mark,)))
    (line,) = [e for e in ElementTree.fromstring(svg).iter("line") if e.attrib["class"] == "mark"]
    assert float(line.attrib["x1"].rstrip("%")) == pytest.approx(mark / 2)

"""Charts as inline SVG that keep their text size at any width.

Horizontal places are per cents of the width, so only the marks stretch with the page, never the words; curves lie in a
nested SVG without a fixed aspect ratio. Colours come from the page's style sheet by class (`tone-a`, `tone-b`, ...).
"""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup, escape

TONES: Final = ("a", "b", "c", "d", "e", "g", "h", "f")  # f, a grey, is for the rest
_ROW_PX: Final = 28
_BAR_PX: Final = 24
_PLOT_PX: Final = 200
_LABEL_CHARACTERS: Final = 34


@dataclass(frozen=True, slots=True)
class Bar:
    """One horizontal bar: `length` in 0..1 of the width, `text` the value as words."""

    label: str
    length: float
    text: str
    tone: str = "a"


@dataclass(frozen=True, slots=True)
class Series:
    """One histogram: the share of rows in each bin."""

    name: str
    shares: Sequence[float]
    tone: str


@dataclass(frozen=True, slots=True)
class Line:
    """One curve through (x, y) points, x ascending. A `faint` one is the background of another."""

    name: str
    points: Sequence[tuple[float, float]]
    tone: str
    faint: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a whole."""

    label: str
    value: float
    text: str
    tone: str


def bars(title: str, rows: Sequence[Bar]) -> Markup:
    """Horizontal bars, each with its label on it and its value at the right."""
    out = []
    for i, row in enumerate(rows):
        y, middle = i * _ROW_PX, i * _ROW_PX + _BAR_PX / 2
        width = 100 * min(max(row.length, 0.0), 1.0)
        out.append(
            f'<g><title>{escape(row.label)}: {escape(row.text)}</title><rect class="track" x="0" y="{y}" width="100%" '
            f'height="{_BAR_PX}" rx="3"/><rect class="bar tone-{row.tone}" x="0" y="{y}" width="{width:.2f}%" '
            f'height="{_BAR_PX}" rx="3"/><text class="label" x="9" y="{middle}" dy=".35em">{_short(row.label)}</text>'
            f'<text class="value" x="100%" dx="-9" y="{middle}" dy=".35em">{escape(row.text)}</text></g>'
        )
    height = max(len(rows) * _ROW_PX - (_ROW_PX - _BAR_PX), 1)
    return _svg(title, "bars", height, "".join(out))


def stacked_bar(title: str, parts: Sequence[Part]) -> Markup:
    """One bar split by value."""
    total = sum(part.value for part in parts) or 1.0
    out, start = [], 0.0
    for part in parts:
        width = 100 * part.value / total
        out.append(
            f'<rect class="part tone-{part.tone}" x="{start:.3f}%" y="0" width="{width:.3f}%" height="22">'
            f"<title>{escape(part.label)}: {escape(part.text)}</title></rect>"
        )
        start += width
    return _svg(title, "stack", 22, "".join(out))


def histogram(
    title: str, series: Sequence[Series], width: int, x_label: str, y_label: str, marks: Sequence[int] = ()
) -> Markup:
    """Histograms over one another. `width` is the values a bin takes; the last bin takes all above; `marks` are values
    to draw a line at."""
    bins = len(series[0].shares)
    top = _top(max((share for one in series for share in one.shares), default=0.0))
    inner = "".join(_steps(one, bins, top) for one in series)
    over = _hover(series, bins, width) + "".join(_mark(100 * value / (bins * width), str(value)) for value in marks)
    x_ticks = [(100 * v / (bins * width), f"{v:g}") for v in _ticks(0, (bins - 1) * width, 5)]
    y_ticks = [(v, f"{v:.3g}" if v < 0.01 else f"{100 * v:.3g}%") for v in _ticks(0, top, 4)]
    return _plot(title, inner, over, x_ticks, y_ticks, (0, top), x_label, y_label)


def line_chart(
    title: str,
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    *,
    from_zero: bool = False,
    tell: Callable[[float], str] = lambda v: f"{v:g}",
) -> Markup:
    """Curves over one another, on linear axes that fit them (y from zero if asked). `tell` spells values of x."""
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    left, right = _span(min(xs), max(xs))
    bottom, top = _span(0.0 if from_zero else min(ys), max(ys))
    if not from_zero:
        bottom -= 0.04 * (top - bottom)
    top += 0.04 * (top - bottom)
    inner = ""
    for line in lines:
        points = " ".join(
            f"{1000 * (x - left) / (right - left):.1f},{1000 * (top - y) / (top - bottom):.1f}" for x, y in line.points
        )
        faint = " faint" if line.faint else ""
        inner += f'<polyline class="curve tone-{line.tone}{faint}" points="{points}"/>'
    x_ticks = [(100 * (v - left) / (right - left), tell(v)) for v in _ticks(left, right, 5)]
    y_ticks = [(v, f"{v:g}") for v in _ticks(bottom, top, 4)]
    return _plot(title, inner, "", x_ticks, y_ticks, (bottom, top), x_label, y_label)


def _plot(
    title: str,
    inner: str,
    over: str,
    x_ticks: Sequence[tuple[float, str]],
    y_ticks: Sequence[tuple[float, str]],
    y_range: tuple[float, float],
    x_label: str,
    y_label: str,
) -> Markup:
    """Axes around `inner` (in a 1000 × 1000 box) and `over` (in per cents)."""
    bottom, top = y_range
    grid = ""
    for value, text in y_ticks:
        y = _PLOT_PX * (top - value) / (top - bottom)
        grid += (
            f'<line class="grid" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" x="-8" y="{y:.1f}" dy=".35em" text-anchor="end">{escape(text)}</text>'
        )
    for x, text in x_ticks:
        grid += (
            f'<line class="axis" x1="{x:.2f}%" x2="{x:.2f}%" y1="{_PLOT_PX}" y2="{_PLOT_PX + 5}"/>'
            f'<text class="tick" x="{x:.2f}%" y="{_PLOT_PX + 18}" text-anchor="middle">{escape(text)}</text>'
        )
    body = (
        f'<text class="axis-label" x="-40" y="-14">{escape(y_label)}</text>{grid}'
        f'<svg x="0" y="0" width="100%" height="{_PLOT_PX}" viewBox="0 0 1000 1000" preserveAspectRatio="none">'
        f'{inner}</svg><line class="axis" x1="0" x2="100%" y1="{_PLOT_PX}" y2="{_PLOT_PX}"/>{over}'
        f'<text class="axis-label" x="100%" y="{_PLOT_PX + 36}" text-anchor="end">{escape(x_label)}</text>'
    )
    return _svg(title, "plot", _PLOT_PX + 42, body)


def _steps(series: Series, bins: int, top: float) -> str:
    points, last = ["0,1000"], 0.0
    for i, share in enumerate(series.shares):
        y = 1000 * (1 - share / top)
        points += [f"{1000 * i / bins:.1f},{y:.1f}", f"{1000 * (i + 1) / bins:.1f},{y:.1f}"]
        last = 1000 * (i + 1) / bins
    return f'<polygon class="area tone-{series.tone}" points="{" ".join(points)} {last:.1f},1000"/>'


def _hover(series: Sequence[Series], bins: int, width: int) -> str:
    """What a pointer finds over each bin."""
    out = ""
    for i in range(bins):
        first, last = i * width, (i + 1) * width - 1
        span = f"{first} and more" if i == bins - 1 else str(first) if width == 1 else f"{first} to {last}"
        told = "; ".join(f"{one.name} {one.shares[i]:.1%}" for one in series)
        out += (
            f'<rect class="hover" x="{100 * i / bins:.2f}%" y="0" width="{100 / bins:.2f}%" height="{_PLOT_PX}">'
            f"<title>{escape(span)}: {escape(told)}</title></rect>"
        )
    return out


def _mark(x: float, text: str) -> str:
    if not 0 <= x <= 100:
        return ""
    return (
        f'<line class="mark" x1="{x:.2f}%" x2="{x:.2f}%" y1="0" y2="{_PLOT_PX}"/>'
        f'<text class="mark-label" x="{x:.2f}%" y="-3" text-anchor="middle">{escape(text)}</text>'
    )


def _svg(title: str, kind: str, height: float, body: str) -> Markup:
    return Markup(
        f'<svg class="chart {kind}" role="img" height="{height:g}"><title>{escape(title)}</title>{body}</svg>'
    )


def _short(label: str) -> Markup:
    return escape(label if len(label) <= _LABEL_CHARACTERS else label[: _LABEL_CHARACTERS - 1] + "…")


def _span(low: float, high: float) -> tuple[float, float]:
    """`low` and `high`, apart by something even where they are equal."""
    return (low, high) if high > low else (low - abs(low) * 0.5 - 0.5, high + abs(high) * 0.5 + 0.5)


def _top(value: float) -> float:
    """A little above `value`, for the upper end of an axis from zero."""
    return value * 1.08 if value > 0 else 1.0


def _ticks(low: float, high: float, about: int) -> list[float]:
    """Round values in [low, high], about as many as asked for: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / about
    if rough < sys.float_info.min:  # nothing between them that a label could tell apart
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.7)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) + 0.0 for i in range(first, last + 1)]

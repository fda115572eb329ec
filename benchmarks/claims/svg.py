"""Two small charts as SVG: curves over steps, and dots by group. Colours that are read on white and on dark grounds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

COLOURS: Final = ("#3b7dd8", "#d8703b", "#3a9d5d", "#a257c4", "#8a7a2e", "#2f9aa6", "#c4567f")
_WIDTH: Final = 760
_LEFT: Final = 64
_RIGHT: Final = 190  # room for names
_TOP: Final = 34
_BOTTOM: Final = 44
_TEXT: Final = 'font-family="sans-serif" font-size="13" fill="#808080"'


@dataclass(frozen=True, slots=True)
class Series:
    """A name, and the same curve or value once for each seed."""

    name: str
    curves: tuple[tuple[tuple[float, float], ...], ...]


def curves(title: str, x_label: str, series: Sequence[Series], height: int = 340) -> str:
    """Each seed a thin line, their mean a thick one; y from the least value to the most."""
    points = [point for one in series for curve in one.curves for point in curve]
    x_most = max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points) + 1e-9  # one look alone has no height
    plot_w, plot_h = _WIDTH - _LEFT - _RIGHT, height - _TOP - _BOTTOM

    def place(x: float, y: float) -> str:
        return f"{_LEFT + plot_w * x / x_most:.1f},{_TOP + plot_h * (high - y) / (high - low):.1f}"

    body, ends = [], []
    for colour, one in zip(COLOURS[: len(series)], series, strict=True):
        for curve in one.curves:
            body.append(_line([place(*point) for point in curve], colour, 0.8, 0.45))
        shortest = min(len(curve) for curve in one.curves)
        mean = [(one.curves[0][i][0], sum(c[i][1] for c in one.curves) / len(one.curves)) for i in range(shortest)]
        body.append(_line([place(*point) for point in mean], colour, 2.4, 1))
        ends.append((float(place(*mean[-1]).partition(",")[2]), one.name, colour))
    body += _names(ends)
    for share in (0, 0.25, 0.5, 0.75, 1):
        value, y = high - share * (high - low), _TOP + plot_h * share
        body.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" {_TEXT}>{value:.2f}</text>')
        body.append(f'<path d="M{_LEFT} {y:.1f}h{plot_w}" stroke="#80808040"/>')
        x = _LEFT + plot_w * share
        at = f'x="{x:.1f}" y="{height - 22}" text-anchor="middle"'
        body.append(f"<text {at} {_TEXT}>{x_most * share:,.0f}</text>")
    body.append(
        f'<text x="{_LEFT + plot_w / 2}" y="{height - 5}" text-anchor="middle" {_TEXT}>{escape(x_label)}</text>'
    )
    return _svg(title, height, body)


def dots(title: str, rows: Sequence[tuple[str, Sequence[float]]], chance: float | None, most: float = 1.0) -> str:
    """A row for each name, a dot for each seed, a bar at their mean; a line where chance is. From 0 to `most`."""
    step, left = 26, 190
    plot_w, height = _WIDTH - left - 70, _TOP + step * len(rows) + _BOTTOM
    body = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        x = left + plot_w * share
        body.append(f'<path d="M{x:.1f} {_TOP}v{step * len(rows)}" stroke="#80808040"/>')
        at = f'x="{x:.1f}" y="{height - 24}" text-anchor="middle"'
        body.append(f"<text {at} {_TEXT}>{100 * most * share:.0f} %</text>")
    if chance is not None:
        x = left + plot_w * chance / most
        body.append(f'<path d="M{x:.1f} {_TOP}v{step * len(rows)}" stroke="#808080" stroke-dasharray="4 3"/>')
        body.append(f'<text x="{x:.1f}" y="{height - 6}" text-anchor="middle" {_TEXT}>by chance</text>')
    for number, (name, values) in enumerate(rows):
        y, colour = _TOP + step * (number + 0.5), COLOURS[number % len(COLOURS)]
        body.append(f'<text x="{left - 10}" y="{y + 4:.1f}" text-anchor="end" {_TEXT}>{escape(name)}</text>')
        places = [left + plot_w * value / most for value in values]
        mean = sum(places) / len(places)
        body.append(f'<path d="M{mean:.1f} {y - 8:.1f}v16" stroke="{colour}" stroke-width="3"/>')
        body += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}" fill-opacity="0.6"/>' for x in places]
    return _svg(title, height, body)


def _names(ends: Sequence[tuple[float, str, str]]) -> list[str]:
    """Names at the ends of curves, from the lowest up, never over one another."""
    out, last = list[str](), math.inf
    for y, name, colour in sorted(ends, reverse=True):
        last = min(y, last - 16)
        x = _WIDTH - _RIGHT + 8
        out.append(
            f'<text x="{x}" y="{last + 4:.1f}" font-family="sans-serif" font-size="13" fill="{colour}">{name}</text>'
        )
    return out


def _line(places: Sequence[str], colour: str, width: float, opacity: float) -> str:
    style = f'fill="none" stroke="{colour}" stroke-width="{width}" stroke-opacity="{opacity}"'
    return f'<polyline points="{" ".join(places)}" {style}/>'


def _svg(title: str, height: int, body: Sequence[str]) -> str:
    head = f'<text x="8" y="18" {_TEXT} font-weight="bold">{escape(title)}</text>'
    box = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box}>\n' + "\n".join([head, *body]) + "\n</svg>\n"

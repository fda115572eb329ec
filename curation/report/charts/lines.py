"""Curves and points over one another, on linear or logarithmic axes."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from curation.report.charts.frame import PLOT_PX, Axis, Label, Mark, draw_labels, plot


@dataclass(frozen=True, slots=True)
class Line:
    """One curve through (x, y) points, x ascending. A `faint` one is the background of another, a `dashed` one its
    companion; neither is labelled."""

    name: str
    points: Sequence[tuple[float, float]]
    tone: str
    faint: bool = False
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Point:
    """A value of others to compare with, such as the paper's; labelled, told in full when pointed at."""

    name: str
    x: float
    y: float
    told: str


def line_chart(
    title: str, lines: Sequence[Line], x: Axis, y: Axis, points: Sequence[Point] = (), marks: Sequence[Mark] = ()
) -> Markup:
    """The chart. Logarithmic axes need points above zero."""
    inner = "".join(_curve(line, x, y) for line in lines)
    over = "".join(_pointers(line, x, y) for line in lines if not line.faint)
    over += "".join(_point(point, x, y) for point in points)
    named = [line for line in lines if line.points and not line.faint and not line.dashed]
    labels = [_end_label(line, x, y) for line in named] if len(named) > 1 else []
    return plot(title, x, y, inner, over + draw_labels([*labels, *(_beside(p, x, y) for p in points)]), marks)


def _curve(line: Line, x: Axis, y: Axis) -> str:
    if len(line.points) == 1:
        return ""
    points = " ".join(f"{1000 * x.scale.place(u):.1f},{1000 * (1 - y.scale.place(v)):.1f}" for u, v in line.points)
    kind = " faint" if line.faint else " dashed" if line.dashed else ""
    return f'<polyline class="curve tone-{line.tone}{kind}" points="{points}"/>'


def _pointers(line: Line, x: Axis, y: Axis) -> str:
    """A dot at each of a few points, for a pointer to find its value."""
    if len(line.points) > 64:
        return ""
    alone = len(line.points) == 1
    return "".join(
        f'<circle class="{"dot" if alone else "find"} tone-{line.tone}" cx="{100 * x.scale.place(u):.2f}%" '
        f'cy="{PLOT_PX * (1 - y.scale.place(v)):.1f}" r="4"><title>{escape(line.name)}: '
        f"{escape(x.label)} {escape(x.spell(u))}, {escape(y.label)} {escape(y.spell(v))}</title></circle>"
        for u, v in line.points
    )


def _point(point: Point, x: Axis, y: Axis) -> str:
    return (
        f'<circle class="other-point" cx="{100 * x.scale.place(point.x):.2f}%" '
        f'cy="{PLOT_PX * (1 - y.scale.place(point.y)):.1f}" r="4.5"><title>{escape(point.told)}</title></circle>'
    )


def _beside(point: Point, x: Axis, y: Axis) -> Label:
    """The name of a point, just left of it: the paper's points lie at the right end."""
    at = x.scale.place(point.x)
    shift = -0.02 if at > 0.66 else 0.02
    return Label(at + shift, PLOT_PX * (1 - y.scale.place(point.y)) + 4, point.name, "other")


def _end_label(line: Line, x: Axis, y: Axis) -> Label:
    u, v = line.points[-1]
    return Label(x.scale.place(u), PLOT_PX * (1 - y.scale.place(v)) - 7, line.name, line.tone)

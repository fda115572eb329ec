"""What all charts share: the SVG element, axes around a plot, labels that keep out of each other's way.

Horizontal places are per cents of the width, so only the marks stretch with the page, never the words; curves lie in a
nested SVG of 1000 × 1000 without a fixed aspect ratio. Colours come from the page's style sheet by class (`tone-a`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup, escape

from curation.report.charts.scale import Scale, spell_short

TONES: Final = ("a", "b", "c", "d", "e", "g", "h", "f")
"""Colours by name, in the order they are taken; f, a grey, is for the rest."""

PLOT_PX: Final = 210
_LABEL_PX: Final = 15


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale, what it measures with the unit, and how its values are spelt."""

    scale: Scale
    label: str
    spell: Callable[[float], str] = spell_short


@dataclass(frozen=True, slots=True)
class Mark:
    """A value of x to draw a line at, and what it stands for."""

    value: float
    label: str


@dataclass(frozen=True, slots=True)
class Label:
    """Words beside a mark: `x` in 0 to 1, `y` in pixels from the top."""

    x: float
    y: float
    text: str
    tone: str


def plot(title: str, x: Axis, y: Axis, inner: str, over: str = "", marks: Sequence[Mark] = ()) -> Markup:
    """Axes around `inner` (in a 1000 × 1000 box) and, above it, `over` (x in per cents, y in pixels)."""
    grid = ""
    for value in y.scale.ticks(4):
        place = PLOT_PX * (1 - y.scale.place(value))
        grid += (
            f'<line class="grid" x1="0" x2="100%" y1="{place:.1f}" y2="{place:.1f}"/>'
            f'<text class="tick" x="-8" y="{place:.1f}" dy=".35em" text-anchor="end">{escape(y.spell(value))}</text>'
        )
    for value in x.scale.ticks(5):
        at = f"{100 * x.scale.place(value):.2f}%"
        grid += (
            f'<line class="axis" x1="{at}" x2="{at}" y1="{PLOT_PX}" y2="{PLOT_PX + 5}"/>'
            f'<text class="tick" x="{at}" y="{PLOT_PX + 18}" text-anchor="middle">{escape(x.spell(value))}</text>'
        )
    body = (
        f'<text class="axis-label" x="-48" y="-26">{escape(y.label)}</text>{grid}'
        f'<svg x="0" y="0" width="100%" height="{PLOT_PX}" viewBox="0 0 1000 1000" preserveAspectRatio="none">'
        f'{inner}</svg><line class="axis" x1="0" x2="100%" y1="{PLOT_PX}" y2="{PLOT_PX}"/>'
        f"{_draw_marks(marks, x.scale)}{over}"
        f'<text class="axis-label" x="100%" y="{PLOT_PX + 36}" text-anchor="end">{escape(x.label)}</text>'
    )
    return svg(title, "plot", PLOT_PX + 42, body)


def svg(title: str, kind: str, height: float, body: str) -> Markup:
    """The element; `title` is what a screen reader says of it."""
    return Markup(
        f'<svg class="chart {kind}" role="img" height="{height:g}"><title>{escape(title)}</title>{body}</svg>'
    )


def draw_labels(labels: Sequence[Label]) -> str:
    """Labels above their marks, pushed apart where they would lie on one another."""
    out, taken = "", -_LABEL_PX * 1.0
    for label in sorted(labels, key=lambda one: one.y):
        y = max(label.y, taken + _LABEL_PX)
        taken = y
        anchor = "end" if label.x > 0.66 else "start" if label.x < 0.33 else "middle"
        out += (
            f'<text class="series-label tone-{label.tone}" x="{100 * label.x:.2f}%" y="{y:.1f}" '
            f'text-anchor="{anchor}">{escape(label.text)}</text>'
        )
    return out


def _draw_marks(marks: Sequence[Mark], scale: Scale) -> str:
    """Dashed lines with their labels above the plot; a label that would touch the one before goes a row higher."""
    out, last, high = "", -1.0, False
    for mark in sorted(marks, key=lambda one: one.value):
        place = scale.place(mark.value)
        if not 0 <= place <= 1:
            continue
        high = place - last < 0.16 and not high
        last = place
        at = f"{100 * place:.2f}%"
        anchor = "end" if place > 0.85 else "start" if place < 0.15 else "middle"
        out += (
            f'<line class="mark" x1="{at}" x2="{at}" y1="{-15 if high else -2}" y2="{PLOT_PX}"/>'
            f'<text class="mark-label" x="{at}" y="{-17 if high else -4}" text-anchor="{anchor}">'
            f"{escape(mark.label)}</text>"
        )
    return out

"""Horizontal bars, and one bar split by value."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup, escape

from curation.report.charts.frame import svg

_ROW_PX: Final = 28
_BAR_PX: Final = 24
_HEAD_PX: Final = 22
_GAP_PX: Final = 8
_LABEL_CHARACTERS: Final = 30


@dataclass(frozen=True, slots=True)
class Bar:
    """One horizontal bar: `length` in 0..1 of the width, `text` the value as words."""

    label: str
    length: float
    text: str
    tone: str = "a"


@dataclass(frozen=True, slots=True)
class Group:
    """Bars that belong together, with a heading above them unless it is empty."""

    heading: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a whole."""

    label: str
    value: float
    text: str
    tone: str


def bars(title: str, groups: Sequence[Group]) -> Markup:
    """Horizontal bars, each with its label on it and its value at the right."""
    out, y = "", 0
    for i, group in enumerate(groups):
        if group.heading:
            y += _GAP_PX if i else 0
            out += f'<text class="group" x="0" y="{y + 14}">{escape(group.heading)}</text>'
            y += _HEAD_PX
        for bar in group.bars:
            out += _bar(bar, y, group.heading)
            y += _ROW_PX
    return svg(title, "bars", max(y - (_ROW_PX - _BAR_PX), 1), out)


def stacked_bar(title: str, parts: Sequence[Part]) -> Markup:
    """One bar split by value."""
    total = sum(part.value for part in parts) or 1.0
    out, start = "", 0.0
    for part in parts:
        width = 100 * part.value / total
        out += (
            f'<rect class="part tone-{part.tone}" x="{start:.3f}%" y="0" width="{width:.3f}%" height="22">'
            f"<title>{escape(part.label)}: {escape(part.text)}</title></rect>"
        )
        start += width
    return svg(title, "stack", 22, out)


def _bar(bar: Bar, y: int, heading: str) -> str:
    middle = y + _BAR_PX / 2
    width = 100 * min(max(bar.length, 0.0), 1.0)
    told = f"{heading}, {bar.label}" if heading else bar.label
    return (
        f'<g><title>{escape(told)}: {escape(bar.text)}</title><rect class="track" x="0" y="{y}" width="100%" '
        f'height="{_BAR_PX}" rx="3"/><rect class="bar tone-{bar.tone}" x="0" y="{y}" width="{width:.2f}%" '
        f'height="{_BAR_PX}" rx="3"/><text class="label" x="9" y="{middle}" dy=".35em">{_short(bar.label)}</text>'
        f'<text class="value" x="100%" dx="-9" y="{middle}" dy=".35em">{escape(bar.text)}</text></g>'
    )


def _short(label: str) -> Markup:
    return escape(label if len(label) <= _LABEL_CHARACTERS else label[: _LABEL_CHARACTERS - 1] + "…")

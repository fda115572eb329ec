"""Histograms over one another, with what a pointer finds over each bin."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from curation.report.charts.frame import PLOT_PX, Axis, Label, Mark, draw_labels, plot
from curation.report.charts.scale import Scale, spell_short


@dataclass(frozen=True, slots=True)
class Series:
    """One histogram: the share of rows in each bin. A `faint` one is the background of another."""

    name: str
    shares: Sequence[float]
    tone: str
    faint: bool = False


@dataclass(frozen=True, slots=True)
class Bins:
    """Bin i holds values from i × `width`; the last one takes all above. `first` and `last` spell a bin's ends."""

    width: float
    label: str
    spell: Callable[[float], str] = spell_short
    whole: bool = True  # values are whole numbers, so a bin ends one before the next

    def span(self, i: int, count: int) -> str:
        """What bin `i` of `count` holds."""
        low = self.spell(i * self.width)
        if i == count - 1:
            return f"{low} and more"
        if not self.whole:
            return f"{low} to under {self.spell((i + 1) * self.width)}"
        return low if self.width == 1 else f"{low} to {self.spell((i + 1) * self.width - 1)}"


def histogram(title: str, series: Sequence[Series], bins: Bins, y_label: str, marks: Sequence[Mark] = ()) -> Markup:
    """The chart. All `series` have as many bins."""
    count = len(series[0].shares)
    highest = max((share for one in series for share in one.shares), default=0.0)
    x = Axis(Scale(0, bins.width * count), bins.label, bins.spell)
    y = Axis(Scale(0, highest * 1.12 if highest > 0 else 1.0), y_label, _spell_share)
    inner = "".join(_steps(one, y.scale) for one in series)
    over = _hover(series, bins) + (draw_labels(_labels(series, y.scale)) if len(series) > 1 else "")
    return plot(title, x, y, inner, over, marks)


def _steps(series: Series, y: Scale) -> str:
    count, points = len(series.shares), ["0,1000"]
    for i, share in enumerate(series.shares):
        top = 1000 * (1 - y.place(share))
        points += [f"{1000 * i / count:.1f},{top:.1f}", f"{1000 * (i + 1) / count:.1f},{top:.1f}"]
    faint = " faint" if series.faint else ""
    return f'<polygon class="area tone-{series.tone}{faint}" points="{" ".join(points)} 1000,1000"/>'


def _labels(series: Sequence[Series], y: Scale) -> list[Label]:
    """The name of each series above its highest bin."""
    labels = []
    for one in series:
        top = list(one.shares).index(max(one.shares))
        place = PLOT_PX * (1 - y.place(one.shares[top]))
        labels.append(Label((top + 0.5) / len(one.shares), place - 5, one.name, one.tone))
    return labels


def _hover(series: Sequence[Series], bins: Bins) -> str:
    count, out = len(series[0].shares), ""
    for i in range(count):
        told = "; ".join(f"{one.name} {one.shares[i]:.1%}" for one in series)
        out += (
            f'<rect class="hover" x="{100 * i / count:.2f}%" y="0" width="{100 / count:.2f}%" height="{PLOT_PX}">'
            f"<title>{escape(bins.span(i, count))}: {escape(told)}</title></rect>"
        )
    return out


def _spell_share(value: float) -> str:
    return f"{100 * value:.3g}%"

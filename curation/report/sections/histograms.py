"""Histograms of whole numbers over one another, and the table of their percentiles."""

import math
from collections.abc import Iterable, Sequence
from typing import Final

from curation.report.charts.frame import Mark
from curation.report.charts.histogram import Bins, Series, histogram
from curation.report.document import Figure, Key, Row, Table
from curation.report.formats import number
from curation.report.histogram import Distribution
from curation.report.sections.sides import Told

_BINS: Final = 40


def histogram_figure(
    heading: str,
    label: str,
    told: Sequence[Told[Distribution]],
    marks: Sequence[Mark] = (),
    per_unit: int = 1,
    note: str = "",
) -> Figure:
    """`marks` are in the units that were counted, of which `per_unit` make one of the axis."""
    upper = max([one.value.percentiles[99] for one in told] + [int(mark.value * 1.05) + 1 for mark in marks])
    width = _bin_width(upper)
    count = math.ceil((upper + 1) / width) + 1
    series = [Series(one.name, one.value.binned(width, count), one.tone, one.faint) for one in told]
    bins = Bins(width / per_unit, label, whole=per_unit == 1)
    placed = [Mark(mark.value / per_unit, mark.label) for mark in marks]
    chart = histogram(heading, series, bins, "share of captions", placed)
    keys = tuple(
        Key(
            one.tone,
            one.name,
            f"N = {number(one.value.rows)}, mean {one.value.mean / per_unit:,.{1 if per_unit == 1 else 2}f}",
            one.faint,
        )
        for one in told
    )
    ends = f"Bins of {width / per_unit:g}; the last one holds all that is more."
    return Figure(heading, _over(told), chart, keys, f"{note}. {ends}" if note else ends)


def distribution_row(name: str, found: Distribution) -> Row:
    """How many, mean, percentiles and largest."""
    p = found.percentiles
    percentiles = (number(p[percent]) for percent in (5, 25, 50, 75, 95, 99))
    return Row(name, (number(found.rows), f"{found.mean:,.1f}", *percentiles, number(found.most)))


def distribution_table(first: str, rows: Sequence[Row]) -> Table:
    """The table whose rows are `distribution_row`s."""
    return Table((first, "captions", "mean", "p5", "p25", "median", "p75", "p95", "p99", "max"), tuple(rows))


def _over(told: Sequence[Told[Distribution]]) -> str:
    return f"N = {each(one.value.rows for one in told)} captions"


def each(counts: Iterable[int]) -> str:
    """N of each line, told once where they are the same."""
    return " / ".join(dict.fromkeys(number(count) for count in counts))


def _bin_width(upper: int) -> int:
    """A round width that gives about 40 bins up to `upper`."""
    power = 10 ** math.floor(math.log10(max(upper / _BINS, 1)))
    return next(m * power for m in (1, 2, 5, 10) if m * power * _BINS >= upper)

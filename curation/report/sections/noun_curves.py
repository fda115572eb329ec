"""Rank and frequency, and how the vocabulary grows with captions, with the paper's points where they lie."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from curation.nouns.curves import RankFrequency
from curation.nouns.render import PAPER_CAPTIONS, PAPER_TABLE_1, PaperRow
from curation.nouns.statistics import NounStatistics
from curation.report.charts.frame import Axis
from curation.report.charts.lines import Line, Point, line_chart
from curation.report.charts.scale import Scale, linear, logarithmic
from curation.report.document import Figure, Key, Row, Table
from curation.report.formats import number
from curation.report.nouns import RAW_COLUMN
from curation.report.sections.histograms import each
from curation.report.sections.sides import RAW_TONE, Side

_SUFFIXES: Final = {"K": 1e3, "M": 1e6}
_GROWTH_NOTE: Final = (
    "Expected for that many captions drawn at random from all that were counted. Rings are the paper's Table 1, at its "
    "11.19 million captions."
)


@dataclass(frozen=True, slots=True)
class _Column:
    """One caption column of one corpus: a line of the charts."""

    name: str
    tone: str
    captions: int
    growth: tuple[NounStatistics, ...]
    ranks: RankFrequency


def curve_figures(every: Sequence[Side]) -> list[Figure]:
    """Rank-frequency, DN(m), VN(m) and VN/DN(m)."""
    columns = [column for side in every for column in _columns(side)]
    return [
        _rank_figure(columns),
        _growth_figure("Distinct nouns, DN(m)", "distinct nouns", columns, lambda p: p.distinct, _paper_distinct),
        _growth_figure(
            "Valid nouns, VN(m)", "nouns that occur more than 10 times", columns, lambda p: p.valid, _paper_valid
        ),
        _growth_figure("Share of valid nouns, VN/DN(m)", "VN/DN", columns, lambda p: p.valid_share, _paper_share),
    ]


def _columns(side: Side) -> list[_Column]:
    """The columns of one corpus; where several stand side by side, raw captions only of those that have no others."""
    nouns = side.corpus.nouns
    assert nouns is not None, "sides without nouns were left out"
    shown = [column for column in nouns.columns if not side.prefix or column != RAW_COLUMN] or list(nouns.columns)
    growth = {curve[0].column: curve for curve in nouns.findings.growth if curve}
    ranks = {curve.column: curve for curve in nouns.findings.ranks}
    return [
        _Column(
            side.label(column),
            RAW_TONE if column == RAW_COLUMN and not side.prefix else side.tone,
            nouns.findings.summary.total(column, "captions"),
            growth[column],
            ranks[column],
        )
        for column in shown
    ]


def _rank_figure(columns: Sequence[_Column]) -> Figure:
    lines = [Line(c.name, [(float(r), float(n)) for r, n in c.ranks.points], c.tone) for c in columns]
    slopes = [f"{c.ranks.slope:.2f}" if c.ranks.slope is not None else "not fitted" for c in columns]
    keys = [Key(c.tone, c.name, f"{_over(c)}, slope {s}") for c, s in zip(columns, slopes, strict=True)]
    x = Axis(_log_scale([u for line in lines for u, _ in line.points]), "rank (log)")
    y = Axis(_log_scale([v for line in lines for _, v in line.points]), "occurrences (log)")
    heading = "Rank and frequency"
    note = "The slope is fitted between ranks 10 and 10,000; -1 is Zipf's law."
    rows = tuple(Row(c.name, (_over(c), s)) for c, s in zip(columns, slopes, strict=True))
    table = Table(("captions of", "N", "slope of log occurrences over log rank"), rows)
    return Figure(
        heading,
        f"N = {each(c.captions for c in columns)} captions",
        line_chart(heading, lines, x, y),
        tuple(keys),
        note,
        table,
    )


def _growth_figure(
    heading: str,
    label: str,
    columns: Sequence[_Column],
    value: Callable[[NounStatistics], float],
    paper: Callable[[PaperRow], float],
) -> Figure:
    is_share = label == "VN/DN"
    lines = [
        Line(c.name, [(float(p.captions), value(p)) for p in c.growth if value(p) >= (0 if is_share else 1)], c.tone)
        for c in columns
    ]
    points = [
        Point(
            row.name,
            PAPER_CAPTIONS,
            paper(row),
            f"PixArt-α, {row.name}: VN {row.valid}, DN {row.distinct}, {row.share}",
        )
        for row in PAPER_TABLE_1
    ]
    xs = [u for line in lines for u, _ in line.points] + [float(PAPER_CAPTIONS)]
    ys = [v for line in lines for _, v in line.points] + [point.y for point in points]
    x = Axis(_log_scale(xs), "captions m (log)")
    y = Axis(linear(ys, from_zero=True), label, _spell_share) if is_share else Axis(_log_scale(ys), f"{label} (log)")
    keys = tuple(Key(c.tone, c.name, _over(c)) for c in columns)
    rows = tuple(_growth_row(c, value, is_share=is_share) for c in columns)
    table = Table(("captions of", "at N", label, "at N/10", label, "at N/100", label), rows)
    return Figure(
        heading,
        f"N = {each(c.captions for c in columns)} captions",
        line_chart(heading, lines, x, y, points),
        keys,
        _GROWTH_NOTE,
        table,
    )


def _growth_row(column: _Column, value: Callable[[NounStatistics], float], *, is_share: bool) -> Row:
    """Three points of the curve: all captions, and those nearest to a tenth and a hundredth of them."""
    cells: list[str] = []
    for part in (1, 10, 100):
        distances = [abs(point.captions - column.captions / part) for point in column.growth]
        point = column.growth[distances.index(min(distances))]
        told = _spell_share(value(point)) if is_share else f"{value(point):,.0f}"
        cells += [f"{point.captions:,}", told]
    return Row(column.name, tuple(cells))


def _over(column: _Column) -> str:
    return f"N = {number(column.captions)}"


def _log_scale(values: Sequence[float]) -> Scale:
    return logarithmic([v for v in values if v > 0] or [1.0])


def _count(text: str) -> float:
    return float(text[:-1]) * _SUFFIXES[text[-1]]


def _paper_distinct(row: PaperRow) -> float:
    return _count(row.distinct)


def _paper_valid(row: PaperRow) -> float:
    return _count(row.valid)


def _paper_share(row: PaperRow) -> float:
    return float(row.share.rstrip("%")) / 100


def _spell_share(value: float) -> str:
    return f"{100 * value:.3g}%"

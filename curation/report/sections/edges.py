"""For each filter what it keeps and drops, and the samples at its edge."""

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

from curation.report.chosen import MeasuredSample
from curation.report.collect import Report
from curation.report.document import Block, Folded, Row, Section, Strip, Table, Text, Tile
from curation.report.edges import Edge
from curation.report.formats import number, share
from curation.report.measure_sources import MEASURE_COLUMNS
from curation.report.sections.samples import tile, without_pictures
from curation.report.sections.sides import Side, sides
from curation.report.wanted import small
from curation.select.tables import DERIVED

_OF_PICTURES: Final = (*DERIVED, *MEASURE_COLUMNS)
"""Measures of the picture alone: its caption says nothing about them."""

_TEXT_CHARACTERS: Final = 220

_Side: TypeAlias = tuple[Literal["kept", "dropped"], int, tuple[MeasuredSample, ...]]


def edges_section(report: Report) -> Section:
    """The table of all filters, then each edge."""
    every = [side for side in sides(report) if side.corpus.captions and side.corpus.captions.numbers.rows]
    blocks: list[Block] = []
    if every:
        blocks += [_table(every), *without_pictures(any(side.corpus.pictures is not None for side in every))]
        for side in every:
            blocks += [
                Folded(_summary(side, edge), _edge(side, edge), opened=edge.dropped > 0) for edge in _edges(side)
            ]
            selection = side.corpus.selection
            if selection and selection.edgeless:
                blocks.append(Text(f"Without an edge here: {'; '.join(selection.edgeless)}.", "note"))
    else:
        blocks.append(Text("Not in this report: it was made without --captions, whose rows are filtered.", "absent"))
    return Section(
        "filters",
        "Filters at their edge",
        "Look at the sixteen just kept and the sixteen just dropped: where they look alike the limit costs samples for "
        "nothing, and where the kept ones are bad already it is too loose.",
        tuple(blocks),
    )


def _edges(side: Side) -> tuple[Edge, ...]:
    return side.corpus.captions.edges if side.corpus.captions else ()


def _table(every: Sequence[Side]) -> Table:
    rows = []
    for side in every:
        for edge in _edges(side):
            judged = edge.kept + edge.dropped
            cells = (number(edge.kept), number(edge.dropped), share(edge.dropped, judged), number(edge.unknown))
            rows.append(Row(side.label(edge.threshold.spelt), (*cells, edge.threshold.why)))
    return Table(
        ("filter", "kept", "dropped", "dropped share", "not judged", "where the limit comes from"), tuple(rows)
    )


def _summary(side: Side, edge: Edge) -> str:
    return f"{side.label(edge.threshold.spelt)}: {number(edge.kept)} kept, {number(edge.dropped)} dropped"


def _edge(side: Side, edge: Edge) -> tuple[Block, ...]:
    strips: list[Block] = []
    sides: tuple[_Side, ...] = (("kept", edge.kept, edge.just_kept), ("dropped", edge.dropped, edge.just_dropped))
    for word, rows, samples in sides:
        heading = f"Just {word} ({number(len(samples))} of {number(rows)})"
        strips.append(Strip(heading, _tiles(side, edge, samples), f"Nothing is {word}.", word))
    return tuple(strips)


def _tiles(side: Side, edge: Edge, samples: Sequence[MeasuredSample]) -> tuple[Tile, ...]:
    in_words = edge.threshold.measure not in _OF_PICTURES
    return tuple(
        tile(
            side.corpus,
            small(one.sample),
            _value(edge, one),
            _cut(one.sample.generated) if in_words else f"{one.sample.height}×{one.sample.width} px",
        )
        for one in samples
    )


def _value(edge: Edge, one: MeasuredSample) -> str:
    if not edge.threshold.words:
        return number(round(one.value, 3))
    return one.sample.status.replace("_", " ") if edge.threshold.measure == "status" else ""


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _TEXT_CHARACTERS else f"{line[: _TEXT_CHARACTERS - 1]}…"

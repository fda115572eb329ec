"""The paper's Table 1 and what is behind it: nouns per caption, the most frequent, gained and lost."""

from collections.abc import Sequence
from typing import Final

from curation.nouns.compare import NounChange
from curation.nouns.render import PAPER_CAPTIONS, PAPER_TABLE_1
from curation.nouns.spectrum import Counted
from curation.nouns.statistics import NounStatistics, noun_statistics, top_nouns
from curation.report.charts.bars import Bar, Group, bars
from curation.report.collect import Corpus, Report
from curation.report.document import Block, Figure, Figures, Heading, Row, Section, Table, Text
from curation.report.formats import counted, number
from curation.report.nouns import RAW_COLUMN, NounNumbers, PerCaption
from curation.report.sections.histograms import distribution_row, distribution_table, histogram_figure
from curation.report.sections.noun_curves import curve_figures
from curation.report.sections.sides import RAW_TONE, Side, Told, sides, with_raw

_TOP: Final = 20
_TABLE_NOTE: Final = (
    "DN distinct nouns; VN valid ones, that occur more than 10 times; unseen, the Good–Turing chance that the next "
    "noun is a new one. Rows marked ≈ are expectations for that many captions drawn at random (rarefaction). The "
    "paper's rows are of about 11.19 million captions (its total over its average); its tagger, tags and spelling are "
    "not stated."
)
_TOO_FEW: Final = (
    "Fewer captions than the paper's 11.19 million cannot be carried up to it. By nouns per caption alone these "
    "compare with its rows: {}."
)
_TAGGERS_DIFFER: Final = "The nouns were not all counted alike, so differences between them are the taggers' as well."


def nouns_section(report: Report) -> Section:
    """Tables first, then charts."""
    every = [side for side in sides(report) if side.corpus.nouns and side.corpus.nouns.columns]
    blocks: list[Block] = []
    if every:
        blocks += [*_counted_by(every), _table(every), Text(_TABLE_NOTE, "note"), *_too_few(every)]
        blocks += _per_caption(every)
        blocks += [Figures(tuple(curve_figures(every)))]
        blocks += [Figures(tuple(_top_figures(every)))]
        blocks += [block for side in every for block in _changes(side)]
    else:
        told = (
            "The nouns dataset holds no counted caption yet."
            if any(corpus.nouns for corpus in report.corpora)
            else "Not in this report: it was made without --nouns, so there is nothing to say about nouns."
        )
        blocks.append(Text(told, "absent"))
    return Section(
        "nouns",
        "Nouns",
        "Look at VN and DN at equal numbers of captions, never at their ratio alone: more captions raise both, and a "
        "high ratio can mean a small vocabulary.",
        tuple(blocks),
    )


def nouns_of(side: Side) -> NounNumbers:
    """The nouns of a corpus that has them."""
    assert side.corpus.nouns is not None, "sides without nouns were left out"
    return side.corpus.nouns


def _counted_by(every: Sequence[Side]) -> list[Text]:
    """Tagger, version and options: once where all were counted alike, else of each corpus."""
    spelt = {side.prefix: nouns_of(side).findings.summary.rules.spelt for side in every}
    if len(set(spelt.values())) == 1:
        return [Text(next(iter(spelt.values())))]
    return [*(Text(f"{name}: {rules}") for name, rules in spelt.items()), Text(_TAGGERS_DIFFER, "note")]


def _too_few(every: Sequence[Side]) -> list[Text]:
    """Which captions are too few for the paper's number."""
    few = [side.label(c) for side in every for c in nouns_of(side).columns if _captions(side, c) < PAPER_CAPTIONS]
    return [Text(_TOO_FEW.format(", ".join(few)), "note")] if few else []


def _captions(side: Side, column: str) -> int:
    return nouns_of(side).findings.summary.total(column, "captions")


def _table(every: Sequence[Side]) -> Table:
    """Ours at the full N, at the largest N that all have and at the paper's, then the paper's Table 1."""
    fewest = min(_captions(side, column) for side in every for column in nouns_of(side).columns)
    levels = {PAPER_CAPTIONS: "at the paper's N", fewest: "equal N"}
    rows: list[Row] = []
    for side in every:
        counts = nouns_of(side).findings.summary
        for column in nouns_of(side).columns:
            whole = [noun_statistics(counts, column, kind) for kind in (Counted.BOTH, Counted.NOUN, Counted.PROPN)]
            rows += [_row(row, side.label(column), quiet=row.counted != Counted.BOTH) for row in whole]
            for size, word in sorted(levels.items()):
                if size < whole[0].captions:
                    fewer = noun_statistics(counts, column, Counted.BOTH, size)
                    rows.append(_row(fewer, side.label(f"{column}, {word}"), quiet=False))
    rows += [
        Row(
            f"PixArt-α: {paper.name}",
            (
                *("not stated", paper.captions, paper.valid, paper.distinct, paper.share, paper.nouns),
                *(f"{paper.per_caption:.1f}", "–"),
            ),
            other=True,
        )
        for paper in PAPER_TABLE_1
    ]
    header = ("captions of", "counted", "N captions", "VN", "DN", "VN/DN", "nouns", "per caption", "unseen")
    return Table(header, tuple(rows))


def _row(row: NounStatistics, name: str, *, quiet: bool) -> Row:
    about = "≈ " if row.expected else ""
    cells = (
        *(row.counted.value, f"{row.captions:,}", f"{about}{row.valid:,.0f}", f"{about}{row.distinct:,.0f}"),
        *(f"{row.valid_share:.1%}", f"{about}{row.nouns:,.0f}", f"{row.per_caption:.1f}", f"{row.unseen:.1%}"),
    )
    return Row(name, cells, quiet=quiet)


def _per_caption(every: Sequence[Side]) -> list[Block]:
    told = [side for side in every if nouns_of(side).per_caption]
    if not told:
        return [Text("Nouns per caption are not known: the nouns were counted without per_image tables.", "note")]
    figures, rows = [], []
    both = with_raw(told, lambda corpus: _of(corpus, raw=True), lambda corpus: _of(corpus, raw=False))
    for heading, distinct in (("Nouns per caption", False), ("Distinct nouns per caption", True)):
        lines = [
            Told(one.name, one.tone, one.faint, one.value.distinct if distinct else one.value.nouns) for one in both
        ]
        figures.append(histogram_figure(heading, "nouns", lines))
        rows += [distribution_row(f"{line.name}, {heading.lower()}", line.value) for line in lines]
    return [Figures(tuple(figures)), distribution_table("captions of", rows)]


def _of(corpus: Corpus, *, raw: bool) -> PerCaption | None:
    """The nouns of the raw captions, or of the first other column."""
    per_caption = corpus.nouns.per_caption if corpus.nouns else {}
    return next((found for column, found in per_caption.items() if (column == RAW_COLUMN) == raw), None)


def _top_figures(every: Sequence[Side]) -> list[Figure]:
    figures = []
    for side in every:
        counts = nouns_of(side).findings.summary
        for column in nouns_of(side).columns:
            top = top_nouns(counts, column, Counted.BOTH, _TOP)
            most = max((n for _, n in top), default=1)
            tone = RAW_TONE if column == RAW_COLUMN and not side.prefix else side.tone
            rows = tuple(Bar(f"{rank} {noun}", n / most, f"{n:,}", tone) for rank, (noun, n) in enumerate(top, 1))
            heading = f"Most frequent nouns of {side.label(column)}"
            over = f"N = {number(counts.total(column, 'captions'))} captions"
            table = Table(("noun", "occurrences"), tuple(Row(noun, (f"{n:,}",)) for noun, n in top))
            figures.append(Figure(heading, over, bars(heading, [Group("", rows)]), numbers=table))
    return figures


def _changes(side: Side) -> list[Block]:
    found = nouns_of(side).findings.comparison
    if found is None:
        return []
    header = ("noun", found.before, found.after, "per 1,000 before", "per 1,000 after", "z")
    told = (
        f"{found.after} ({counted(found.captions_after, 'caption')}) against {found.before} "
        f"({number(found.captions_before)}): {counted(found.gained_nouns, 'noun')} gained and "
        f"{number(found.lost_nouns)} lost at |z| above {found.bound:.2f}, 1 % over all nouns together. z is of the "
        f"log-odds ratio of shares, so that one side may have more captions or longer ones. Counted by "
        f"{nouns_of(side).findings.summary.rules.spelt}"
    )
    blocks: list[Block] = [Heading(side.label("Gained and lost nouns")), Text(told, "note")]
    for word, changes in (("gained", found.gained), ("lost", found.lost)):
        if changes:
            blocks.append(Table((f"noun {word}", *header[1:]), tuple(_change(change) for change in changes)))
    return blocks


def _change(change: NounChange) -> Row:
    per = (f"{change.per_1000_before:,.1f}", f"{change.per_1000_after:,.1f}", f"{change.z:+.1f}")
    return Row(change.noun, (f"{change.before:,}", f"{change.after:,}", *per))

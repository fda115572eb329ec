"""Shards unlike the others."""

from typing import Final

from curation.report.collect import Report
from curation.report.document import Block, Heading, Row, Section, Table, Text
from curation.report.formats import counted, number
from curation.report.outliers import FEWEST_SHARDS, SIGMAS, Outlier, Outliers
from curation.report.sections.sides import sides

_ROWS: Final = 40


def shards_section(report: Report) -> Section:
    """A table of outliers a corpus, or that there are none."""
    blocks: list[Block] = []
    for side in sides(report):
        if side.corpus.captions:
            blocks += [Heading(side.prefix)] if side.prefix else []
            blocks += _outliers(side.corpus.captions.outliers)
    if not blocks:
        blocks.append(Text("Not in this report: it was made without --captions.", "absent"))
    return Section(
        "shards",
        "Shards unlike the others",
        "Look for one shard with many figures here: a broken download, another source's pictures, a worker with other "
        "settings.",
        tuple(blocks),
    )


def _outliers(found: Outliers) -> list[Block]:
    if found.shards < FEWEST_SHARDS:
        told = (
            f"Only {counted(found.shards, 'shard')}: with fewer than {FEWEST_SHARDS} there is no telling which is odd."
        )
        return [Text(told, "note")]
    looked = f"{counted(found.shards, 'shard')} were compared in {', '.join(found.figures)}."
    if not found.found:
        return [Text(f"{looked} None is more than {SIGMAS:g} robust standard deviations from the median.")]
    shown = found.found[:_ROWS]
    rest = len(found.found) - len(shown)
    shards = len({one.shard for one in found.found})
    told = (
        f"{looked} {counted(len(found.found), 'figure')} of {counted(shards, 'shard')} lie more than {SIGMAS:g} robust "
        f"standard deviations from the median (1.4826 × the median absolute deviation, or the sampling error if that "
        f"is larger)."
    )
    header = ("shard", "figure", "value", "median shard", "σ away", "rows")
    rows = tuple(Row(one.shard, (one.figure.replace("_", " "), *_cells(one))) for one in shown)
    more = [Text(f"and {number(rest)} more in the JSON.", "note")] if rest else []
    return [Text(told), Table(header, rows), *more]


def _cells(one: Outlier) -> tuple[str, str, str, str]:
    if one.figure.startswith("share"):
        return f"{one.value:.1%}", f"{one.median:.1%}", f"{one.sigmas:+.1f}", number(one.rows)
    return f"{one.value:,.3g}", f"{one.median:,.3g}", f"{one.sigmas:+.1f}", number(one.rows)

"""All that is told of a nouns dataset, as one record: text for the terminal, and JSON."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from curation.nouns.compare import Comparison, compare_columns
from curation.nouns.coverage import Coverage, cover, listed_lines, listed_nouns
from curation.nouns.curves import RankFrequency, growth_curve, rank_frequency
from curation.nouns.merged import MergedCounts, merged_counts
from curation.nouns.merging import Run
from curation.nouns.render import (
    PAPER_CAPTIONS,
    render_comparison,
    render_coverage,
    render_growth,
    render_ranks,
    render_table,
    statistics_record,
    table_record,
)
from curation.nouns.spectrum import Counted
from curation.nouns.stage import PER_IMAGE_DIR
from curation.nouns.statistics import NounStatistics, noun_statistics, top_nouns
from curation.nouns.summary import NounSummary
from schemas.reading import Dataset, open_dataset, read_info

_TOP: Final = 50
_USUAL_PAIR: Final = ("raw_caption", "caption")


@dataclass(frozen=True, slots=True)
class Questions:
    """What is asked: statistics `at` so many captions too, coverage of the list at `reference` (a text file or a nouns
    dataset), and gained and lost nouns of the two columns `compared` (None: raw_caption and caption if both are there).
    """

    at: tuple[int, ...] = ()
    reference: str | None = None
    compared: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class NounFindings:
    """What was found. Each figure says of how many captions it is."""

    summary: NounSummary
    units: int
    rows: tuple[NounStatistics, ...]
    notes: tuple[str, ...]
    growth: tuple[tuple[NounStatistics, ...], ...]
    ranks: tuple[RankFrequency, ...]
    coverage: tuple[Coverage, ...]
    comparison: Comparison | None

    def as_text(self) -> str:
        """The tables, each with the tagger that counted."""
        rules = self.summary.rules
        parts = [render_table(self.rows, rules)]
        if self.notes:
            parts.append("".join(f"{note}\n" for note in self.notes))
        parts += [render_growth(self.growth, rules), render_ranks(self.ranks, rules)]
        if self.coverage:
            parts.append(render_coverage(self.coverage, rules))
        if self.comparison is not None:
            parts.append(render_comparison(self.comparison, rules))
        return "\n".join(parts)

    def as_json(self) -> dict[str, Any]:
        """The same as JSON values, with every point of the curves and the most frequent nouns."""
        counts = self.summary
        return {
            **table_record(self.rows, counts.rules),
            "notes": list(self.notes),
            "units": self.units,
            "totals": {row["column"]: row for row in counts.totals.to_pylist()},
            "top": {column: top_nouns(counts, column, Counted.BOTH, _TOP) for column in counts.columns},
            "growth": {curve[0].column: [statistics_record(point) for point in curve] for curve in self.growth},
            "ranks": {curve.column: dataclasses.asdict(curve) for curve in self.ranks},
            "coverage": {row.column: dataclasses.asdict(row) for row in self.coverage},
            "comparison": None if self.comparison is None else dataclasses.asdict(self.comparison),
        }


def check_reference(reference: str) -> None:
    """Raise `UserError` if the list at `reference` cannot be read."""
    if read_info(reference) is None:
        list(listed_lines(reference))
    else:
        open_dataset(reference, "nouns")


def find(dataset: Dataset, questions: Questions) -> NounFindings:
    """Gather everything from the merged counts of a nouns dataset.

    Raises `UserError` for a column that was not counted or a reference that cannot be read.
    """
    with merged_counts(dataset) as merged:
        counts = merged.summary
        rows, notes = table_rows(counts, questions.at)
        if dataset.faults:
            notes.append(f"{len(dataset.faults):,} units are not counted, such as {dataset.faults[0]}.")
        filled = [column for column in counts.columns if counts.total(column, "captions")]
        return NounFindings(
            counts,
            len(dataset.entries),
            tuple(rows),
            (*notes, *_per_image_note(dataset)),
            tuple(tuple(growth_curve(counts, column)) for column in filled),
            tuple(rank_frequency(counts, column) for column in filled),
            _coverage(merged, filled, questions.reference),
            _comparison(merged, questions.compared),
        )


def table_rows(counts: NounSummary, at: Sequence[int]) -> tuple[list[NounStatistics], list[str]]:
    """The rows of the table: each column whole, at the asked sizes, at the size that all columns reach, and at the
    paper's if there are as many."""
    totals = {column: counts.total(column, "captions") for column in counts.columns}
    common = min(totals.values(), default=0)
    rows, notes = [], []
    for column, total in totals.items():
        rows += [noun_statistics(counts, column, kind) for kind in Counted]
        sizes = {*at, common, *([PAPER_CAPTIONS] if total > PAPER_CAPTIONS else [])}
        for captions in sorted(sizes - {0, total}):
            if captions < total:
                rows.append(noun_statistics(counts, column, Counted.BOTH, captions))
            else:
                notes.append(f"{column} at {captions:,}: not shown, only {total:,} captions were counted.")
        if total < PAPER_CAPTIONS:
            notes.append(
                f"{column}: {total:,} captions are fewer than the paper's {PAPER_CAPTIONS:,}, and rarefaction goes "
                f"down only, so its rows compare with the paper's by nouns per caption alone."
            )
    return rows, notes


def _per_image_note(dataset: Dataset) -> list[str]:
    """What the nouns of each image take on disk; empty if they were not asked for."""
    outputs = [o for entry in dataset.entries for o in entry.outputs if o.path.startswith(f"{PER_IMAGE_DIR}/")]
    rows, size = sum(o.rows for o in outputs), sum(o.bytes for o in outputs)
    if not rows:
        return []
    return [f"{PER_IMAGE_DIR}/: {rows:,} rows, {size:,} bytes ({size / rows:.1f} a row); --no-per-image leaves it out."]


def _coverage(merged: MergedCounts, columns: Sequence[str], reference: str | None) -> tuple[Coverage, ...]:
    if reference is None:
        return ()
    if read_info(reference) is None:
        return tuple(cover(merged.summary, c, merged.rows(c), reference, listed_lines(reference)) for c in columns)
    with merged_counts(open_dataset(reference, "nouns")) as other:

        def listed() -> Run:
            return listed_nouns(other.rows(column) for column in other.summary.columns)

        told = f"{reference} (counted by {other.summary.rules.spelt})"
        return tuple(cover(merged.summary, c, merged.rows(c), told, listed()) for c in columns)


def _comparison(merged: MergedCounts, compared: tuple[str, str] | None) -> Comparison | None:
    if compared is None and not set(_USUAL_PAIR) <= set(merged.summary.columns):
        return None
    before, after = compared or _USUAL_PAIR
    return compare_columns(merged.summary, before, after, merged.rows(before), merged.rows(after))

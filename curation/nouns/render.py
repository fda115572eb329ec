"""The noun tables as text: the paper's Table 1 with our rows and its own, curves, coverage, gained and lost nouns."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from curation.nouns.compare import Comparison
from curation.nouns.counting import CountingRules
from curation.nouns.coverage import Coverage
from curation.nouns.curves import RankFrequency
from curation.nouns.statistics import VALID_ABOVE, NounStatistics

_HEADER: Final = ("captions of", "counted", "N captions", "VN", "DN", "VN/DN", "nouns", "per caption", "unseen")


@dataclass(frozen=True, slots=True)
class PaperRow:
    """A row of PixArt-α's Table 1. The paper does not print N; `nouns` / `per_caption` implies it."""

    name: str
    valid: str
    distinct: str
    share: str
    nouns: str
    per_caption: float
    captions: str = "~11.19M"


PAPER_TABLE_1: Final = (
    PaperRow("LAION", "210K", "2461K", "8.5%", "72.0M", 6.4),
    PaperRow("LAION-LLaVA", "85K", "646K", "13.3%", "233.9M", 20.9),
    PaperRow("SAM-LLaVA", "23K", "124K", "18.6%", "327.9M", 29.3),
    PaperRow("Internal", "152K", "582K", "26.1%", "136.6M", 12.2),
)


PAPER_CAPTIONS: Final = 11_190_000  # implied by all four rows


def render_table(statistics: Sequence[NounStatistics], rules: CountingRules) -> str:
    """The table as aligned plain text, ending with what was counted and how."""
    ours = [_cells(row) for row in statistics]
    paper = [
        (f"PixArt-α: {p.name}", "?", p.captions, p.valid, p.distinct, p.share, p.nouns, f"{p.per_caption:.1f}", "?")
        for p in PAPER_TABLE_1
    ]
    return f"{_aligned(_HEADER, [ours, paper], left=2)}\n{_lines(_notes(statistics, rules))}"


def table_record(statistics: Sequence[NounStatistics], rules: CountingRules) -> dict[str, Any]:
    """The same as JSON values: `rules`, `valid_above`, `rows` and `paper`."""
    return {
        "rules": {**dataclasses.asdict(rules), "normalisation": rules.normalisation.value},
        "valid_above": VALID_ABOVE,
        "rows": [statistics_record(row) for row in statistics],
        "paper": [dataclasses.asdict(row) for row in PAPER_TABLE_1],
    }


def statistics_record(row: NounStatistics) -> dict[str, Any]:
    """One row as JSON values, its ratios among them."""
    return {
        **dataclasses.asdict(row),
        "counted": row.counted.value,
        "expected": row.expected,
        "valid_share": row.valid_share,
        "per_caption": row.per_caption,
    }


def render_growth(curves: Sequence[Sequence[NounStatistics]], rules: CountingRules) -> str:
    """Every third point of the growth curves, the last one among them."""
    header = ("growth of", "at captions", "DN", "VN", "VN/DN", "unseen")
    blocks = [
        [
            (p.column, f"{p.captions:,}", f"{p.distinct:,.0f}", f"{p.valid:,.0f}", f"{p.valid_share:.1%}", _share(p))
            for p in curve[::-3][::-1]
        ]
        for curve in curves
    ]
    notes = [
        "Expected for that many captions drawn at random (rarefaction); the last row of each column is all of them."
    ]
    return f"{_aligned(header, blocks, left=1)}\n{_lines([*notes, rules.spelt])}"


def render_ranks(curves: Sequence[RankFrequency], rules: CountingRules) -> str:
    """Every fourth point of rank against frequency, and the slopes."""
    header = ("frequency in", "rank", "occurrences")
    blocks = [[(c.column, f"{rank:,}", f"{n:,}") for rank, n in c.points[::4]] for c in curves]
    notes = [
        f"{c.column}, {c.captions:,} captions: slope {c.slope:.3f} between ranks {c.fitted[0]:,} and {c.fitted[1]:,} "
        f"(log-log least squares; -1 is Zipf's law)."
        for c in curves
        if c.slope is not None
    ]
    return f"{_aligned(header, blocks, left=1)}\n{_lines([*notes, rules.spelt])}"


def render_coverage(coverages: Sequence[Coverage], rules: CountingRules) -> str:
    """How much of the reference list each column covers."""
    header = (
        "coverage by",
        "N captions",
        "entries",
        "occur",
        "share",
        f"more than {VALID_ABOVE}",
        "share",
        "outside the list",
    )
    rows = [
        (
            *(c.column, f"{c.captions:,}", f"{c.entries:,}", f"{c.once:,}", f"{c.once / max(c.entries, 1):.1%}"),
            *(f"{c.valid:,}", f"{c.valid / max(c.entries, 1):.1%}", f"{c.outside:.1%} of nouns"),
        )
        for c in coverages
    ]
    notes = [
        f"Reference {c.reference}: {c.phrases:,} of its entries are phrases, which no single token matches."
        for c in coverages[:1]
    ]
    return f"{_aligned(header, [rows], left=1)}\n{_lines([*notes, rules.spelt])}"


def render_comparison(comparison: Comparison, rules: CountingRules) -> str:
    """The nouns that a column gained and lost most against another."""
    c = comparison
    header = ("", "noun", c.before, c.after, f"{c.before} / 1,000", f"{c.after} / 1,000", "z")
    blocks = [
        [
            (
                *(word, n.noun, f"{n.before:,}", f"{n.after:,}"),
                *(f"{n.per_1000_before:,.2f}", f"{n.per_1000_after:,.2f}", f"{n.z:+.1f}"),
            )
            for n in nouns
        ]
        for word, nouns in (("gained", c.gained), ("lost", c.lost))
    ]
    notes = [
        f"{c.after} ({c.captions_after:,} captions) against {c.before} ({c.captions_before:,}): {c.gained_nouns:,} "
        f"nouns gained, {c.lost_nouns:,} lost, at |z| > {c.bound:.2f} (1 % over all nouns together); occurrences, the "
        f"same per 1,000 captions, and the z of the log-odds ratio of shares.",
    ]
    return f"{_aligned(header, blocks, left=2)}\n{_lines([*notes, rules.spelt])}"


def _cells(row: NounStatistics) -> tuple[str, ...]:
    about = "~" if row.expected else ""
    return (
        row.column,
        row.counted.value,
        f"{row.captions:,}",
        f"{about}{row.valid:,.0f}",
        f"{about}{row.distinct:,.0f}",
        f"{row.valid_share:.1%}",
        f"{about}{row.nouns:,.0f}",
        f"{row.per_caption:.1f}",
        _share(row),
    )


def _share(row: NounStatistics) -> str:
    return f"{row.unseen:.1%}" if row.nouns else "-"


def _aligned(header: Sequence[str], blocks: Sequence[Sequence[Sequence[str]]], left: int) -> str:
    """A table with a rule above each block; the first `left` columns are words, the others numbers."""
    widths = [
        max(len(row[i]) for row in (header, *(row for rows in blocks for row in rows))) for i in range(len(header))
    ]

    def line(cells: Sequence[str]) -> str:
        padded = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
        return "  ".join(padded).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return _lines([line(header), *(text for rows in blocks if rows for text in (rule, *map(line, rows)))])


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _notes(statistics: Sequence[NounStatistics], rules: CountingRules) -> list[str]:
    notes = [
        rules.spelt,
        f"DN distinct nouns; VN those that occur more than {VALID_ABOVE} times; "
        f"unseen the Good-Turing chance that the next noun is new.",
    ]
    if any(row.expected for row in statistics):
        notes.append("~ expected for that many captions drawn at random from all that were counted (rarefaction).")
    notes.append(
        "PixArt-α rows are the paper's Table 1: its tagger, tags and spelling are not stated, N follows from nouns / "
        "per caption. DN, VN and VN/DN grow with N: compare rows at equal N only; per caption compares at any N."
    )
    return notes

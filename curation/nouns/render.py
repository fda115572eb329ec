"""The printed noun table and its JSON: our rows, and the paper's beside them, each with its number of captions."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from curation.nouns.counting import CountingRules
from curation.nouns.statistics import VALID_ABOVE, NounStatistics

_HEADER: Final = ("captions of", "counted", "N captions", "VN", "DN", "VN/DN", "nouns", "per caption", "unseen")
_LEFT: Final = 2  # the first columns are words, the others numbers


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


def render_table(statistics: Sequence[NounStatistics], rules: CountingRules) -> str:
    """The table as aligned plain text, ending with what was counted and how."""
    ours = [_cells(row) for row in statistics]
    paper = [
        (f"PixArt-α: {p.name}", "?", p.captions, p.valid, p.distinct, p.share, p.nouns, f"{p.per_caption:.1f}", "?")
        for p in PAPER_TABLE_1
    ]
    widths = [max(len(row[i]) for row in (_HEADER, *ours, *paper)) for i in range(len(_HEADER))]
    rule = "  ".join("-" * width for width in widths)
    lines = [_line(_HEADER, widths), rule, *(_line(row, widths) for row in ours), rule]
    lines += [_line(row, widths) for row in paper]
    return "\n".join([*lines, "", *_notes(statistics, rules)]) + "\n"


def table_record(statistics: Sequence[NounStatistics], rules: CountingRules) -> dict[str, Any]:
    """The same as JSON values: `rules`, `valid_above`, `rows` and `paper`."""
    rows = [
        {
            **dataclasses.asdict(row),
            "counted": row.counted.value,
            "expected": row.expected,
            "valid_share": row.valid_share,
            "per_caption": row.per_caption,
        }
        for row in statistics
    ]
    return {
        "rules": {**dataclasses.asdict(rules), "normalisation": rules.normalisation.value},
        "valid_above": VALID_ABOVE,
        "rows": rows,
        "paper": [dataclasses.asdict(row) for row in PAPER_TABLE_1],
    }


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
        f"{row.unseen:.1%}" if row.nouns else "-",
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [c.ljust(w) if i < _LEFT else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
    return "  ".join(padded).rstrip()


def _notes(statistics: Sequence[NounStatistics], rules: CountingRules) -> list[str]:
    tagger = rules.tagger
    spelling = {"lower": "the word in lower case", "lemma": "the lemma in lower case"}[rules.normalisation.value]
    notes = [
        f"tagger {tagger.name} {tagger.version} ({tagger.digest[:12]}), spaCy {tagger.spacy_version}; "
        f"a noun is {spelling} ({rules.normalisation.value}), with at least one letter.",
        f"DN distinct nouns; VN those that occur more than {VALID_ABOVE} times; "
        f"unseen the Good-Turing chance that the next noun is new.",
    ]
    if any(row.expected for row in statistics):
        notes.append("~ expected for that many captions drawn at random from all that were counted (rarefaction).")
    notes.append(
        "PixArt-α rows are the paper's Table 1: its tagger, tags and spelling are not stated, N follows from nouns / "
        "per caption. DN grows with N: compare rows at equal N only."
    )
    return notes

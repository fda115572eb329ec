"""The funnel and the nouns as text for a terminal."""

from collections.abc import Sequence

from curation.select.run import NounBalance, Outcome

_ABOUT: str = (
    "total: what the filter takes by itself; in order: of what was left before it; alone: what no other takes.\n"
    "* looks only at what was left before it."
)


def render(outcome: Outcome) -> str:
    """The funnel, what the joins came to, and the nouns before and after each cap."""
    lines = [
        f"{outcome.samples:,} samples, {outcome.selected:,} selected ({_share(outcome.selected, outcome.samples)})"
    ]
    lines += [
        f"  {table.name}: {table.rows:,} rows, {table.missing:,} samples without one"
        + (f", {table.unmatched:,} rows of no sample here" if table.unmatched else "")
        for table in outcome.tables
    ]
    rows = [["filter", "total", "in order", "alone", "left", ""]]
    rows += [
        [
            row.name + (" *" if row.depends_on_others else ""),
            *(f"{count:,}" for count in (row.total, row.marginal, row.unique, row.left)),
            _share(row.left, outcome.samples),
        ]
        for row in outcome.funnel
    ]
    lines += ["", *_columns(rows)]
    if outcome.funnel:
        lines.append(_ABOUT)
    if outcome.blank and outcome.samples:
        lines.append(f"No sample has a value in {', '.join(outcome.blank)}.")
    for balance in outcome.nouns:
        lines += ["", *_nouns(balance)]
    return "\n".join(lines) + "\n"


def _nouns(balance: NounBalance) -> list[str]:
    before, after = balance.before, balance.after
    rows = [["nouns", f"before {balance.filter}", "selected"]]
    for name, one, other in (
        ("samples", f"{before.samples:,}", f"{after.samples:,}"),
        ("distinct nouns", f"{before.distinct:,}", f"{after.distinct:,}"),
        ("captions that have them, summed", f"{before.mentions:,}", f"{after.mentions:,}"),
        ("entropy, bits", f"{before.entropy_bits:.3f}", f"{after.entropy_bits:.3f}"),
        ("share of the ten most frequent", f"{before.top_share:.2%}", f"{after.top_share:.2%}"),
        (f"nouns in at most {balance.cap:,} captions", f"{before.under_cap:.2%}", f"{after.under_cap:.2%}"),
    ):
        rows.append([name, one, other])
    rows += [
        [f"captions a noun, {'largest' if q == '100%' else q + ' quantile'}", f"{n:,}", f"{after.quantiles[q]:,}"]
        for q, n in before.quantiles.items()
    ]
    tops = [f"most frequent, {when}: {_top(one.top)}" for when, one in (("before", before), ("selected", after))]
    return [*_columns(rows), *tops]


def _top(top: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{noun} {count:,}" for noun, count in top) or "none"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows with the first cell to the left and the others to the right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in rows
    ]


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"

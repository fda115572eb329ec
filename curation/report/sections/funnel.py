"""Where rows went."""

from collections.abc import Sequence
from typing import Final

from curation.report.balance import Balance
from curation.report.charts.bars import Bar, Group, bars
from curation.report.collect import Corpus, Report
from curation.report.document import Block, Figure, Figures, Heading, Row, Section, Sum, Table, Text
from curation.report.formats import number, share
from curation.report.sections.histograms import each
from curation.report.sections.sides import Side, column_each, sides
from curation.report.selection import SelectionNumbers

_STEPS: Final = (
    ("captions", "rows in", True),
    ("captions", "captioned", False),
    ("usable", "usable captions", False),
    ("text", "with text", False),
    ("latents", "with latents", False),
    ("joined", "ready for training", False),
)

_NAMES: Final = {
    "captions": ("Pictures that could be read and captioned", "rows in", "captioned"),
    "usable": ("Captions that can be used", "captioned", "usable"),
    "latents": ("Latents", "rows in", "with latents"),
    "text": ("Text embeddings", "caption rows", "with text"),
    "nouns": ("Nouns", "caption rows", "counted"),
    "joined": ("Latents and text joined by shard and key", "with either", "ready for training"),
}


def funnel_section(report: Report) -> Section:
    """The funnel, then every step with its losses."""
    every = sides(report)
    blocks: list[Block] = []
    if not any(corpus.balances for corpus in report.corpora):
        blocks.append(
            Text(
                "Not in this report: it was made without --captions, --latents or --text, so there is nothing to say "
                "about where rows went.",
                "absent",
            )
        )
    else:
        figure = _funnel_figure(every)
        blocks += [Figures((figure,))] if figure else []
        for side in every:
            blocks += [Heading(side.prefix)] if side.prefix and side.corpus.balances else []
            blocks += [_sum(balance) for balance in side.corpus.balances]
    for side in every:
        if side.corpus.selection is not None:
            blocks += _selection(side, side.corpus.selection)
    return Section(
        "funnel",
        "Funnel",
        "Look for the step that loses more than you expect; rows in = kept + lost holds at each of them, or there "
        "would be no report.",
        tuple(blocks),
    )


def levels(corpus: Corpus) -> dict[str, int]:
    """Samples left after each step, by the step's words."""
    steps: Sequence[tuple[str, str, bool]] = _STEPS
    if corpus.balance("captions") is None:
        steps = (("latents", "rows in", True), *_STEPS[3:])
    found = [(label, corpus.balance(step), before) for step, label, before in steps]
    return {label: one.rows_in if before else one.kept for label, one, before in found if one is not None}


def _funnel_figure(every: Sequence[Side]) -> Figure | None:
    of = {side.prefix: levels(side.corpus) for side in every}
    labels = [label for _, label, _ in _STEPS if any(label in found for found in of.values())]
    most = max((n for found in of.values() for n in found.values()), default=0)
    if not most:
        return None
    groups = []
    if len(every) == 1:
        (found,) = of.values()
        groups = [Group("", tuple(_bar(label, label, found, most, "a") for label in labels))]
    else:
        for label in labels:
            told = [_bar(side.prefix, label, of[side.prefix], most, side.tone) for side in every]
            groups.append(Group(label, tuple(told)))
    rows = [
        (
            label,
            [
                f"{of[s.prefix][label]:,} ({_of_first(of[s.prefix], label)})" if label in of[s.prefix] else "–"
                for s in every
            ],
        )
        for label in labels
    ]
    over = f"N = {each(next(iter(of[side.prefix].values()), 0) for side in every)}"
    table = column_each(every, "samples", rows)
    return Figure("Samples after each step", f"{over} rows in", bars("Samples after each step", groups), numbers=table)


def _bar(name: str, label: str, found: dict[str, int], most: int, tone: str) -> Bar:
    if label not in found:
        return Bar(name, 0, "not given", tone)
    first = next(iter(found))
    told = f"{found[label]:,}" + (f" · {_of_first(found, label)}" if label != first else "")
    return Bar(name, found[label] / most, told, tone)


def _of_first(found: dict[str, int], label: str) -> str:
    return share(found[label], next(iter(found.values())))


def _selection(side: Side, selection: SelectionNumbers) -> list[Block]:
    """What a recipe takes away, filter by filter."""
    heading = side.label(f"selection {selection.recipe}" if selection.recipe else "selection")
    samples = max(selection.samples, 1)
    levels = [("all samples", selection.samples), *((step.name, step.left) for step in selection.funnel)]
    rows = tuple(Bar(name, left / samples, f"{left:,} · {share(left, samples)}", side.tone) for name, left in levels)
    figure = Figure(
        "Samples left after each filter",
        f"N = {number(selection.samples)} samples",
        bars("Samples left after each filter", [Group("", rows)]),
        note="In the recipe's order.",
    )
    header = ("filter", "takes by itself", "of what was left", "alone", "left", "share left")
    cells = [
        (*(number(n) for n in (step.total, step.marginal, step.unique, step.left)), share(step.left, samples))
        for step in selection.funnel
    ]
    table = Table(header, tuple(Row(step.name, row) for step, row in zip(selection.funnel, cells, strict=True)))
    told = f"{number(selection.selected)} of {number(selection.samples)} samples are selected "
    told += f"({share(selection.selected, samples)}). {selection.description}".strip()
    note = "Alone: what no other filter takes. A filter with 0 there could go without changing anything."
    return [Heading(heading[0].upper() + heading[1:]), Text(told), Figures((figure,)), table, Text(note, "note")]


def _sum(balance: Balance) -> Sum:
    heading, incoming, outgoing = _NAMES[balance.step]
    return Sum(heading, balance.rows_in, incoming, balance.kept, outgoing, balance.losses)

"""Statuses, flags and endings of captions; how long they are; how much they repeat."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from curation.report.captions import HUNDREDTHS, CaptionNumbers
from curation.report.charts.bars import Bar, Group, bars
from curation.report.charts.frame import Mark
from curation.report.collect import Corpus, Report
from curation.report.document import Block, Figure, Figures, Section, Table, Text
from curation.report.formats import number, share
from curation.report.histogram import Distribution
from curation.report.sections.histograms import distribution_row, distribution_table, each, histogram_figure
from curation.report.sections.sides import Side, Told, column_each, sides, with_raw
from schemas.status import USABLE_STATUSES

T5_MARKS: Final = (Mark(77, "77"), Mark(120, "120"), Mark(300, "300"))
"""Text limits: CLIP's 77 tokens, PixArt-α's 120 T5 tokens, PixArt-Σ's 300."""

_ROWS: Final = 16
_BAD_TONE: Final = "b"


def captions_section(report: Report) -> Section:
    """What became of the captions."""
    every = [side for side in sides(report) if _numbers(side.corpus)]
    blocks: list[Block] = [_nothing(report)] if not every else []
    if every:
        blocks.append(Text(" ".join(_summary(side) for side in every)))
        figures = [
            _tally_figure("Status", every, lambda c: c.statuses, frozenset(USABLE_STATUSES)),
            _tally_figure("How generation ended", every, lambda c: c.finish_reasons, frozenset({"stop"})),
        ]
        if any(_must(side).flags for side in every):
            figures.append(_tally_figure("Flags (a caption may have several)", every, lambda c: c.flags))
        blocks += [Figures(tuple(figures)), Figures(tuple(_repetition_figures(every)))]
    return Section(
        "captions",
        "Captions",
        "Look for statuses other than ok and trimmed, and for a heap of captions to the right of the dashed limits: "
        "those go in circles.",
        tuple(blocks),
    )


def lengths_section(report: Report) -> Section:
    """How long the captions are."""
    every = [side for side in sides(report) if _numbers(side.corpus) or side.corpus.text]
    blocks: list[Block] = [_nothing(report)] if not every else []
    if every:
        words = with_raw(every, lambda c: _of(c, "raw_words"), lambda c: _of(c, "words"))
        tokens = [Told(s.prefix or "generated", s.tone, False, found) for s in every if (found := _t5(s.corpus))]
        figures = _length_figure("Length in words", "words", words, ())
        figures += _length_figure("Length in T5 tokens", "T5 tokens", tokens, T5_MARKS)
        blocks += [Figures(tuple(figures)), _lengths_table(every), *_token_notes(every)]
    return Section(
        "lengths",
        "Lengths",
        "Look for captions to the right of the limit you will train with: 77 tokens is CLIP's, 120 PixArt-α's, 300 "
        "PixArt-Σ's; what lies beyond is cut off.",
        tuple(blocks),
    )


def _nothing(report: Report) -> Text:
    if any(corpus.captions for corpus in report.corpora):
        return Text("The captions dataset holds no caption yet.", "absent")
    return Text("Not in this report: it was made without --captions, so there is nothing to say about them.", "absent")


def _numbers(corpus: Corpus) -> CaptionNumbers | None:
    found = corpus.captions
    return found.numbers if found and found.numbers.rows else None


def _must(side: Side) -> CaptionNumbers:
    found = _numbers(side.corpus)
    assert found is not None, "sides without captions were left out"
    return found


def _of(corpus: Corpus, name: str) -> Distribution | None:
    found = _numbers(corpus)
    return getattr(found, name) if found else None


def _t5(corpus: Corpus) -> Distribution | None:
    """T5 tokens before any limit where they are known, else as they were embedded."""
    return _of(corpus, "t5_tokens") or (corpus.text.tokens if corpus.text else None)


def _summary(side: Side) -> str:
    c = _must(side)
    return (
        f"{side.prefix + ': ' if side.prefix else ''}{number(c.rows)} captions, {number(c.usable)} of them "
        f"usable ({share(c.usable, c.rows)}); {number(c.with_raw)} pictures came with a raw caption "
        f"({share(c.with_raw, c.rows)})."
    )


def _tally_figure(
    heading: str,
    every: Sequence[Side],
    counts: Callable[[CaptionNumbers], Mapping[str, int]],
    good: frozenset[str] | None = None,
) -> Figure:
    """Bars of counts with their shares; where `good` names the good ones and there is one corpus, others stand out."""
    found = {side.prefix: (counts(_must(side)), _must(side).rows) for side in every}
    totals = {name: sum(c.get(name, 0) / rows for c, rows in found.values()) for c, _ in found.values() for name in c}
    names = sorted(totals, key=lambda name: (-totals[name], name))
    most = max((n / rows for c, rows in found.values() for n in c.values()), default=1.0)

    def bar(label: str, name: str, side: Side, tone: str) -> Bar:
        c, rows = found[side.prefix]
        n = c.get(name, 0)
        return Bar(label, n / rows / most if most else 0, f"{n:,} · {share(n, rows)}", tone)

    if len(every) == 1:
        tone = {name: "a" if good is None or name in good else _BAD_TONE for name in names}
        groups = [Group("", tuple(bar(name.replace("_", " "), name, every[0], tone[name]) for name in names[:_ROWS]))]
    else:
        groups = [
            Group(name.replace("_", " "), tuple(bar(side.prefix, name, side, side.tone) for side in every))
            for name in names[:_ROWS]
        ]
    rows = []
    for name in names:
        of = [found[side.prefix] for side in every]
        rows.append((name, [f"{c.get(name, 0):,} ({share(c.get(name, 0), n)})" for c, n in of]))
    rest = len(names) - _ROWS
    note = f"and {rest:,} more" if rest > 0 else ""
    table = column_each(every, heading.partition(" (")[0].lower(), rows)
    over = f"N = {each(_must(side).rows for side in every)} captions"
    return Figure(heading, over, bars(heading, groups), note=note, numbers=table)


def _repetition_figures(every: Sequence[Side]) -> list[Figure]:
    figures = []
    for heading, name, measure, label in (
        ("Repetition", "repetition", "repeated_4grams", "share of 4-grams that came before"),
        ("Compression", "compression", "compression", "UTF-8 bytes over zlib-compressed bytes"),
    ):
        told = [Told(s.prefix or "generated", s.tone, False, found) for s in every if (found := _of(s.corpus, name))]
        if told:
            marks = [Mark(HUNDREDTHS * limit, f"{limit:g}") for limit in _limits(every, measure)]
            figures.append(histogram_figure(heading, label, told, marks, HUNDREDTHS, _upper_end(told)))
    return figures


def _limits(every: Sequence[Side], measure: str) -> list[float]:
    """Where the filters of the corpora draw the line, each once."""
    edges = [edge for side in every if side.corpus.captions for edge in side.corpus.captions.edges]
    mine = [edge.threshold.most for edge in edges if edge.threshold.measure == measure]
    return sorted({limit for limit in mine if limit is not None})


def _upper_end(told: Sequence[Told[Distribution]]) -> str:
    """The percentiles that a histogram of hundredths does not show."""
    return "; ".join(
        f"{one.name + ': ' if len(told) > 1 else ''}median {one.value.percentiles[50] / HUNDREDTHS:.2f}, "
        f"p95 {one.value.percentiles[95] / HUNDREDTHS:.2f}, p99 {one.value.percentiles[99] / HUNDREDTHS:.2f}"
        for one in told
    )


def _length_figure(heading: str, unit: str, told: Sequence[Told[Distribution]], marks: Sequence[Mark]) -> list[Figure]:
    return [histogram_figure(heading, unit, told, marks, 1, "")] if told else []


def _lengths_table(every: Sequence[Side]) -> Table:
    rows = []
    for side in every:
        for name, found in (
            ("raw, words", _of(side.corpus, "raw_words")),
            ("generated, words", _of(side.corpus, "words")),
            ("generated, engine tokens", _of(side.corpus, "tokens")),
            ("generated, T5 tokens", _of(side.corpus, "t5_tokens")),
            ("T5 tokens as embedded", side.corpus.text.tokens if side.corpus.text else None),
        ):
            if found is not None:
                rows.append(distribution_row(side.label(name), found))
    return distribution_table("length of", rows)


def _token_notes(every: Sequence[Side]) -> list[Text]:
    notes = []
    for side in every:
        known, text = _of(side.corpus, "t5_tokens"), side.corpus.text
        unknown = _numbers(side.corpus)
        if known:
            above = ", ".join(f"{share(known.share_above(int(m.value)), 1)} above {m.label}" for m in T5_MARKS)
            missing = unknown.t5_unknown if unknown else 0
            told = f"T5 tokens before any limit: {above}."
            told += f" {number(missing)} usable captions have no T5 count." if missing else ""
        elif text is None:
            told = "T5 tokens are not known: the captions were made without a T5 tokenizer, and no text was given."
        else:
            told = "T5 tokens are those of the text dataset, after its limit."
        if text:
            cut = share(text.truncated, text.volume.samples)
            told += f" Text was cut at its limit in {number(text.truncated)} of {number(text.volume.samples)} ({cut})."
        notes.append(Text(side.label(told) if not side.prefix else f"{side.prefix}: {told}", "note"))
    return notes

"""Which charts the report has, and what is in them."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from curation.report.charts import TONES, Bar, Line, Part, Series, bars, histogram, line_chart, stacked_bar
from curation.report.collect import Report
from curation.report.features import RELEASED_LATENT_BYTES, RELEASED_TEXT_BYTES
from curation.report.formats import duration, number, share
from curation.report.histogram import Distribution
from curation.report.timing import StageTime
from curation.report.training_run import TrainingNumbers, smoothed
from schemas.status import USABLE_STATUSES

TOKEN_MARKS: Final = (77, 120)
"""Text limits: CLIP's 77 tokens, and PixArt-α's 120 T5 tokens."""

_BINS: Final = 40
_ROWS: Final = 16


@dataclass(frozen=True, slots=True)
class Key:
    """An entry of a chart's legend."""

    tone: str
    name: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart with its heading, its legend, and one line below it."""

    heading: str
    chart: Markup
    keys: tuple[Key, ...] = ()
    note: str = ""


def funnel_figure(report: Report) -> Figure | None:
    """How many samples are left after each step."""
    steps = [
        ("captions", "rows in", True),
        ("captions", "readable pictures", False),
        ("usable", "usable captions", False),
        ("latents", "with latents", False),
        ("text", "with text", False),
        ("joined", "ready for training", False),
    ]
    if report.balance("captions") is None and report.balance("latents") is not None:
        steps[:3] = [("latents", "rows in", True)]
    levels = [
        (label, balance.rows_in if before else balance.kept)
        for step, label, before in steps
        if (balance := report.balance(step)) is not None
    ]
    if not levels:
        return None
    first = levels[0][1]
    most = max(1, *(n for _, n in levels))
    rows = [
        Bar(
            label,
            n / most,
            f"{n:,}" + (f" · {share(n, first)}" if i else ""),
            "b" if label.startswith("ready") else "a",
        )
        for i, (label, n) in enumerate(levels)
    ]
    return Figure("Samples after each step", bars("Samples after each step", rows))


def tally_figure(heading: str, counts: Mapping[str, int], of: int, good: frozenset[str] | None = None) -> Figure:
    """Bars of counts with their shares `of` all; where `good` names the good ones, the others stand out."""
    most = max(1, *counts.values()) if counts else 1
    shown = list(counts.items())[:_ROWS]
    rows = [
        Bar(name, n / most, f"{n:,} · {share(n, of)}", "a" if good is None or name in good else "b")
        for name, n in shown
    ]
    rest = len(counts) - len(shown)
    return Figure(heading, bars(heading, rows), note=f"and {rest:,} more" if rest else "")


def caption_figures(report: Report) -> list[Figure]:
    """Statuses, finish reasons and flags."""
    captions = report.captions
    if captions is None or not captions.rows:
        return []
    usable = frozenset(status.value for status in USABLE_STATUSES)
    figures = [
        tally_figure("Status", captions.statuses, captions.rows, usable),
        tally_figure("How generation ended", captions.finish_reasons, captions.rows, frozenset({"stop"})),
    ]
    if captions.flags:
        figures.append(tally_figure("Flags (a caption may have several)", captions.flags, captions.rows))
    return figures


def length_figures(report: Report) -> list[Figure]:
    """Lengths in words, raw against generated, and in T5 tokens."""
    captions = report.captions
    if captions is None:
        return []
    words = [("raw", captions.raw_words, "b"), ("generated", captions.words, "a")]
    figures = _length_figure("Length in words", "words", words, ())
    name = "as embedded" if report.text else "generated"
    tokens = report.text.tokens if report.text else captions.t5_tokens
    return figures + _length_figure("Length in T5 tokens", "T5 tokens", [(name, tokens, "a")], TOKEN_MARKS)


def _length_figure(
    heading: str, unit: str, columns: Sequence[tuple[str, Distribution | None, str]], marks: Sequence[int]
) -> list[Figure]:
    known = [(name, found, tone) for name, found, tone in columns if found is not None]
    if not known:
        return []
    upper = max([found.percentiles[99] for _, found, _ in known] + [mark + 10 for mark in marks])
    width = _bin_width(upper)
    bins = math.ceil((upper + 1) / width) + 1
    series = [Series(name, found.binned(width, bins), tone) for name, found, tone in known]
    chart = histogram(heading, series, width, unit, "share of captions", marks)
    keys = tuple(Key(tone, name, f"mean {found.mean:,.1f} {unit}") for name, found, tone in known)
    note = f"Bins of {width}; the last one holds all that is longer." if width > 1 else "The last bin holds all longer."
    return [Figure(heading, chart, keys, note)]


def top_noun_figures(top: Mapping[str, Sequence[tuple[str, int]]]) -> list[Figure]:
    """The most frequent nouns of each caption column by rank."""
    figures = []
    for i, (column, nouns) in enumerate(top.items()):
        most = max((n for _, n in nouns), default=1)
        tone = "b" if i == 0 and len(top) > 1 else "a"
        rows = [Bar(f"{rank} {noun}", n / most, f"{n:,}", tone) for rank, (noun, n) in enumerate(nouns, 1)]
        figures.append(Figure(f"Most frequent nouns of {column}", bars(f"Most frequent nouns of {column}", rows)))
    return figures


def feature_figures(report: Report) -> list[Figure]:
    """Bytes beside the released format, and buckets."""
    figures = []
    volumes = []
    if report.latents:
        volumes.append(("latents", report.latents.volume.per_sample, RELEASED_LATENT_BYTES))
    if report.text:
        volumes.append(("text", report.text.volume.per_sample, RELEASED_TEXT_BYTES))
    for name, ours, released in volumes:
        most = max(ours, released, 1)
        rows = [
            Bar("here", ours / most, f"{ours:,.0f} B"),
            Bar("released format", released / most, f"{released:,} B", "b"),
        ]
        figures.append(Figure(f"Bytes a sample: {name}", bars(f"Bytes a sample: {name}", rows)))
    buckets = report.latents.buckets if report.latents else {}
    if buckets:
        figures.append(tally_figure("Aspect buckets, height × width in pixels", buckets, sum(buckets.values())))
    return figures


def training_figures(training: TrainingNumbers) -> list[Figure]:
    """Loss and speed over steps."""
    figures = []
    if training.loss:
        lines = [Line("each", training.loss, "a", faint=True), Line("smoothed", smoothed(training.loss), "a")]
        keys = [Key("a", "loss, smoothed")]
        if training.validation_loss:
            lines.append(Line("validation", training.validation_loss, "b"))
            keys.append(Key("b", "validation loss"))
        chart = line_chart("Training loss over steps", lines, "step", "loss", tell=number)
        figures.append(Figure("Loss", chart, tuple(keys)))
    if training.images_per_second:
        lines = [Line("images a second", training.images_per_second, "c")]
        chart = line_chart("Images a second over steps", lines, "step", "images/s", from_zero=True, tell=number)
        figures.append(Figure("Speed", chart))
    return figures


def phase_figures(times: Sequence[StageTime]) -> list[Figure]:
    """What the workers' time of each stage went to; a phase has the same colour in all of them."""
    totals: defaultdict[str, float] = defaultdict(float)
    for time in times:
        for name, seconds in time.phases.items():
            totals[name] += seconds
    ranked = sorted(totals, key=lambda name: (-totals[name], name))
    tones = {name: TONES[place] for place, name in enumerate(ranked[: len(TONES) - 1])}
    return [_phase_figure(time, tones) for time in times if sum(time.phases.values()) > 0]


def _phase_figure(time: StageTime, tones: Mapping[str, str]) -> Figure:
    total = sum(time.phases.values())
    shown = {name: seconds for name, seconds in time.phases.items() if name in tones}
    rest = sum(seconds for name, seconds in time.phases.items() if name not in tones)
    named = [*shown.items(), *([("other", rest)] if rest else [])]
    parts = [
        Part(name, seconds, f"{duration(seconds)} · {share(seconds, total)}", tones.get(name, TONES[-1]))
        for name, seconds in named
    ]
    keys = tuple(Key(part.tone, part.label, part.text) for part in parts)
    return Figure(time.stage, stacked_bar(f"Phases of {time.stage}", parts), keys)


def _bin_width(upper: int) -> int:
    """A round width that gives about 40 bins up to `upper`."""
    power = 10 ** math.floor(math.log10(max(upper / _BINS, 1)))
    return next(m * power for m in (1, 2, 5, 10) if m * power * _BINS >= upper)

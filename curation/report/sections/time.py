"""How long each stage took, and what limited it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from curation.report.charts.bars import Part, stacked_bar
from curation.report.charts.frame import TONES
from curation.report.collect import Corpus, Report
from curation.report.document import Block, Figure, Figures, Key, Row, Section, Table, Text
from curation.report.formats import duration, number, rate, share
from curation.report.sections.sides import REST_TONE, Side, sides
from curation.report.timing import StageTime

_NOTE = (
    "Worker time adds up the seconds of all units on disk; rows/s a worker is over that. Wall time is that of all runs "
    "that made units, whatever their settings; rows/s in all is over that. Phases may overlap where threads work at "
    "once, so they are shares of their own sum."
)


def time_section(report: Report) -> Section:
    """The table, then what the workers' time went to."""
    times = [(side, time) for side in sides(report) for time in side.corpus.times]
    blocks: list[Block] = []
    if times:
        blocks += [_table(times), Text(_NOTE, "note"), Figures(tuple(_phase_figures(times)))]
        blocks += _notes(times)
    else:
        told = "Not in this report: it was made without --captions, --nouns, --latents or --text."
        blocks.append(Text(told, "absent"))
    return Section(
        "time",
        "Throughput and what limited it",
        "Look at the limiting phase: where a GPU stage is limited by anything but its model, the GPU waits.",
        tuple(block for block in blocks if not (isinstance(block, Figures) and not block.figures)),
    )


def _table(times: Sequence[tuple[Side, StageTime]]) -> Table:
    rows = []
    for side, time in times:
        wall = duration(time.wall_seconds) if time.runs else "–"
        limit = time.limited_by.partition(" (")[0] or "–"
        cells = (
            number(time.units),
            number(time.rows),
            duration(time.worker_seconds),
            _speed(time),
            _tokens(side.corpus, time),
        )
        rows.append(Row(side.label(time.stage), (*cells, wall, rate(time.rows_per_second), limit)))
    return Table(
        (
            *("stage", "units", "rows", "worker time", "rows/s a worker", "tokens/s a worker"),
            *("wall time", "rows/s in all", "limited by"),
        ),
        tuple(rows),
    )


def _speed(time: StageTime) -> str:
    return rate(time.rows_per_worker_second)


def _tokens(corpus: Corpus, time: StageTime) -> str:
    """Tokens that the captioner generated a second of its workers' time."""
    tokens = corpus.captions.numbers.tokens if corpus.captions and time.kind == "captions" else None
    if tokens is None or not time.worker_seconds:
        return "–"
    return rate(tokens.mean * tokens.rows / time.worker_seconds)


def _phase_figures(times: Sequence[tuple[Side, StageTime]]) -> list[Figure]:
    """A phase has the same colour in all of them."""
    totals: defaultdict[str, float] = defaultdict(float)
    for _, time in times:
        for name, seconds in time.phases.items():
            totals[name] += seconds
    ranked = sorted(totals, key=lambda name: (-totals[name], name))
    tones = {name: TONES[place] for place, name in enumerate(ranked[: len(TONES) - 1])}
    return [_phase_figure(side, time, tones) for side, time in times if sum(time.phases.values()) > 0]


def _phase_figure(side: Side, time: StageTime, tones: Mapping[str, str]) -> Figure:
    total = sum(time.phases.values())
    shown = {name: seconds for name, seconds in time.phases.items() if name in tones}
    rest = sum(seconds for name, seconds in time.phases.items() if name not in tones)
    named = [*shown.items(), *([("other", rest)] if rest else [])]
    parts = [
        Part(name, seconds, f"{duration(seconds)} · {share(seconds, total)}", tones.get(name, REST_TONE))
        for name, seconds in named
    ]
    keys = tuple(Key(part.tone, part.label, part.text) for part in parts)
    heading = f"Phases of {side.label(time.stage)}"
    rows = tuple(Row(name, (duration(seconds), share(seconds, total))) for name, seconds in named)
    table = Table((f"phase of {side.label(time.stage)}", "worker time", "share"), rows)
    return Figure(heading, f"N = {number(time.units)} units", stacked_bar(heading, parts), keys, numbers=table)


def _notes(times: Sequence[tuple[Side, StageTime]]) -> list[Block]:
    notes: list[Block] = []
    for side, time in times:
        name = side.label(time.stage)
        if time.retried:
            notes.append(Text(f"{name}: {number(time.retried)} units needed more than one attempt.", "note"))
        if time.unreadable_runs:
            notes.append(Text(f"{name}: {number(time.unreadable_runs)} run records could not be read.", "note"))
    return notes

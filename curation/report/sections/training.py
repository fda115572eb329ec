"""A training run: loss, speed, its last word."""

from collections.abc import Sequence

from curation.report.charts.frame import Axis
from curation.report.charts.lines import Line, line_chart
from curation.report.charts.scale import linear
from curation.report.collect import Report
from curation.report.document import Block, Figure, Figures, Heading, Key, Row, Section, Table, Text
from curation.report.formats import counted, duration, number, share, size
from curation.report.sections.sides import Side, sides
from curation.report.training_run import Points, TrainingNumbers, smoothed


def training_section(report: Report) -> Section:
    """Curves with a line each, then the last word of each run."""
    runs = [(side, side.corpus.training) for side in sides(report) if side.corpus.training]
    blocks: list[Block] = []
    if not runs:
        told = "Not in this report: it was made without --run, so there is nothing to say about training."
        blocks.append(Text(told, "absent"))
    elif any(run.records for _, run in runs):
        blocks.append(Figures(tuple(_figures(runs))))
    for side, run in runs:
        blocks += [Heading(side.prefix)] if side.prefix else []
        blocks += _last_word(run)
    return Section(
        "training",
        "Training",
        "Look for a loss that falls and stays down, and for a speed that does not sink.",
        tuple(blocks),
    )


def _last_word(run: TrainingNumbers) -> list[Block]:
    blocks: list[Block] = [] if run.records else [Text("The run has logged no step yet.", "absent")]
    if run.final:
        heading = "final summary" if run.finished else "last line of the log; the run has not written a summary"
        rows = [Row(name.replace("_", " "), (_told(name, value),)) for name, value in run.final.items()]
        blocks.append(Table((heading, "value"), tuple(rows)))
    if run.unreadable:
        told = f"{counted(run.unreadable, 'line')} of the log could not be read."
        blocks.append(Text(told, "note"))
    return [*blocks, Text(run.url, "path")]


def _figures(runs: Sequence[tuple[Side, TrainingNumbers]]) -> list[Figure]:
    losses, keys = [], []
    for side, run in runs:
        if run.loss:
            losses.append(Line("each step", run.loss, side.tone, faint=True))
            losses.append(Line(side.label("loss"), smoothed(run.loss), side.tone))
            keys.append(Key(side.tone, side.label("loss, smoothed")))
        if run.validation_loss:
            tone = side.tone if side.prefix else "b"
            losses.append(Line(side.label("validation"), run.validation_loss, tone, dashed=bool(side.prefix)))
            keys.append(Key(tone, side.label("validation loss") + (", dashed" if side.prefix else "")))
    figures = [_figure("Loss", "loss (mean squared error)", losses, keys, runs, from_zero=False)] if losses else []
    speeds = [
        Line(side.label("images a second"), run.images_per_second, side.tone if side.prefix else "c")
        for side, run in runs
        if run.images_per_second
    ]
    if speeds:
        named = [Key(line.tone, line.name) for line in speeds] if len(speeds) > 1 else []
        figures.append(_figure("Speed", "images a second", speeds, named, runs, from_zero=True))
    return figures


def _figure(
    heading: str,
    label: str,
    lines: Sequence[Line],
    keys: Sequence[Key],
    runs: Sequence[tuple[Side, TrainingNumbers]],
    *,
    from_zero: bool,
) -> Figure:
    xs, ys = [u for line in lines for u, _ in line.points], [v for line in lines for _, v in line.points]
    chart = line_chart(
        heading,
        lines,
        Axis(linear(xs), "step", number),
        Axis(linear(ys, from_zero=from_zero), label),
    )
    over = ", ".join(number(run.records) for _, run in runs)
    rows = tuple(Row(line.name, _ends(line.points)) for line in lines if not line.faint)
    table = Table((label, "first", "last", "least", "largest"), rows)
    return Figure(heading, f"N = {over} log lines", chart, tuple(keys), numbers=table)


def _ends(points: Points | Sequence[tuple[float, float]]) -> tuple[str, ...]:
    values = [value for _, value in points]
    return tuple(f"{value:.4g}" for value in (values[0], values[-1], min(values), max(values)))


def _told(name: str, value: float | str | None) -> str:
    if value is None:
        return "none"
    if isinstance(value, str):
        return value
    if name == "seconds":
        return duration(value)
    if name.endswith("_bytes") or name == "peak_memory":
        return size(value)
    if name.endswith("_share"):
        return share(value, 1)
    return number(value) if float(value).is_integer() else f"{value:.4g}"

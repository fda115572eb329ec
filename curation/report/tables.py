"""The tables of the report, as words: a header, and rows whose first cell names them."""

from collections.abc import Sequence
from dataclasses import dataclass

from curation.nouns.render import PAPER_TABLE_1
from curation.nouns.statistics import NounStatistics
from curation.report.captions import CaptionNumbers
from curation.report.collect import DatasetFacts, Report
from curation.report.features import RELEASED_LATENT_BYTES, RELEASED_TEXT_BYTES, Volume
from curation.report.formats import duration, number, rate, share, size
from curation.report.histogram import Distribution
from curation.report.nouns import NounNumbers
from curation.report.timing import StageTime


@dataclass(frozen=True, slots=True)
class Row:
    """One row; `quiet` ones are printed with less weight, `other` ones are not ours."""

    name: str
    cells: tuple[str, ...]
    quiet: bool = False
    other: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """`header` names the first cell and then the others. `words` says that cells are words and not numbers."""

    header: tuple[str, ...]
    rows: tuple[Row, ...]
    words: bool = False


def settings_table(facts: DatasetFacts) -> Table:
    """The whole resolved configuration of a dataset, and the versions it was made by."""
    rows = [Row("source", (facts.source,)), Row("dataset id", (facts.dataset_id,))]
    rows += [Row("fingerprint", (facts.fingerprint,))]
    rows += [Row(name, (value,)) for name, value in facts.config.items()]
    rows += [Row(f"{name} version", (", ".join(found),), quiet=True) for name, found in facts.versions.items()]
    return Table(("setting", "value"), tuple(rows), words=True)


def lengths_table(captions: CaptionNumbers, report: Report) -> Table:
    """Means and percentiles of caption lengths."""
    text = report.text.tokens if report.text else None
    lengths = [
        ("raw, words", captions.raw_words),
        ("generated, words", captions.words),
        ("generated, engine tokens", captions.tokens),
        ("T5 tokens as embedded" if text else "generated, T5 tokens", text or captions.t5_tokens),
    ]
    rows = [_length_row(name, found) for name, found in lengths if found is not None]
    return Table(("length of", "captions", "mean", "p5", "p25", "median", "p75", "p95", "p99", "max"), tuple(rows))


def _length_row(name: str, found: Distribution) -> Row:
    p = found.percentiles
    percentiles = (number(p[percent]) for percent in (5, 25, 50, 75, 95, 99))
    return Row(name, (number(found.rows), f"{found.mean:,.1f}", *percentiles, number(found.most)))


def noun_table(nouns: NounNumbers) -> Table:
    """Ours at the full N, ours at equal N, then the paper's Table 1."""
    rows = [_noun_row(row, row.column, quiet=row.counted != "NOUN+PROPN") for row in nouns.whole]
    rows += [_noun_row(row, f"{row.column}, equal N", quiet=False) for row in nouns.equal]
    rows += [
        Row(
            f"PixArt-α: {paper.name}",
            (
                *("not stated", paper.captions, paper.valid, paper.distinct, paper.share, paper.nouns),
                *(f"{paper.per_caption:.1f}", "–"),
            ),
            other=True,
        )
        for paper in PAPER_TABLE_1
    ]
    header = ("captions of", "counted", "N captions", "VN", "DN", "VN/DN", "nouns", "per caption", "unseen")
    return Table(header, tuple(rows))


def _noun_row(row: NounStatistics, name: str, *, quiet: bool) -> Row:
    about = "≈ " if row.expected else ""
    cells = (
        *(row.counted.value, f"{row.captions:,}", f"{about}{row.valid:,.0f}", f"{about}{row.distinct:,.0f}"),
        *(f"{row.valid_share:.1%}", f"{about}{row.nouns:,.0f}", f"{row.per_caption:.1f}", f"{row.unseen:.1%}"),
    )
    return Row(name, cells, quiet=quiet)


def volume_table(report: Report) -> Table:
    """Bytes a sample beside what the released format takes."""
    rows = []
    if report.latents:
        rows.append(_volume_row("latents", report.latents.volume, RELEASED_LATENT_BYTES))
    if report.text:
        rows.append(_volume_row("text", report.text.volume, RELEASED_TEXT_BYTES))
    return Table(
        ("feature", "samples", "bytes a sample", "released format", "ratio", "content", "on disk"), tuple(rows)
    )


def _volume_row(name: str, volume: Volume, released: int) -> Row:
    ratio = share(volume.per_sample, released)
    cells = (number(volume.samples), f"{volume.per_sample:,.0f} B", f"{released:,} B", ratio)
    return Row(name, (*cells, size(volume.content_bytes), size(volume.disk_bytes)))


def time_table(times: Sequence[StageTime]) -> Table:
    """Units, rows and seconds of each stage."""
    return Table(
        ("stage", "units", "rows", "worker time", "rows/s a worker", "wall time", "rows/s in all", "limited by"),
        tuple(_time_row(time) for time in times),
    )


def _time_row(time: StageTime) -> Row:
    cells = (number(time.units), number(time.rows), duration(time.worker_seconds), rate(time.rows_per_worker_second))
    wall = duration(time.wall_seconds) if time.runs else "–"
    limit = time.limited_by.partition(" (")[0] or "–"
    return Row(time.stage, (*cells, wall, rate(time.rows_per_second), limit))


def final_table(final: dict[str, float | str | None]) -> Table:
    """The last word of a training run."""
    rows = []
    for name, value in final.items():
        told = "none" if value is None else value if isinstance(value, str) else _final_number(name, value)
        rows.append(Row(name.replace("_", " "), (told,)))
    return Table(("", "value"), tuple(rows))


def _final_number(name: str, value: float) -> str:
    if name == "seconds":
        return duration(value)
    if name.endswith("_bytes") or name == "peak_memory":
        return size(value)
    if name.endswith("_share"):
        return share(value, 1)
    return number(value) if float(value).is_integer() else f"{value:.4g}"

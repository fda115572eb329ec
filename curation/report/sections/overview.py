"""The head of the report: what the data is, in a few words and figures; and several corpora in one table."""

from collections.abc import Callable, Sequence

from curation.nouns.spectrum import Counted
from curation.nouns.statistics import NounStatistics, noun_statistics
from curation.report.collect import Corpus, Report
from curation.report.document import Headline, Section
from curation.report.formats import counted, number, share, size
from curation.report.histogram import Distribution
from curation.report.nouns import RAW_COLUMN
from curation.report.sections.sides import column_each, sides


def title(report: Report) -> str:
    """The corpora's names, or what a single one was made from."""
    if len(report.corpora) > 1:
        return " · ".join(corpus.name for corpus in report.corpora)
    (corpus,) = report.corpora
    images = [facts for facts in corpus.datasets if facts.kind in ("captions", "latents")]
    if images:
        return " and ".join(sorted({facts.source for facts in images}))
    return corpus.datasets[0].source if corpus.datasets else "training run"


def lead(report: Report) -> str:
    """How much there is, and of when."""
    newest = max((facts.newest_run for corpus in report.corpora for facts in corpus.datasets), default="")
    parts = [f"{len(report.corpora)} corpora side by side"] if len(report.corpora) > 1 else []
    if len(report.corpora) == 1:
        images = next((f for f in report.corpora[0].datasets if f.kind in ("captions", "latents")), None)
        if images:
            parts.append(f"{counted(images.rows_in, 'sample')} of {counted(images.shards, 'shard')}")
    return ", ".join([*parts, *([f"newest run {newest}"] if newest else [])])


def headlines(report: Report) -> tuple[Headline, ...]:
    """The figures that everybody looks for, of a single corpus."""
    if len(report.corpora) != 1:
        return ()
    (corpus,) = report.corpora
    first, out = corpus.samples, []
    if first is not None:
        out.append(Headline("samples in", f"{first:,}"))
    for step, name in (("captions", "captioned"), ("usable", "usable captions"), ("joined", "ready for training")):
        balance = corpus.balance(step)
        if balance is not None and first is not None:
            out.append(Headline(name, f"{balance.kept:,}", f"{share(balance.kept, first)} of samples"))
    words = corpus.captions.numbers.words if corpus.captions else None
    if words:
        out.append(Headline("words a caption", f"{words.mean:,.1f}", f"median {number(words.percentiles[50])}"))
    if corpus.text and corpus.latents:
        total = corpus.text.volume.per_sample + corpus.latents.volume.per_sample
        out.append(Headline("features a sample", size(total), "latents and text"))
    final = corpus.training.final if corpus.training else {}
    loss = final.get("last_loss", final.get("loss"))
    if isinstance(loss, float | int):
        out.append(Headline("last training loss", f"{loss:.4g}"))
    return tuple(out)


def compare_section(report: Report) -> Section:
    """A table with a column for each corpus."""
    every = sides(report)
    told = [*_ROWS, *_at_equal_captions(report), ("features a sample", _per_sample), ("odd shards", _outliers)]
    rows = [(name, [tell(side.corpus) for side in every]) for name, tell in told]
    return Section(
        "compare",
        "Side by side",
        "Look for the row in which the corpora differ most, then go to its section.",
        (column_each(every, "", rows),),
    )


def _samples(corpus: Corpus) -> str:
    return "–" if corpus.samples is None else number(corpus.samples)


def _step(step: str) -> Callable[[Corpus], str]:
    def tell(corpus: Corpus) -> str:
        balance = corpus.balance(step)
        return "–" if balance is None else f"{number(balance.kept)} ({share(balance.kept, balance.rows_in)})"

    return tell


def _mean(pick: Callable[[Corpus], Distribution | None], digits: int = 1, per: int = 1) -> Callable[[Corpus], str]:
    def tell(corpus: Corpus) -> str:
        found = pick(corpus)
        return "–" if found is None else f"{found.mean / per:,.{digits}f}"

    return tell


def _above(limit: int) -> Callable[[Corpus], str]:
    def tell(corpus: Corpus) -> str:
        found = corpus.captions.numbers.t5_tokens if corpus.captions else None
        return "–" if found is None else share(found.share_above(limit), 1)

    return tell


def _at_equal_captions(report: Report) -> list[tuple[str, Callable[[Corpus], str]]]:
    """VN and DN at the number of captions that all corpora have: at their own they would not compare."""
    columns = [(corpus, _noun_column(corpus)) for corpus in report.corpora]
    totals = [c.nouns.findings.summary.total(column, "captions") for c, column in columns if c.nouns and column]
    if not totals:
        return []
    fewest = min(totals)
    at = f"at {number(fewest)} captions"
    return [
        (f"VN {at}", lambda c: _told_nouns(c, fewest, lambda row: f"{row.valid:,.0f}")),
        (f"DN {at}", lambda c: _told_nouns(c, fewest, lambda row: f"{row.distinct:,.0f}")),
        (f"VN/DN {at}", lambda c: _told_nouns(c, fewest, lambda row: f"{row.valid_share:.1%}")),
    ]


def _noun_column(corpus: Corpus) -> str | None:
    """The first counted column that is not the raw caption, else that."""
    columns = corpus.nouns.columns if corpus.nouns else ()
    return next((c for c in columns if c != RAW_COLUMN), RAW_COLUMN) if columns else None


def _told_nouns(corpus: Corpus, captions: int | None, tell: Callable[[NounStatistics], str]) -> str:
    column = _noun_column(corpus)
    if corpus.nouns is None or column is None:
        return "–"
    return tell(noun_statistics(corpus.nouns.findings.summary, column, Counted.BOTH, captions))


def _per_sample(corpus: Corpus) -> str:
    volumes = [found.volume.per_sample for found in (corpus.latents, corpus.text) if found]
    return size(sum(volumes)) if volumes else "–"


def _outliers(corpus: Corpus) -> str:
    if corpus.captions is None or not corpus.captions.outliers.figures:
        return "–"
    return number(len({one.shard for one in corpus.captions.outliers.found}))


_ROWS: Sequence[tuple[str, Callable[[Corpus], str]]] = (
    ("samples in", _samples),
    ("captioned", _step("captions")),
    ("usable captions", _step("usable")),
    ("with text", _step("text")),
    ("with latents", _step("latents")),
    ("ready for training", _step("joined")),
    ("words a raw caption", _mean(lambda c: c.captions.numbers.raw_words if c.captions else None)),
    ("words a caption", _mean(lambda c: c.captions.numbers.words if c.captions else None)),
    ("T5 tokens a caption", _mean(lambda c: c.captions.numbers.t5_tokens if c.captions else None)),
    ("above 77 T5 tokens", _above(77)),
    ("above 120 T5 tokens", _above(120)),
    ("above 300 T5 tokens", _above(300)),
    ("repeated 4-grams, mean share", _mean(lambda c: c.captions.numbers.repetition if c.captions else None, 3, 100)),
    ("compression, mean", _mean(lambda c: c.captions.numbers.compression if c.captions else None, 2, 100)),
    ("captions whose nouns were counted", lambda c: _told_nouns(c, None, lambda row: number(row.captions))),
    ("nouns a caption", lambda c: _told_nouns(c, None, lambda row: f"{row.per_caption:.1f}")),
)

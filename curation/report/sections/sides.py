"""How several corpora stand side by side: each with a name and a colour, raw captions behind what was made of them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from curation.report.charts.frame import TONES
from curation.report.collect import Corpus, Report
from curation.report.document import Row, Table

T = TypeVar("T")

RAW_TONE = "b"
REST_TONE = "f"


@dataclass(frozen=True, slots=True)
class Side:
    """A corpus with its colour. `prefix` is its name before a label, empty where there is only one corpus."""

    corpus: Corpus
    tone: str
    prefix: str

    def label(self, text: str) -> str:
        """`text` of this corpus."""
        return f"{self.prefix} · {text}" if self.prefix else text


@dataclass(frozen=True, slots=True)
class Told(Generic[T]):
    """Something that a chart shows a line of, or a table a row."""

    name: str
    tone: str
    faint: bool
    value: T


def sides(report: Report) -> tuple[Side, ...]:
    """The corpora in order."""
    alone = len(report.corpora) == 1
    return tuple(
        Side(corpus, TONES[i % (len(TONES) - 1)], "" if alone else corpus.name)
        for i, corpus in enumerate(report.corpora)
    )


def with_raw(
    every: Sequence[Side],
    raw: Callable[[Corpus], T | None],
    made: Callable[[Corpus], T | None],
    word: str = "generated",
) -> list[Told[T]]:
    """What was made of each corpus, behind it the raw. Corpora over the same pictures have the same raw captions, which
    are then told once."""
    raws = [(side, value) for side in every if (value := raw(side.corpus)) is not None]
    mades = [(side, value) for side in every if (value := made(side.corpus)) is not None]
    out: list[Told[T]]
    if len(every) == 1:
        out = [Told("raw", RAW_TONE, faint=False, value=value) for _, value in raws]
    elif all(value == raws[0][1] for _, value in raws):
        out = [Told("raw", REST_TONE, faint=False, value=value) for _, value in raws[:1]]
    else:
        out = [Told(side.label("raw"), side.tone, faint=True, value=value) for side, value in raws]
    return out + [Told(side.prefix or word, side.tone, faint=False, value=value) for side, value in mades]


def column_each(every: Sequence[Side], first: str, rows: Iterable[tuple[str, Sequence[str]]]) -> Table:
    """A table with a column for each corpus; a dash where one has nothing to say."""
    header = (first, *(side.prefix or "value" for side in every))
    return Table(header, tuple(Row(name, tuple(cells)) for name, cells in rows if any(cell != "–" for cell in cells)))

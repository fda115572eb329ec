"""How much of a reference list of nouns a caption column covers, and how much of the column lies outside the list."""

import gzip
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import fsspec
import numpy as np
import pyarrow as pa

from curation.nouns.merging import Run, merge_sorted
from curation.nouns.rarefaction import Ints
from curation.nouns.spectrum import Counted, frequencies
from curation.nouns.statistics import VALID_ABOVE, spectrum_of
from curation.nouns.summary import NounSummary
from schemas.errors import UserError

_SCHEMA: Final = pa.schema([("noun", pa.string()), ("tf", pa.int64()), ("listed", pa.int64())])


@dataclass(frozen=True, slots=True)
class Coverage:
    """Of `entries` nouns of the reference, so many occur at least `once` in the column's `captions`, and so many are
    `valid`: they occur more than 10 times.

    `outside` is the share of the column's noun occurrences that are not in the list; `phrases` the entries of several
    words, which no single token can match, so they count as not covered.
    """

    column: str
    counted: Counted
    captions: int
    reference: str
    entries: int
    phrases: int
    once: int
    valid: int
    outside: float


def cover(
    counts: NounSummary,
    column: str,
    rows: Iterable[pa.Table],
    reference: str,
    listed: Run,
    counted: Counted = Counted.BOTH,
) -> Coverage:
    """The coverage of a caption column, from its rows of `schemas.tables.NOUNS` in order of noun.

    `listed` is the reference as `listed_lines` or `listed_nouns` give it. Of each one block is in memory.
    """
    entries = phrases = once = valid = inside = outside = 0
    for table in merge_sorted([_run(rows, counted), listed], ("noun",)):
        tf, in_list = table["tf"].to_numpy(), table["listed"].to_numpy() > 0
        entries += int(in_list.sum())
        phrases += sum(" " in noun for noun in table["noun"].filter(pa.array(in_list)).to_pylist())
        once += int((in_list & (tf > 0)).sum())
        valid += int((in_list & (tf > VALID_ABOVE)).sum())
        inside += int(tf[in_list].sum())
        outside += int(tf[~in_list].sum())
    share = outside / (inside + outside) if inside + outside else 0.0
    captions = spectrum_of(counts, column, counted).captions
    return Coverage(column, counted, captions, reference, entries, phrases, once, valid, share)


def listed_lines(url: str) -> Run:
    """The reference in the text file at `url`, one noun a line, perhaps .gz.

    Entries are put in lower case, underscores read as spaces, blank lines and repetitions left out. Raises `UserError`
    for a file without any, or not UTF-8.
    """
    try:
        with fsspec.open(url, "rb", compression="gzip" if url.lower().endswith(".gz") else None) as file:
            text = file.read().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(
            f"--reference {url}: no such file. Give a text file, a noun a line, or a nouns dataset."
        ) from None
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
        raise UserError(f"--reference {url}: not a UTF-8 text file ({error}). Give one noun a line.") from None
    nouns = sorted({" ".join(line.lower().replace("_", " ").split()) for line in text.splitlines()} - {""})
    if not nouns:
        raise UserError(f"--reference {url}: no nouns in it. Give one noun a line.")
    yield _listed(pa.array(nouns, pa.string()))


def listed_nouns(columns: Iterable[Iterable[pa.Table]]) -> Run:
    """The reference that the nouns of counted caption columns make, from the rows of each in order of noun."""

    def run(rows: Iterable[pa.Table]) -> Run:
        for table in rows:
            yield _listed(table["noun"])

    yield from merge_sorted((run(rows) for rows in columns), ("noun",))


def _run(rows: Iterable[pa.Table], counted: Counted) -> Run:
    for table in rows:
        tf = frequencies(table, counted)[0]
        yield _table(table["noun"], tf, np.zeros_like(tf))


def _listed(nouns: "pa.Array | pa.ChunkedArray") -> pa.Table:
    return _table(nouns, np.zeros(len(nouns), np.int64), np.ones(len(nouns), np.int64))


def _table(nouns: "pa.Array | pa.ChunkedArray", tf: Ints, listed: Ints) -> pa.Table:
    return pa.table({"noun": nouns, "tf": tf, "listed": listed}, schema=_SCHEMA)

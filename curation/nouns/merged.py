"""The counts of a whole nouns dataset: its units merged, kept in `merged.parquet`, and read back in blocks.

`merged.parquet` carries the digest of the units that it was made from. One that was made from others does not count:
readers then merge the units again, in a temporary directory.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.nouns.counting import NOUN_KEYS, TOTAL_KEYS
from curation.nouns.merging import BLOCK_ROWS, Run, merge_runs, read_run, regroup, sum_by_keys
from curation.nouns.stage import TOTALS_DIR, rules_of
from curation.nouns.summary import NounSummary, summarise
from curation.shards.fingerprint import digest_of
from curation.shards.sinks import HashingFile
from curation.shards.target import Target, discard
from schemas.dataset import MERGED_NOUNS_FILE, table_path
from schemas.location import file_system
from schemas.reading import Dataset
from schemas.tables import NOUN_TOTALS, NOUNS

_FROM_KEY: Final = b"latentmill.merged_from"
_GROUP_ROWS: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class MergedCounts:
    """The merged counts of a dataset: their summary in memory, the nouns themselves in a file."""

    summary: NounSummary
    _fs: Any
    _path: str

    def rows(self, column: str) -> Run:
        """The rows of `schemas.tables.NOUNS` of a caption column, in order of noun, block by block."""
        yield from _read(self._fs, self._path, column)


@contextmanager
def merged_counts(dataset: Dataset) -> Iterator[MergedCounts]:
    """The merged counts of all whole units of a nouns dataset, from `merged.parquet` or, without a current one, from a
    temporary file that lives as long as the context."""
    with tempfile.TemporaryDirectory(prefix="latentmill-nouns-") as scratch:
        fs, path = dataset.fs, dataset.path(MERGED_NOUNS_FILE)
        if not is_current(dataset):
            fs, path = file_system(scratch)[0], f"{scratch}/{MERGED_NOUNS_FILE}"
            _write(dataset, path, Path(scratch))
        summary = summarise(rules_of(dataset.info.config), _totals(dataset), _read(fs, path, None))
        yield MergedCounts(summary, fs, path)


def write_merged(dataset: Dataset) -> None:
    """Merge the units of a nouns dataset into its `merged.parquet`, unless that is current."""
    if is_current(dataset):
        return
    target = Target(dataset.url)
    temporary = target.temporary(MERGED_NOUNS_FILE)
    try:
        with tempfile.TemporaryDirectory(prefix="latentmill-nouns-") as scratch:
            _write(dataset, temporary, Path(scratch))
        target.publish(temporary, MERGED_NOUNS_FILE)
    finally:
        discard(temporary)


def is_current(dataset: Dataset) -> bool:
    """Whether `merged.parquet` is there and was made from the dataset's units as they are."""
    path = dataset.path(MERGED_NOUNS_FILE)
    if not dataset.fs.exists(path):
        return False
    try:
        with dataset.fs.open(path, "rb") as file:
            metadata = pq.read_schema(file).metadata
    except pa.ArrowInvalid:  # a damaged file is made again
        return False
    return (metadata or {}).get(_FROM_KEY) == _made_from(dataset)


def _write(dataset: Dataset, path: str, scratch: Path) -> None:
    """Merge the units into the local file `path`."""
    schema = NOUNS.arrow
    units = [partial(_unit, dataset, table_path(entry.unit)) for entry in dataset.entries]
    merged = merge_runs(units, NOUN_KEYS, schema, scratch)
    stamped = schema.with_metadata({**schema.metadata, _FROM_KEY: _made_from(dataset)})
    file = HashingFile(path)
    with pq.ParquetWriter(file, stamped, compression="zstd", compression_level=3) as writer:
        for table in regroup(merged, _GROUP_ROWS):
            writer.write_table(table.cast(stamped))
    file.finish()


def _unit(dataset: Dataset, relative: str) -> Run:
    with dataset.fs.open(dataset.path(relative), "rb") as file:
        NOUNS.check(pq.read_schema(file), f"{dataset.url}/{relative}")
        file.seek(0)
        yield from read_run(file)


def _read(fs: Any, path: str, column: str | None) -> Run:
    """The rows of a merged file, of one caption column or of all."""
    with fs.open(path, "rb") as file, pq.ParquetFile(file) as parquet:
        for group in range(parquet.num_row_groups):
            span = parquet.metadata.row_group(group).column(0).statistics
            if column is not None and not span.min <= column <= span.max:
                continue
            for batch in parquet.iter_batches(batch_size=BLOCK_ROWS, row_groups=[group], use_threads=False):
                table = pa.Table.from_batches([batch])
                yield table if column is None else table.filter(pc.equal(table["column"], column))


def _totals(dataset: Dataset) -> pa.Table:
    parts = [NOUN_TOTALS.arrow.empty_table(), *dataset.tables(NOUN_TOTALS, folder=TOTALS_DIR)]
    return sum_by_keys(pa.concat_tables([part.cast(NOUN_TOTALS.arrow) for part in parts]), TOTAL_KEYS)


def _made_from(dataset: Dataset) -> bytes:
    """The digest of what the merged counts follow from."""
    digests = {output.path: output.digest for entry in dataset.entries for output in entry.outputs}
    return digest_of({"fingerprint": dataset.info.fingerprint, "outputs": digests}).encode()

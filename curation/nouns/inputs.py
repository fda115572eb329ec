"""Where captions are counted from: the units of a captions dataset, or files of rows that have captions in them."""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from curation.execution.plan import ShardPlan
from curation.execution.stage import Unit
from curation.shards.fingerprint import digest_file
from curation.shards.urls import shard_name
from schemas.dataset import InputIdentity, PlannedUnit
from schemas.errors import UserError
from schemas.reading import damage_told

_PARQUET_ROWS: Final = 4096
_IMAGE_NAME: Final = ("key", "shard")


class FileKind(StrEnum):
    """How a file holds its rows."""

    PARQUET = "parquet"
    JSONL = "jsonl"
    TEXT = "text"  # one caption a line


@dataclass(frozen=True, slots=True)
class CaptionRow:
    """One row: for each column its captions (several where the row holds a list; None is an empty one).

    A row that cannot be read has no captions and says why in `fault`. Rows of a captions dataset name their image.
    """

    captions: Mapping[str, Sequence[str | None]]
    fault: str = ""
    key: str = ""
    shard: str = ""


def file_kind(url: str) -> FileKind:
    """How the file at `url` holds its rows, by its extension. Raises `UserError` for another extension."""
    name = url.lower().removesuffix(".gz")
    for kind, extensions in (
        (FileKind.PARQUET, (".parquet",)),
        (FileKind.JSONL, (".jsonl", ".ndjson")),
        (FileKind.TEXT, (".txt",)),
    ):
        if name.endswith(extensions):
            return kind
    raise UserError(f"{url}: neither .parquet, .jsonl nor .txt (the last two perhaps .gz). Convert or rename it.")


def check_columns(url: str, columns: Sequence[str]) -> None:
    """Raise `UserError` unless the Parquet file at `url` has all `columns`; other kinds are checked row by row."""
    if file_kind(url) is not FileKind.PARQUET:
        return
    with _parquet(url) as file:
        names = file.schema_arrow.names
    missing = [column for column in columns if column not in names]
    if missing:
        raise UserError(f"{url}: no column {', '.join(missing)}; it has {', '.join(names)}. Name others by --columns.")


def plan_caption_files(urls: Iterable[str]) -> Iterator[ShardPlan]:
    """One unit a file. A file is read through once, for its digest and its number of rows, when its turn comes."""
    for url in urls:
        name = shard_name(url)
        fs, path = fsspec.core.url_to_fs(url)
        identity = InputIdentity(url.rpartition("/")[2], int(fs.size(path)), digest_file(url), "")
        yield ShardPlan(name, (Unit(PlannedUnit(name, name, 0, _count_rows(url)), url, (identity,)),))


def caption_rows(url: str, columns: Sequence[str], *, of_images: bool = False) -> Iterator[CaptionRow]:
    """The rows of the file at `url`, in order. The one column of a text file has the first name in `columns`.

    With `of_images` the file is a unit of a captions dataset, and each row comes with its key and shard.
    """
    kind = file_kind(url)
    if kind is FileKind.PARQUET:
        yield from _parquet_rows(url, columns, of_images)
        return
    for line in _lines(url, kind):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            yield CaptionRow({}, f"not UTF-8: {error}")
            continue
        yield CaptionRow({columns[0]: [text]}) if kind is FileKind.TEXT else _json_row(text, columns)


def _parquet_rows(url: str, columns: Sequence[str], of_images: bool) -> Iterator[CaptionRow]:
    read = list(dict.fromkeys([*_IMAGE_NAME, *columns] if of_images else columns))
    with _parquet(url) as file:
        for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=read):
            for row in batch.to_pylist():
                named = _row_of(row, columns)
                yield replace(named, key=row["key"], shard=row["shard"]) if of_images else named


def _json_row(text: str, columns: Sequence[str]) -> CaptionRow:
    try:
        row = json.loads(text)
    except ValueError as error:
        return CaptionRow({}, f"not JSON: {error}")
    if not isinstance(row, dict):
        return CaptionRow({}, f"a {type(row).__name__}, not an object")
    missing = [column for column in columns if column not in row]
    if missing:
        return CaptionRow({}, f"no {', '.join(missing)}; it has {', '.join(row)}")
    return _row_of(row, columns)


def _row_of(row: Mapping[str, Any], columns: Sequence[str]) -> CaptionRow:
    captions: dict[str, Sequence[str | None]] = {}
    for column in columns:
        value = row[column]
        values = value if isinstance(value, list) else [value]
        if not all(v is None or isinstance(v, str) for v in values):
            return CaptionRow({}, f"{column}: neither text nor a list of texts")
        captions[column] = values
    return CaptionRow(captions)


def _count_rows(url: str) -> int:
    kind = file_kind(url)
    if kind is FileKind.PARQUET:
        with _parquet(url) as file:
            return int(file.metadata.num_rows)
    return sum(1 for _ in _lines(url, kind))


def _lines(url: str, kind: FileKind) -> Iterator[bytes]:
    """The lines of a file without their ends. Blank lines of JSONL are no rows; those of text are empty captions."""
    try:
        with fsspec.open(url, "rb", compression="gzip" if url.lower().endswith(".gz") else None) as file:
            for number, line in enumerate(file):
                line = line.rstrip(b"\r\n")
                if number == 0:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if line.strip() or kind is FileKind.TEXT:
                    yield line
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{url}: damaged gzip ({error}). Fetch the file again.") from None


@contextmanager
def _parquet(url: str) -> Iterator[pq.ParquetFile]:
    fs, path = fsspec.core.url_to_fs(url)
    with fs.open(path, "rb") as file:
        try:
            parquet = pq.ParquetFile(file)
        except pa.ArrowInvalid as error:
            raise UserError(f"{url}: not a Parquet file ({error}). Fetch the file again.") from None
        with damage_told(url):
            yield parquet

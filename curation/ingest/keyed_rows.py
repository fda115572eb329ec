"""Texts keyed by sample, from wherever people publish them: an archive or folder of txt files, JSONL, Parquet.

Everything is read as a stream, so memory does not grow with the number of rows; a zip's table of contents is the
exception (about half a kilobyte a file).
"""

import gzip
import json
import posixpath
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from curation.shards.container import read_archive, stream_tgz
from curation.shards.grouping import relative_name, split_at_first_dot
from curation.sources.base import IMAGE_EXTENSIONS
from schemas.errors import UserError
from schemas.location import file_system
from schemas.record import canonical_json

_SEPARATOR: Final = "\0"
_PARQUET_ROWS: Final = 8192
_STEM_ENDS: Final = IMAGE_EXTENSIONS | {"txt", "json"}


@dataclass(frozen=True, slots=True)
class KeyedBy:
    """How a row names its sample, and where its text is. Columns of JSON may be paths with dots, as `Task2.Caption`.

    `by_name` compares only what follows the last slash of a key, for archives whose folders mean nothing. Without
    `text` the whole row, as JSON, is the text. txt files have no columns: their key is their path.
    """

    key: str = "key"
    text: str | None = "caption"
    shard: str | None = None
    by_name: bool = False

    def of(self, key: str, shard: str | None) -> str:
        """The key under which a text is found: `key` without `./` and without the extension of a picture or text, and
        before it `shard` where shards count."""
        return self.of_sample(_without_extension(key), shard)

    def of_sample(self, key: str, shard: str | None) -> str:
        """The same for the key of a sample, which has no extension."""
        name = key.rpartition("/")[2] if self.by_name else key
        return f"{shard}{_SEPARATOR}{name}" if self.shard is not None else name


def split_key(key: str) -> tuple[str, str | None]:
    """(key, shard) of what `KeyedBy.of` made."""
    shard, separator, name = key.rpartition(_SEPARATOR)
    return (name, shard) if separator else (key, None)


def keyed_rows(url: str, keyed: KeyedBy) -> Iterator[tuple[str, str | None]]:
    """(key, text) of each row of `url`, in order; the text is None where the row has none.

    Raises `UserError` for a file that is damaged, of an unknown kind, or without the columns that `keyed` names.
    """
    fs, path = file_system(url)
    name = posixpath.basename(path.rstrip("/")).lower()
    if fs.isdir(path):
        for file in sorted(fs.find(path)):
            if file.lower().endswith(".txt"):
                yield _text_row(posixpath.relpath(file, path), fs.cat_file(file), keyed, url)
    elif name.endswith((".jsonl.tgz", ".jsonl.tar.gz")):
        yield from _packed_lines(url, keyed)
    elif name.endswith((".tar", ".tgz", ".tar.gz")):
        for member, content in read_archive(url, gunzip=not name.endswith(".tar")):
            if member.name.lower().endswith(".txt"):
                yield _text_row(member.name, content, keyed, url)
    elif name.endswith(".zip"):
        yield from _zip(url, keyed)
    elif name.endswith((".jsonl", ".jsonl.gz")):
        with fs.open(path, "rb") as file, _gzip_errors(url):
            lines = gzip.GzipFile(fileobj=file) if name.endswith(".gz") else file
            yield from _lines(lines, keyed, url)
    elif name.endswith(".parquet"):
        yield from _parquet(url, keyed)
    else:
        raise UserError(
            f"{url}: texts are read from a folder, .tar, .tar.gz, .zip, .jsonl, .jsonl.gz, .jsonl.tgz or .parquet."
        )


def _packed_lines(url: str, keyed: KeyedBy) -> Iterator[tuple[str, str | None]]:
    """The rows of the JSONL in a tgz, which may be too large to be held: JourneyDB's train annotations are 10 GB."""
    for member, pieces in stream_tgz(url):
        if not member.odd and member.name.lower().endswith(".jsonl"):
            yield from _lines(_split(pieces), keyed, f"{url}: {member.name}")


def _split(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a content in pieces."""
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole
    if rest:
        yield rest


@contextmanager
def _gzip_errors(url: str) -> Iterator[None]:
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{url}: damaged or cut short ({error}). Fetch it again.") from None


def _zip(url: str, keyed: KeyedBy) -> Iterator[tuple[str, str | None]]:
    fs, path = file_system(url)
    try:
        with fs.open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                if name.lower().endswith(".txt"):
                    yield _text_row(name, archive.read(name), keyed, url)
    except zipfile.BadZipFile as error:
        raise UserError(f"{url}: {error}. Fetch it again.") from None


def _text_row(name: str, content: bytes, keyed: KeyedBy, where: str) -> tuple[str, str | None]:
    if keyed.shard is not None:
        raise UserError(f"{where}: txt files name no shard; leave out --shard-column.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{where}: {name} is not UTF-8. Convert it, or take it out.") from None
    return keyed.of(name, None), text


def _lines(lines: Iterable[bytes], keyed: KeyedBy, where: str) -> Iterator[tuple[str, str | None]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_constant=lambda _: None)
        except ValueError as error:
            raise UserError(f"{where}: line {number} is not JSON ({error}). Mend it, or take it out.") from None
        if not isinstance(row, dict):
            raise UserError(f"{where}: line {number} holds a {type(row).__name__}, expected an object.")
        yield _row(row, keyed, f"{where}: line {number}")


def _parquet(url: str, keyed: KeyedBy) -> Iterator[tuple[str, str | None]]:
    fs, path = file_system(url)
    wanted = [name for name in (keyed.key, keyed.text, keyed.shard) if name is not None]
    try:
        with fs.open(path, "rb") as file:
            parquet = pq.ParquetFile(file)
            for name in wanted:
                if name not in parquet.schema_arrow.names:
                    raise UserError(f"{url}: no column {name}; it has {', '.join(parquet.schema_arrow.names)}.")
            for batch in parquet.iter_batches(_PARQUET_ROWS, columns=wanted):
                for row in batch.to_pylist():
                    yield _row(row, keyed, url)
    except (pa.ArrowException, OSError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{url}: not readable as Parquet ({first}). Fetch it again.") from None
    except UnicodeDecodeError:  # Parquet's readers take the writer's word for it
        raise UserError(f"{url}: a text in it is not UTF-8. Convert the file, or take the row out.") from None


def _row(row: Mapping[str, Any], keyed: KeyedBy, where: str) -> tuple[str, str | None]:
    key, shard = _value(row, keyed.key), _value(row, keyed.shard) if keyed.shard else None
    if not isinstance(key, str | int) or (keyed.shard and not isinstance(shard, str)):
        raise UserError(
            f"{where}: no {keyed.key if shard or not keyed.shard else keyed.shard}; it has {', '.join(row)}."
        )
    for name in (key, shard):
        if isinstance(name, str) and not _is_text(name):
            raise UserError(
                f"{where}: {name!r} holds half a character, so it names no sample. Mend it, or take it out."
            )
    text = canonical_json(row) if keyed.text is None else _value(row, keyed.text)
    if text is not None and not isinstance(text, str):
        raise UserError(f"{where}: {keyed.text} is a {type(text).__name__}, expected a text.")
    if text is not None and not _is_text(text):
        text = None
    return keyed.of(str(key), shard if isinstance(shard, str) else None), text


def _value(row: Mapping[str, Any], path: str) -> Any:
    """The value at `path`; None where any part of it is missing."""
    if path in row:
        return row[path]
    value: Any = row
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _is_text(text: str) -> bool:
    """Whether `text` can be stored: half a surrogate pair is no character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _without_extension(key: str) -> str:
    key = relative_name(key)
    parts = split_at_first_dot(key)
    return parts[0] if parts and parts[1].rpartition(".")[2].lower() in _STEM_ENDS else key

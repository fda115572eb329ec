"""A selection: the samples that a recipe kept, as one Parquet file of sorted (shard, key) pairs.

Latents, text and training take the same file, so what one command left out no other brings back. The pairs are what
counts: how they came about stands in the file's metadata for people.
"""

import contextlib
import json
import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from schemas.errors import DatasetError
from schemas.location import file_system, is_local
from schemas.table import Column, TableSchema

SELECTION: Final = TableSchema(
    "selection",
    1,
    (
        Column("shard", pa.string(), "name of the source shard"),
        Column("key", pa.string(), "sample key; rows are sorted by shard, then key, and each pair occurs once"),
    ),
)

ABOUT_KEY: Final = b"latentmill.about"
"""Where a selection file's metadata says, as JSON, how it was made."""


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """`rows` is a `pyarrow.Table` of SELECTION's columns, sorted and without repeats; `digest` follows from it alone.

    `about` is what the file says of how it was made: recipe, inputs, counts.
    """

    rows: Any
    digest: str
    about: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    def keys_of(self, shard: str) -> frozenset[str]:
        """The selected keys of one shard."""
        shards = self.rows["shard"]
        # Arrow sorts by UTF-8 bytes, Python by code points: the same order.
        start = bisect_left(shards, shard, key=_text)
        stop = bisect_right(shards, shard, lo=start, key=_text)
        return frozenset(self.rows["key"].slice(start, stop - start).to_pylist())

    def shards(self) -> Iterator[str]:
        """The shards of which something was selected, in order."""
        yield from sorted(pc.unique(self.rows["shard"]).to_pylist())


def make_selection(pairs: Any, about: dict[str, Any] | None = None) -> Selection:
    """The selection of `pairs`, a `pyarrow.Table` with the columns shard and key in any order.

    Raises `DatasetError` if a pair occurs twice: then two samples would share a name.
    """
    table = pairs.select(["shard", "key"]).sort_by([("shard", "ascending"), ("key", "ascending")]).combine_chunks()
    table = table.cast(pa.schema([pa.field(c.name, c.type, c.nullable) for c in SELECTION.columns]))
    repeats = _first_repeat(table)
    if repeats is not None:
        raise DatasetError(f"{repeats} occurs twice among the samples to select from. Give each sample's row once.")
    return Selection(table.replace_schema_metadata(SELECTION.arrow.metadata), _digest(table), about or {})


def write_selection(url: str, selection: Selection) -> None:
    """Write `selection` to `url` (local path or fsspec URL), whole or not at all; a local disk then has it.

    Raises OSError where it cannot be written.
    """
    fs, path = file_system(url)
    schema = SELECTION.arrow
    metadata = {**(schema.metadata or {}), ABOUT_KEY: json.dumps(selection.about, sort_keys=True).encode()}
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table(selection.rows.columns, schema=schema.with_metadata(metadata)), buffer, compression="zstd")
    content = buffer.getvalue().to_pybytes()
    if is_local(fs):
        _put(path, content)
    else:
        fs.pipe_file(path, content)  # in one request


def read_selection(url: str) -> Selection:
    """The selection at `url`. Raises `DatasetError` or `SchemaError` if there is none that can be used."""
    fs, path = file_system(url)
    if not fs.isfile(path):
        what = "a directory, no" if fs.isdir(path) else "no such"
        raise DatasetError(f"{url}: {what} file. Give the selection that pipelines.select wrote.")
    with fs.open(path, "rb") as file:
        try:
            parquet = pq.ParquetFile(file)
        except pa.ArrowInvalid as error:
            raise DatasetError(f"{url}: not a Parquet file ({error}). Write it anew with pipelines.select.") from None
        SELECTION.check(parquet.schema_arrow, url)
        try:
            table = parquet.read(columns=["shard", "key"])
            about = json.loads((table.schema.metadata or {}).get(ABOUT_KEY, b"{}"))
        except (pa.ArrowException, OSError, ValueError) as error:
            first = str(error).splitlines()[0]
            raise DatasetError(f"{url}: damaged ({first}). Write it anew with pipelines.select.") from None
    return make_selection(table, about)


def _put(path: str, content: bytes) -> None:
    """Put a local file in its place and onto the disk."""
    aside = f"{path}.{os.getpid()}.writing"
    try:
        with open(aside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        with contextlib.suppress(OSError):
            os.remove(aside)
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _text(scalar: Any) -> str:
    return str(scalar.as_py())


def _digest(table: Any) -> str:
    """xxh3-128 over the lengths (int32, little-endian) and then the UTF-8 bytes of each column."""
    digest = xxhash.xxh3_128()
    for name in ("shard", "key"):
        for texts in table[name].chunks:
            digest.update(pc.binary_length(texts).to_numpy().astype("<i4").tobytes())
        for texts in table[name].chunks:
            if len(texts):
                offsets = pa.Array.from_buffers(
                    pa.int32(), len(texts) + 1, [None, texts.buffers()[1]], offset=texts.offset
                )
                start, stop = offsets[0].as_py(), offsets[len(texts)].as_py()
                digest.update(memoryview(texts.buffers()[2])[start:stop])
    return digest.hexdigest()


def _first_repeat(table: Any) -> str | None:
    if table.num_rows < 2:
        return None
    same = [pc.equal(table[name].slice(1), table[name].slice(0, table.num_rows - 1)) for name in ("shard", "key")]
    both = pc.and_(*same)
    position = pc.index(both, True).as_py()
    if position < 0:
        return None
    return f"{table['shard'][position].as_py()}/{table['key'][position].as_py()}"

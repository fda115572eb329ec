"""The tables that a recipe may ask about: datasets of latentmill, and Parquet files of the user's."""

import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.shards.fingerprint import digest_file, digest_of
from schemas.errors import DatasetError, UserError
from schemas.location import file_system
from schemas.reading import Dataset, open_dataset, read_info
from schemas.table import TableSchema
from schemas.tables import CAPTIONS, LATENTS_INDEX, MEASURES, NOUNS, NOUNS_PER_IMAGE, TEXT_INDEX

KINDS: Final[Mapping[str, tuple[TableSchema, str]]] = {
    CAPTIONS.kind: (CAPTIONS, ""),
    MEASURES.kind: (MEASURES, ""),
    NOUNS.kind: (NOUNS_PER_IMAGE, "per_image"),
    LATENTS_INDEX.kind: (LATENTS_INDEX, "index"),
    TEXT_INDEX.kind: (TEXT_INDEX, "index"),
}
"""For each kind of dataset its table with a row a sample, and the folder that it lies in."""

DERIVED: Final = ("min_side", "pixels", "aspect")
"""Columns that follow from width and height: the shorter side, their product, and the longer over the shorter side."""

_NAMED: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*)=(.+)", re.DOTALL)
_IDENTITY: Final = ("shard", "key")


@dataclass(frozen=True, slots=True)
class InputTable:
    """A table with at most one row a sample. `digest` follows from its content; `read` yields it in parts, with the
    columns asked for. A table that `is_file` adds columns to samples; the others also say which samples there are."""

    name: str
    kind: str
    digest: str
    schema: pa.Schema
    read: Callable[[Sequence[str]], Iterator[pa.Table]]

    @property
    def is_file(self) -> bool:
        """Whether this is a Parquet file and no dataset."""
        return self.kind == "file"

    @property
    def has_shard(self) -> bool:
        """Whether its rows name shards, or keys alone."""
        return "shard" in self.schema.names

    def columns(self) -> list[str]:
        """Every column that a filter can name, those in maps left out."""
        own = [name for name in self.schema.names if name not in (*_IDENTITY, *self.maps())]
        derived = DERIVED if {"width", "height"} <= set(own) else ()
        return [*own, *(name for name in derived if name not in own)]

    def maps(self) -> list[str]:
        """Its columns that hold numbers by name; the names act as columns of their own."""
        return [field.name for field in self.schema if pa.types.is_map(field.type)]


def open_tables(inputs: Sequence[str], noun_column: str) -> list[InputTable]:
    """The tables at `inputs`, each a path or URL, or NAME=PATH. Without a name a dataset is called after its kind and a
    file after itself. Of a nouns dataset the rows of the caption column `noun_column` are taken.

    Raises `UserError` for what cannot be read, is unfinished, or has the name of another.
    """
    tables = [_open(*_split(text), noun_column) for text in inputs]
    counts = Counter(table.name for table in tables)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise UserError(f"--table: {counts[twice[0]]} tables are called {twice[0]}. Name them, as in first=PATH.")
    if "samples" in counts:
        raise UserError(
            "--table: no table can be called samples, which are what all tables tell of. Name it otherwise."
        )
    return tables


def derive(column: str, width: Any, height: Any) -> Any:
    """The DERIVED `column` of arrays of widths and heights."""
    if column == "min_side":
        return pc.min_element_wise(width, height, skip_nulls=False)
    if column == "pixels":
        return pc.multiply(pc.cast(width, pa.int64()), pc.cast(height, pa.int64()))
    longer = pc.max_element_wise(width, height, skip_nulls=False)
    shorter = pc.min_element_wise(width, height, skip_nulls=False)
    return pc.divide(pc.cast(longer, pa.float64()), pc.cast(shorter, pa.float64()))


def _split(text: str) -> tuple[str | None, str]:
    named = _NAMED.fullmatch(text)
    return (named[1], named[2]) if named else (None, text)


def _open(name: str | None, url: str, noun_column: str) -> InputTable:
    info = read_info(url)
    if info is None:
        return _open_file(name, url)
    if info.kind not in KINDS:
        raise DatasetError(f"{url}: a {info.kind} dataset has no row a sample. Give one of {', '.join(KINDS)}.")
    dataset = open_dataset(url, info.kind).require_whole()
    schema, folder = KINDS[info.kind]
    digest = digest_of([output.digest for entry in dataset.entries for output in entry.outputs])
    read = partial(_read_dataset, dataset, schema, folder)
    if info.kind == NOUNS.kind:
        _check_nouns(dataset, folder, noun_column)
        read = partial(_read_nouns, dataset, folder, noun_column)
    return InputTable(name or info.kind, info.kind, digest, schema.arrow, read)


def _check_nouns(dataset: Dataset, folder: str, column: str) -> None:
    if not any(posixpath.dirname(output.path) == folder for output in dataset.entries[0].outputs):
        raise DatasetError(f"{dataset.url}: has no nouns per image. Count a captions dataset with pipelines.nouns.")
    counted = dataset.info.config["columns"]
    if column not in counted:
        raise UserError(f"{dataset.url}: counted are {', '.join(counted)}, not {column}. Name one by --noun-column.")


def _read_dataset(dataset: Dataset, schema: TableSchema, folder: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    yield from dataset.tables(schema, list(columns), folder)


def _read_nouns(dataset: Dataset, folder: str, column: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    for table in dataset.tables(NOUNS_PER_IMAGE, ["column", *columns], folder):
        yield table.filter(pc.equal(table["column"], column)).select(list(columns))


def _open_file(name: str | None, url: str) -> InputTable:
    fs, path = file_system(url)
    if not fs.isfile(path):
        raise UserError(f"--table {url}: neither a dataset nor a file. Give a dataset directory or a Parquet file.")
    with fs.open(path, "rb") as file:
        try:
            schema = pq.ParquetFile(file).schema_arrow
        except pa.ArrowInvalid as error:
            raise UserError(f"--table {url}: not a Parquet file ({error}). Convert it.") from None
    for column in _IDENTITY:
        if column in schema.names and not _is_text(schema.field(column).type):
            raise UserError(f"--table {url}: {column} is {schema.field(column).type}, expected strings. Convert it.")
    if "key" not in schema.names:
        raise UserError(f"--table {url}: no column key; it has {', '.join(schema.names)}. Name the samples' keys so.")
    return InputTable(
        name or posixpath.basename(path).removesuffix(".parquet"),
        "file",
        digest_file(url),
        schema,
        partial(_read_file, url),
    )


def _is_text(type_: pa.DataType) -> bool:
    plain = type_.value_type if pa.types.is_dictionary(type_) else type_
    return bool(pa.types.is_string(plain) or pa.types.is_large_string(plain))


def _read_file(url: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    fs, path = file_system(url)
    with fs.open(path, "rb") as file:
        parquet = pq.ParquetFile(file)
        for group in range(parquet.num_row_groups):
            try:
                part = parquet.read_row_group(group, columns=list(columns))
            except (pa.ArrowException, OSError) as error:
                raise UserError(f"--table {url}: damaged ({str(error).splitlines()[0]}). Fetch it again.") from None
            yield part

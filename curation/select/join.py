"""Tables brought together by (shard, key): one row a sample, sorted, whatever order and parts they came in."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.select.names import KEY, SHARD, ColumnId
from curation.select.tables import DERIVED, InputTable, derive
from schemas.errors import DatasetError, UserError

_SEPARATOR: Final = "\0"
"""Between shard and key. No file name has it, and it is less than any other character, so ids sort as pairs do."""


@dataclass(frozen=True, slots=True)
class WordLists:
    """The lists of words of a column. Word n is `words[n]`; a part has the samples of its lists [n], the lengths of
    the lists [n], and the words of one list after another [sum of lengths]: 4 bytes a word."""

    words: tuple[str, ...]
    parts: tuple[tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.int32]], ...]


@dataclass(frozen=True, slots=True)
class TableFacts:
    """What joining a table came to. `unmatched` rows are of no sample; `missing` samples have no row."""

    name: str
    kind: str
    digest: str
    rows: int
    missing: int
    unmatched: int


@dataclass(frozen=True, slots=True)
class Joined:
    """`ids` [N] are SHARD, NUL, KEY of all samples, sorted; `columns` are aligned with them, null where a table has no
    row; `present` says by table which samples have a row there."""

    ids: Any
    columns: Mapping[ColumnId, Any]
    lists: Mapping[ColumnId, WordLists]
    present: Mapping[str, npt.NDArray[np.bool_]]
    tables: tuple[TableFacts, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def pairs(self, chosen: npt.NDArray[np.bool_]) -> pa.Table:
        """Shard and key of the `chosen` samples."""
        return pa.table(dict(zip(("shard", "key"), _split(self.ids.filter(pa.array(chosen))), strict=True)))


def join(tables: Sequence[InputTable], columns: Iterable[ColumnId], lists: Iterable[ColumnId]) -> Joined:
    """Join `tables`, reading `columns`, and of `lists` the words.

    Every sample that a dataset has a row of is there; Parquet files only add columns to them, unless there is no
    dataset. A file without shards is joined by key, and no key that it has may be in two shards.

    Raises `DatasetError` if a table has two rows of one sample, `UserError` if a key alone does not tell which sample.
    """
    wanted, words = set(columns), set(lists)
    loaded = [_load(table, wanted, words) for table in tables]
    leading = [one for one in loaded if not one.table.is_file] or [one for one in loaded if one.table.has_shard]
    if not leading:
        raise UserError("--table: no table says in which shards the samples are. Add a dataset, or a column shard.")
    ids = _sorted_union([one.ids for one in leading])
    aligned = [_align(one, ids) for one in loaded]
    found = dict(zip((SHARD, KEY), _split(ids), strict=True)) if wanted & {SHARD, KEY} else {}
    return Joined(
        ids,
        columns=found | {column: values for one in aligned for column, values in one.columns.items()},
        lists={column: words for one in aligned for column, words in one.lists.items()},
        present={one.facts.name: one.present for one in aligned},
        tables=tuple(one.facts for one in aligned),
    )


@dataclass(slots=True)
class _Loaded:
    """A table in memory. `ids` are keys alone where it has no shards. `lists` are its list columns, by part a pair of
    lengths and of dictionary-encoded words."""

    table: InputTable
    ids: Any
    columns: dict[ColumnId, Any]
    lists: dict[ColumnId, list[tuple[npt.NDArray[np.int32], Any]]] = field(default_factory=dict)


def _load(table: InputTable, wanted: set[ColumnId], words: set[ColumnId]) -> _Loaded:
    own = sorted(one for one in wanted if one.table == table.name)
    listed = sorted(one for one in words if one.table == table.name)
    needed = sorted({name for one in (*own, *listed) for name in _sources(table, one)})
    identity = ["shard", "key"] if table.has_shard else ["key"]
    ids: list[Any] = []
    parts: dict[ColumnId, list[Any]] = {one: [] for one in own}
    lists: dict[ColumnId, list[tuple[npt.NDArray[np.int32], Any]]] = {one: [] for one in listed}
    for part in table.read([*identity, *needed]):
        ids.append(_ids(part, table))
        for one in own:
            parts[one].append(_column(part, one))
        for one in listed:
            words_of = _words(part[one.column], one)
            lists[one].append(_each_once(*words_of) if table.is_file else words_of)  # ours have each once
    chunks = [chunk for one in ids for chunk in one.chunks]
    columns = {one: _concat(found) for one, found in parts.items()}
    return _Loaded(table, pa.chunked_array(chunks, pa.large_string()), columns, lists)


def _sources(table: InputTable, one: ColumnId) -> list[str]:
    if one.map:
        return [one.map]
    if one.column in DERIVED and one.column not in table.schema.names:
        return ["width", "height"]
    return [one.column]


def _ids(part: pa.Table, table: InputTable) -> Any:
    names = [_text(part[name]) for name in ("shard", "key") if name in part.column_names]
    if any(column.null_count for column in names):
        raise UserError(f"--table {table.name}: a row has no {' or no '.join(part.column_names[: len(names)])}.")
    if len(names) == 1:
        return names[0]
    return pc.binary_join_element_wise(*names, pa.scalar(_SEPARATOR, pa.large_string()))


def _text(column: Any) -> Any:
    plain = pc.dictionary_decode(column) if pa.types.is_dictionary(column.type) else column
    return pc.cast(plain, pa.large_string())


def _column(part: pa.Table, one: ColumnId) -> Any:
    if one.map:
        return pc.map_lookup(part[one.map].combine_chunks(), query_key=pa.scalar(one.column), occurrence="first")
    if one.column in part.column_names:
        return part[one.column]
    return derive(one.column, part["width"], part["height"])


def _concat(parts: Sequence[Any]) -> Any:
    chunks = [chunk for part in parts for chunk in (part.chunks if isinstance(part, pa.ChunkedArray) else [part])]
    return pa.chunked_array(chunks).combine_chunks() if chunks else pa.nulls(0)


def _words(column: Any, one: ColumnId) -> tuple[npt.NDArray[np.int32], Any]:
    if not pa.types.is_list(column.type) or not pa.types.is_string(column.type.value_type):
        raise UserError(f"{one}: is {column.type}, expected lists of strings such as nouns.distinct.")
    words = pc.list_flatten(column).combine_chunks()
    if words.null_count:
        raise UserError(f"{one}: a list has a null among its words. Leave it out there.")
    return pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int32), pc.dictionary_encode(words)


def _each_once(lengths: npt.NDArray[np.int32], words: Any) -> tuple[npt.NDArray[np.int32], Any]:
    """The same lists with no word twice in one."""
    rows = np.repeat(np.arange(len(lengths)), lengths)
    kinds = max(len(words.dictionary), 1)
    kept = np.unique(rows * kinds + words.indices.to_numpy())
    indices = pa.array((kept % kinds).astype(np.int32))
    counts = np.bincount(kept // kinds, minlength=len(lengths)).astype(np.int32)
    return counts, pa.DictionaryArray.from_arrays(indices, words.dictionary)


def _sorted_union(parts: Sequence[Any]) -> Any:
    """The distinct ids of all `parts`, sorted."""
    first, *others = parts
    chunks = list(first.chunks)
    for other in others:
        if not other.equals(first):
            chunks += other.chunks
    ids = pc.unique(pa.chunked_array(chunks, pa.large_string()))
    ordered = len(ids) < 2 or pc.all(pc.less(ids.slice(0, len(ids) - 1), ids.slice(1))).as_py()
    return ids if ordered else ids.take(pc.sort_indices(ids))


def _whole(chunks: Any) -> Any:
    """One array of `chunks`; a single chunk is not copied."""
    return chunks.chunk(0) if chunks.num_chunks == 1 else chunks.combine_chunks()


def _split(ids: Any) -> tuple[Any, Any]:
    """Shards and keys of `ids`."""
    names = pc.split_pattern(ids, _SEPARATOR, max_splits=1)
    return pc.cast(pc.list_element(names, 0), pa.string()), pc.cast(pc.list_element(names, 1), pa.string())


@dataclass(frozen=True, slots=True)
class _Aligned:
    """A table in the order of the samples."""

    facts: TableFacts
    present: npt.NDArray[np.bool_]
    columns: dict[ColumnId, Any]
    lists: dict[ColumnId, WordLists]


def _align(one: _Loaded, ids: Any) -> _Aligned:
    table = one.table
    by = ids if table.has_shard else pc.cast(_split(ids)[1], pa.large_string())
    rows = _whole(one.ids)
    place, present, sample = None, np.ones(len(ids), np.bool_), np.arange(len(rows), dtype=np.int64)
    if not (table.has_shard and rows.equals(ids)):  # most often all tables have the same rows in the same order
        _require_unique(rows, table)
        place = pc.index_in(by, value_set=rows)
        present = pc.is_valid(place).to_numpy(zero_copy_only=False)
        sample = np.full(len(rows), -1, np.int64)
        sample[place.drop_null().to_numpy()] = np.flatnonzero(present)
    unmatched = int((sample < 0).sum())
    if int(present.sum()) != len(rows) - unmatched:
        raise UserError(
            f"--table {table.name}: {_first_shared(by, rows)} is a key of several shards. Add a column shard."
        )
    missing = len(ids) - int(present.sum())
    return _Aligned(
        TableFacts(table.name, table.kind, table.digest, len(rows), missing, unmatched),
        present,
        {column: values if place is None else values.take(place) for column, values in one.columns.items()},
        {column: _word_lists(parts, sample) for column, parts in one.lists.items()},
    )


def _word_lists(parts: Sequence[tuple[npt.NDArray[np.int32], Any]], sample: npt.NDArray[np.int64]) -> WordLists:
    encoded = pa.chunked_array([words for _, words in parts], pa.dictionary(pa.int32(), pa.string()))
    unified = encoded.unify_dictionaries()
    out, start = [], 0
    for (lengths, _), words in zip(parts, unified.chunks, strict=True):
        rows = sample[start : start + len(lengths)]
        start += len(lengths)
        out.append((rows, lengths, words.indices.to_numpy()))
    return WordLists(tuple(unified.chunk(0).dictionary.to_pylist()) if unified.num_chunks else (), tuple(out))


def _require_unique(rows: Any, table: InputTable) -> None:
    if pc.count_distinct(rows).as_py() == len(rows):
        return
    counts = pc.value_counts(rows)
    twice = counts.field("values").filter(pc.greater(counts.field("counts"), 1))[0].as_py()
    raise DatasetError(f"--table {table.name}: two rows are of {_readable(twice)}. Give one row a sample.")


def _first_shared(keys: Any, rows: Any) -> str:
    counts = pc.value_counts(keys.filter(pc.is_in(keys, value_set=rows)))
    return str(counts.field("values").filter(pc.greater(counts.field("counts"), 1))[0].as_py())


def _readable(identity: str) -> str:
    return identity.replace(_SEPARATOR, "/", 1)

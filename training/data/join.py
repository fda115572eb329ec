"""Latents, flipped latents and caption variants of one shard, joined by (shard, key); or latents alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schemas.dataset import LedgerEntry, index_path
from schemas.errors import DatasetError
from schemas.reading import Dataset
from schemas.table import TableSchema
from schemas.tables import LATENTS_INDEX, TEXT_INDEX
from training.data.randomness import sample_id
from training.data.sources import OpenSource

NAMED: Final = 3  # samples that an error names

NAMES: Final = pa.schema([("shard", pa.string()), ("key", pa.string())])

_PLACE: Final = ("offset", "bytes", "xxh3")
_SIZES: Final = ("height_px", "width_px", "original_height", "original_width", "label")


@dataclass(frozen=True, slots=True)
class ShardGroup:
    """The units that were made from one shard: of each data set of a source its entries, with their files' numbers."""

    shard: str
    latents: tuple[tuple[int, LedgerEntry], ...]
    flipped: tuple[tuple[int, LedgerEntry], ...]
    text: tuple[tuple[tuple[int, LedgerEntry], ...], ...]

    @classmethod
    def of(cls, source: OpenSource, first_files: dict[str, int]) -> Iterator["ShardGroup"]:
        """The groups of a source in order of shard; `first_files` is the number of each feature's first file."""

        def by_shard(dataset: Dataset | None, name: str) -> dict[str, list[tuple[int, LedgerEntry]]]:
            out: dict[str, list[tuple[int, LedgerEntry]]] = {}
            for number, entry in enumerate(dataset.entries if dataset else (), first_files.get(name, 0)):
                out.setdefault(entry.shard, []).append((number, entry))
            return out

        latents, flipped = by_shard(source.latents, "latents"), by_shard(source.flipped, "flipped")
        text = [by_shard(dataset, f"text_{number}") for number, dataset in enumerate(source.text)]
        for shard in sorted({*latents, *(shard for found in text for shard in found)}):
            yield cls(
                shard,
                tuple(latents.get(shard, ())),
                tuple(flipped.get(shard, ())),
                tuple(tuple(found.get(shard, ())) for found in text),
            )


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """The samples of one shard that have latents, and text if the source has any, in order of (shard, key).

    Arrays are [n].

    `latents`, `flipped` and `text` are arrays by name of column; a file of -1 says that a sample lacks the feature.
    """

    names: Any  # pyarrow table of shard and key
    sample: NDArray[np.uint64]
    size_px: NDArray[np.int32]  # [n, 2]
    original_size: NDArray[np.int32]  # [n, 2]
    label: NDArray[np.int32]
    latents: dict[str, NDArray[Any]]
    flipped: dict[str, NDArray[Any]] | None
    text: tuple[dict[str, NDArray[Any]], ...]
    without_text: list[str]  # SHARD/KEY of what was left out
    without_latents: list[str]
    found: int  # how many of the selected keys have latents or text


def join_shard(source: OpenSource, group: ShardGroup) -> Joined:
    """Read the indices of one shard and join them. Raises `DatasetError` for a sample that occurs twice."""
    latents = _read(source.latents, group.latents, LATENTS_INDEX, (*_PLACE, *_SIZES))
    text = [
        _read(dataset, entries, TEXT_INDEX, (*_PLACE, "tokens"))
        for dataset, entries in zip(source.text, group.text, strict=True)
    ]
    if source.selection is not None:
        selected = _selected(source, [latents, *text])
        latents, text = _only(latents, selected), [_only(table, selected) for table in text]
    base = latents["name"]
    where = [pc.index_in(base, value_set=table["name"]) for table in text]
    kept = np.full(len(base), not text)
    for found in where:
        kept |= pc.is_valid(found).to_numpy()
    strangers = [table.filter(pc.invert(pc.is_in(table["name"], value_set=base)))["name"] for table in text]
    without_latents = sorted(
        pc.unique(pa.chunked_array([c for s in strangers for c in s.chunks], pa.string())).to_pylist()
    )
    without_text = base.filter(pa.array(~kept)).to_pylist()
    rows = latents.filter(pa.array(kept))
    flipped = None
    if source.flipped is not None:
        mirrored = _read(source.flipped, group.flipped, LATENTS_INDEX, (*_PLACE, "height_px", "width_px", "flipped"))
        flipped = _aligned(mirrored, pc.index_in(rows["name"], value_set=mirrored["name"]), _PLACE)
        _require_flipped(source.flipped, mirrored, rows)

    def pair(first: str, second: str) -> NDArray[np.int32]:
        return np.stack([rows[first].to_numpy(), rows[second].to_numpy()], axis=1).astype(np.int32)

    return Joined(
        names=rows.select(["shard", "key"]).cast(NAMES),
        sample=np.fromiter(
            map(sample_id, rows["shard"].to_pylist(), rows["key"].to_pylist()), np.uint64, count=len(rows)
        ),
        size_px=pair("height_px", "width_px"),
        original_size=pair("original_height", "original_width"),
        label=pc.fill_null(rows["label"], -1).to_numpy().astype(np.int32),
        latents=_aligned(rows, pa.array(np.arange(len(rows)), pa.int32()), _PLACE),
        flipped=flipped,
        text=tuple(
            _aligned(table, found.filter(pa.array(kept)), (*_PLACE, "tokens"))
            for table, found in zip(text, where, strict=True)
        ),
        without_text=[_shown(name) for name in without_text],
        without_latents=[_shown(name) for name in without_latents],
        found=len(base) + len(without_latents) if source.selection is not None else 0,
    )


def _read(
    dataset: Dataset, entries: Sequence[tuple[int, LedgerEntry]], schema: TableSchema, columns: Sequence[str]
) -> Any:
    """The index rows of `entries` in order of (shard, key), with the columns `file` and `name`."""
    empty = schema.arrow.empty_table().select(["shard", "key", *columns])
    tables = [empty.append_column("file", pa.array([], pa.int32()))]
    for number, entry in entries:
        if not entry.rows_kept:
            continue
        path = index_path(entry.unit)
        try:
            with dataset.fs.open(dataset.path(path), "rb") as opened:
                parquet = pq.ParquetFile(opened)
                schema.check(parquet.schema_arrow, f"{dataset.url}/{path}")
                table = parquet.read(columns=["shard", "key", *columns]).select(["shard", "key", *columns])
        except (OSError, pa.ArrowInvalid) as error:
            raise DatasetError(
                f"{dataset.url}/{path}: cannot be read ({error}). Check the storage, or write the unit anew with "
                f"pipelines.{dataset.info.stage}."
            ) from None
        if len(table) != entry.rows_kept:
            raise DatasetError(f"{dataset.url}/{path}: {len(table)} rows, the ledger says {entry.rows_kept}.")
        tables.append(table.append_column("file", pa.array(np.full(len(table), number, np.int32))))
    bare = [table.replace_schema_metadata(None) for table in tables]
    rows = pa.concat_tables(bare, promote_options="permissive").sort_by([("shard", "ascending"), ("key", "ascending")])
    rows = rows.append_column("name", pc.binary_join_element_wise(rows["shard"], rows["key"], "\0"))
    repeated = pc.value_counts(rows["name"])
    repeated = repeated.filter(pc.greater(repeated.field("counts"), 1)).field("values").to_pylist()
    if repeated:
        shown = ", ".join(map(_shown, sorted(repeated)[:NAMED]))
        more = ", ..." if len(repeated) > NAMED else ""
        raise DatasetError(
            f"{dataset.url}: {len(repeated)} samples occur more than once ({shown}{more}). Write it anew."
        )
    return rows.combine_chunks()


def _aligned(table: Any, positions: Any, columns: Sequence[str]) -> dict[str, NDArray[Any]]:
    """`columns` and `file` of the rows at `positions`, zeros and a file of -1 where a position is null."""
    taken = table.select(["file", *columns]).take(positions)
    fill = {"file": -1}
    return {name: pc.fill_null(taken[name], fill.get(name, 0)).to_numpy() for name in taken.column_names}


def _selected(source: OpenSource, tables: Sequence[Any]) -> Any:
    """The names of the selected keys of all shards that `tables` have rows of."""
    shards = sorted({shard for table in tables for shard in pc.unique(table["shard"]).to_pylist()})
    rows = pa.concat_tables([source.selected(shard) for shard in shards] or [source.selected("")])
    return pc.binary_join_element_wise(rows["shard"], rows["key"], "\0")


def _only(table: Any, names: Any) -> Any:
    return table.filter(pc.is_in(table["name"], value_set=names))


def _require_flipped(dataset: Dataset, mirrored: Any, rows: Any) -> None:
    """Raise `DatasetError` if a mirrored picture is none, or of another size than the picture itself."""
    if len(mirrored) and not pc.all(mirrored["flipped"]).as_py():
        raise DatasetError(f"{dataset.url}: its pictures are not flipped. Make it with pipelines.latents --flip.")
    found = pc.index_in(rows["name"], value_set=mirrored["name"])
    partners = mirrored.select(["height_px", "width_px"]).take(found)
    for name in ("height_px", "width_px"):
        differs = pc.fill_null(pc.not_equal(partners[name], rows[name]), False)
        if pc.any(differs).as_py():
            odd = _shown(rows.filter(differs)["name"][0].as_py())
            raise DatasetError(
                f"{dataset.url}: {odd} has another bucket than its picture that is not flipped. Make both with the "
                f"same settings."
            )


def _shown(name: str) -> str:
    return name.replace("\0", "/", 1)

"""What there is to train on: latents and text joined by (shard, key), as arrays in an order that only the data decides.

The order of the ledger, of units, of files on disk does not matter: rows are sorted by shard and key. Where a sample's
bytes lie is not part of the digest either, so a data set that was cut into other units trains the same.
"""

import hashlib
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from schemas.dataset import NULL_TEXT_FILE, LedgerEntry, index_path, tar_path
from schemas.errors import DatasetError
from schemas.reading import Dataset, open_dataset
from schemas.record import canonical_json
from schemas.table import TableSchema
from schemas.tables import LATENTS_INDEX, TEXT_INDEX
from training.data.npy import parse_npy
from training.data.randomness import sample_id

_READ_THREADS: Final = 16
_NAMED: Final = 3  # samples that an error names
_PLACE: Final = ("file", "offset", "bytes", "xxh64")


@dataclass(frozen=True, slots=True)
class Facts:
    """What the two data sets say about themselves in `dataset.json`. Latents are used as (z - shift) * scaling."""

    scaling_factor: float
    shift_factor: float
    channels: int
    downsample: int
    dim: int
    max_tokens: int


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where one feature of each sample lies: a slice of a tar, and the xxh64 of its bytes."""

    dataset: Dataset
    paths: tuple[str, ...]
    file: NDArray[np.int32]  # [N] index into paths
    offset: NDArray[np.int64]
    bytes: NDArray[np.int64]
    xxh64: NDArray[np.uint64]


@dataclass(frozen=True, slots=True, eq=False)
class Manifest:
    """All samples that have both latents and text, in order of (shard, key). Arrays are [N] unless said otherwise."""

    latents: Places
    text: Places
    facts: Facts
    null_text: NDArray[np.float16]  # [N0, D] T5 embedding of the empty string
    shard: Any  # pyarrow string array
    key: Any  # pyarrow string array
    sample: NDArray[np.uint64]  # see training.data.randomness.sample_id
    bucket: NDArray[np.int32]  # index into buckets
    buckets: tuple[tuple[int, int], ...]  # height and width in pixels
    tokens: NDArray[np.int32]
    original_size: NDArray[np.int32]  # [N, 2] height and width in pixels
    label: NDArray[np.int32]  # class index, -1 where the source has none
    unmatched: tuple[int, int]  # latents without text, text without latents
    digest: str

    def __len__(self) -> int:
        return len(self.sample)

    def name(self, row: int) -> str:
        """SHARD/KEY of a row, for messages."""
        return f"{self.shard[row].as_py()}/{self.key[row].as_py()}"

    def describe(self) -> str:
        """How many samples there are and what was left out, for people."""
        left_out = (
            f" ({self.unmatched[0]:,} latents without text, {self.unmatched[1]:,} texts without latents left out)"
        )
        return f"{len(self):,} samples in {len(self.buckets)} buckets{left_out if any(self.unmatched) else ''}"


def open_manifest(latents_url: str, text_url: str, max_unmatched: float = 0.0) -> Manifest:
    """Open and join the latents and the text data set.

    Raises `DatasetError` if either is not whole, holds a sample twice, if nothing joins, or if more than the fraction
    `max_unmatched` of all samples has no partner.
    """
    latents = open_dataset(latents_url, "latents").require_whole()
    text = open_dataset(text_url, "text").require_whole()
    facts = _read_facts(latents, text)
    sides = {"latent": _read_index(latents, LATENTS_INDEX), "text": _read_index(text, TEXT_INDEX)}
    for side, dataset in (("latent", latents), ("text", text)):
        _refuse_duplicates(sides[side], dataset.url)
        sides[side] = sides[side].rename_columns({name: f"{side}_{name}" for name in _PLACE})
    joined = sides["latent"].join(sides["text"], ["shard", "key"], join_type="full outer").combine_chunks()
    no_text, no_latent = pc.is_null(joined["text_file"]), pc.is_null(joined["latent_file"])
    unmatched = pc.sum(no_text).as_py() or 0, pc.sum(no_latent).as_py() or 0
    if sum(unmatched) == len(joined):
        raise DatasetError(f"{latents.url} and {text.url} have no sample in common. Use two made from the same images.")
    if sum(unmatched) > max_unmatched * len(joined):
        first = [_some(joined.filter(mask)) for mask in (no_text, no_latent)]
        raise DatasetError(
            f"{unmatched[0]} latents have no text{first[0]}, and {unmatched[1]} texts no latents{first[1]}, of "
            f"{len(joined)} samples in {latents.url} and {text.url}. Make the missing ones, or leave them out with "
            f"--max-unmatched {math.ceil(1e4 * sum(unmatched) / len(joined)) / 1e4:g}."
        )
    rows = joined.filter(pc.invert(pc.or_(no_text, no_latent))).sort_by([("shard", "ascending"), ("key", "ascending")])
    return _build(rows.combine_chunks(), latents, text, facts, unmatched)


def _build(rows: Any, latents: Dataset, text: Dataset, facts: Facts, unmatched: tuple[int, int]) -> Manifest:
    def column(name: str, dtype: type) -> NDArray[Any]:
        return np.ascontiguousarray(rows[name].to_numpy(), dtype=dtype)

    def places(side: str, dataset: Dataset) -> Places:
        file, offset, length, xxh64 = (f"{side}_{name}" for name in _PLACE)
        return Places(
            dataset=dataset,
            paths=tuple(dataset.path(tar_path(entry.unit)) for entry in dataset.entries),
            file=column(file, np.int32),
            offset=column(offset, np.int64),
            bytes=column(length, np.int64),
            xxh64=column(xxh64, np.uint64),
        )

    size = np.stack([column("height_px", np.int32), column("width_px", np.int32)], axis=1)
    buckets, bucket = np.unique(size, axis=0, return_inverse=True)
    shard, key = rows["shard"].combine_chunks(), rows["key"].combine_chunks()
    sample = np.fromiter(map(sample_id, shard.to_pylist(), key.to_pylist()), np.uint64, count=len(rows))
    null_text = _read_null_text(text, facts.dim)
    fields: dict[str, Any] = {
        "sample": sample,
        "bucket": bucket.reshape(-1).astype(np.int32),
        "tokens": column("tokens", np.int32),
        "original_size": np.stack([column("original_height", np.int32), column("original_width", np.int32)], axis=1),
        "label": np.ascontiguousarray(pc.fill_null(rows["label"], -1).to_numpy(), dtype=np.int32),
    }
    pictures, captions = places("latent", latents), places("text", text)
    contents = [*fields.values(), pictures.xxh64, captions.xxh64, buckets, null_text]
    return Manifest(
        latents=pictures,
        text=captions,
        facts=facts,
        null_text=null_text,
        shard=shard,
        key=key,
        **fields,
        buckets=tuple((int(height), int(width)) for height, width in buckets),
        unmatched=unmatched,
        digest=_digest(asdict(facts), contents),
    )


def _read_null_text(text: Dataset, dim: int) -> NDArray[np.float16]:
    """The embedding of the empty string, float16 [N0, dim]: the one whose xxh3-128 dataset.json names."""
    where = f"{text.url}/{NULL_TEXT_FILE}"
    mend = f"Run pipelines.{text.info.stage} again to renew it."
    try:
        content = text.fs.cat_file(text.path(NULL_TEXT_FILE))
    except OSError as error:
        raise DatasetError(f"{where}: cannot be read ({error.strerror or error}). {mend}") from None
    expected = text.info.facts.get("null_digest")
    if xxhash.xxh3_128_hexdigest(content) != expected:
        raise DatasetError(f"{where}: not the null embedding that dataset.json names, damaged or another T5's. {mend}")
    null_text = parse_npy(content, where)
    if null_text.ndim != 2 or null_text.shape[1] != dim or not len(null_text) or null_text.dtype != np.float16:
        raise DatasetError(f"{where}: {null_text.dtype} {null_text.shape}, expected float16 [N, {dim}]. {mend}")
    return null_text


def _digest(facts: dict[str, Any], contents: list[NDArray[Any]]) -> str:
    """blake2b (128 bits) over the facts and all that the samples are, little-endian."""
    digest = hashlib.blake2b(canonical_json(facts).encode(), digest_size=16)
    for array in contents:
        digest.update(f"{array.shape}{array.dtype.kind}{array.dtype.itemsize}".encode())
        digest.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def _read_index(dataset: Dataset, schema: TableSchema) -> Any:
    """The index tables of all units as one `pyarrow.Table`, with the unit's number as the column `file`."""
    dropped = {"truncated", "caption_xxh64", "bucket", "flipped", "crop_top", "crop_left"}
    columns = [c.name for c in schema.columns if c.name not in dropped and not c.name.startswith("resized")]

    def read(numbered: tuple[int, LedgerEntry]) -> Any:
        number, entry = numbered
        path = index_path(entry.unit)
        with dataset.fs.open(dataset.path(path), "rb") as opened:
            parquet = pq.ParquetFile(opened)
            schema.check(parquet.schema_arrow, f"{dataset.url}/{path}")
            table = parquet.read(columns=columns)
        if len(table) != entry.rows_kept:
            raise DatasetError(f"{dataset.url}/{path}: {len(table)} rows, the ledger says {entry.rows_kept}.")
        return table.append_column("file", pa.array(np.full(len(table), number, np.int32)))

    filled = [(number, entry) for number, entry in enumerate(dataset.entries) if entry.rows_kept]
    if not filled:
        raise DatasetError(f"{dataset.url}: holds no sample. See its rejects for the reasons.")
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        return pa.concat_tables(pool.map(read, filled)).replace_schema_metadata(None)


def _refuse_duplicates(index: Any, url: str) -> None:
    counts = index.group_by(["shard", "key"]).aggregate([([], "count_all")])
    repeated = counts.filter(pc.greater(counts["count_all"], 1))
    if len(repeated):
        raise DatasetError(f"{url}: {len(repeated)} samples occur more than once{_some(repeated)}. Write it anew.")


def _some(rows: Any) -> str:
    names = [f"{row['shard']}/{row['key']}" for row in rows.sort_by("key").slice(0, _NAMED).to_pylist()]
    return f" ({', '.join(names)}{', ...' if len(rows) > _NAMED else ''})" if names else ""


def _read_facts(latents: Dataset, text: Dataset) -> Facts:
    def fact(dataset: Dataset, name: str) -> Any:
        value = dataset.info.facts.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise DatasetError(f"{dataset.url}: dataset.json gives no number for {name}. Make the data set again.")
        return value

    return Facts(
        scaling_factor=float(fact(latents, "scaling_factor")),
        shift_factor=float(fact(latents, "shift_factor")),
        channels=int(fact(latents, "channels")),
        downsample=int(fact(latents, "downsample")),
        dim=int(fact(text, "dim")),
        max_tokens=int(fact(text, "max_tokens")),
    )

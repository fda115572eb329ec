"""The offset index of an input shard, kept in the dataset so that a shard is read through only once."""

import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.shards.container import ContainerKind, index_container, stamp_of
from curation.shards.grouping import Sample
from curation.shards.target import Target
from curation.shards.urls import shard_name
from schemas.dataset import INPUTS_DIR, InputIdentity
from schemas.errors import SchemaError
from schemas.record import from_json, to_json
from schemas.status import RejectReason
from schemas.tables import SHARD_INDEX

_IDENTITY_KEY: Final = b"latentmill.identity"
_OK: Final = "ok"


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """What is in a shard: its identity and how many samples it has, refused ones included."""

    identity: InputIdentity
    rows: int


def stored_index(target: Target, url: str, kind: ContainerKind) -> ShardIndex | None:
    """The stored index of `url`, if there is one and the shard has not changed since."""
    path = target.path(_index_path(url))
    if not target.fs.exists(path):
        return None
    with target.fs.open(path, "rb") as file:
        try:
            parquet = pq.ParquetFile(file)
            SHARD_INDEX.check(parquet.schema_arrow, path)
            identity = from_json(InputIdentity, parquet.schema_arrow.metadata.get(_IDENTITY_KEY, b""), path)
        except (pa.ArrowInvalid, OSError, SchemaError):  # damaged, or of another version: the shard itself is the truth
            return None
        rows = parquet.metadata.num_rows
    return ShardIndex(identity, rows) if (identity.bytes, identity.stamp) == stamp_of(url, kind) else None


def ensure_index(target: Target, url: str, kind: ContainerKind) -> ShardIndex:
    """The index of `url`: the stored one, or a fresh one that is then stored."""
    stored = stored_index(target, url, kind)
    if stored is not None:
        return stored
    identity, samples = index_container(url, kind, shard_name(url))
    metadata = {**SHARD_INDEX.arrow.metadata, _IDENTITY_KEY: to_json(identity).encode()}
    table = pa.Table.from_pylist([_row(s) for s in samples], schema=SHARD_INDEX.arrow).replace_schema_metadata(metadata)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    target.write_bytes(_index_path(url), buffer.getvalue())
    return ShardIndex(identity, len(samples))


def require_unchanged(target: Target, url: str, kind: ContainerKind, inputs: Sequence[InputIdentity]) -> None:
    """Raise OSError unless the shard at `url` is what its stored index says, and that is of the shard in `inputs`.

    Without `inputs` any index will do. Folders are not looked through: that would cost as much as reading them.
    """
    if kind == "folder":
        return
    index = stored_index(target, url, kind)
    if index is None or (inputs and index.identity not in inputs):
        raise OSError(f"{url}: the shard changed while it was read. Run the same command again when it is still.")


def read_samples(target: Target, url: str, start: int, stop: int) -> Sequence[Sample]:
    """Rows [start, stop) of the stored index of `url`."""
    return _samples(_read(target, url).slice(start, stop - start))


def find_samples(target: Target, url: str, keys: Collection[str]) -> Sequence[Sample]:
    """The rows of the stored index of `url` that have one of `keys`, in order; fast for a few of many."""
    rows = _read(target, url)
    return _samples(rows.filter(pc.is_in(rows["key"], pa.array(list(keys), pa.string()))))


def _read(target: Target, url: str) -> pa.Table:
    with target.fs.open(target.path(_index_path(url)), "rb") as file:
        return pq.read_table(file)


def _samples(rows: pa.Table) -> list[Sample]:
    return [
        Sample(
            key=row["key"],
            extensions=tuple(row["names"]),
            offsets=tuple(row["offsets"]),
            sizes=tuple(row["sizes"]),
            refused=None if row["status"] == _OK else RejectReason(row["status"]),
            detail=row["detail"],
        )
        for row in rows.to_pylist()
    ]


def _index_path(url: str) -> str:
    return f"{INPUTS_DIR}/{shard_name(url)}.parquet"


def _row(sample: Sample) -> dict[str, object]:
    return {
        "key": sample.key,
        "status": sample.refused.value if sample.refused else _OK,
        "detail": sample.detail,
        "names": sample.extensions,
        "offsets": sample.offsets,
        "sizes": sample.sizes,
    }

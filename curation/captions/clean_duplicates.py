"""The same text on many pictures: which texts of a captions dataset are repeated, found in bounded memory.

It is the cheapest detector of misrouted answers and blank pictures, and needs the whole dataset. So cleaning is two
passes. The first is a stage of its own: it writes 8 bytes a row, the xxh64 of the row's words, as a small dataset that
lies in `inputs/hashes` of the cleaned one; unchanged units are not hashed again. The driver then counts equal hashes, a
slice of the hash range at a time, so that about `HASHES_AT_ONCE` (16M) of them are in memory: 128 MB, and twice that
while they are gathered. 100M captions are 0.8 GB of hashes on disk, read six times by a driver of under 0.5 GB.

What comes out is the sorted array of repeated hashes, `inputs/repeated.npy`. It is no input of a unit as a whole: of
each unit only those repeated hashes count that it has itself. So new captions make an old unit due only where they
repeat its texts. Two different texts share a hash in one of 3,700 datasets of 100M captions, three in none.
"""

import io
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any, Final

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from curation.captions.quality_text import text_hash
from curation.execution.clock import PhaseClock
from curation.execution.plan import ShardPlan, plan_tables
from curation.execution.stage import StageSpec, Unit
from curation.shards.target import Target
from curation.shards.unit_writer import UnitWriter
from schemas.dataset import INPUTS_DIR, InputIdentity, table_path
from schemas.errors import DatasetError
from schemas.reading import Dataset, damage_told, open_dataset, read_info
from schemas.tables import CAPTION_HASHES, CAPTIONS

HASHES_AT_ONCE: Final = 16 << 20

_HASHES_DIR: Final = f"{INPUTS_DIR}/hashes"
_REPEATED_FILE: Final = f"{INPUTS_DIR}/repeated.npy"
_INPUT: Final = "repeated texts"
_HASH_VERSION: Final = 1
_RANGE: Final = 1 << 64

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class HashStage:
    """The first pass: a hash for each row."""

    @property
    def spec(self) -> StageSpec:
        """Who this stage is."""
        return StageSpec("clean", 1, CAPTION_HASHES, {"hash": "xxh64 of lower-case words", "version": _HASH_VERSION})

    def open(self) -> "HashWorker":
        """Nothing to load."""
        return HashWorker()


class HashWorker:
    """Hashes units."""

    def process(self, unit: Unit, writer: UnitWriter, clock: PhaseClock) -> None:
        """Hash the unit's generated texts."""
        with clock.phase("read"):
            rows = read_rows(unit.url, ["key", "generated"])
        with clock.phase("hash"):
            hashes = [text_hash(text) for text in rows["generated"].to_pylist()]
        for key in rows["key"].to_pylist():
            writer.keep(key)
        with clock.phase("write"):
            sink = writer.table(table_path(unit.name), CAPTION_HASHES)
            sink.write_table(pa.table([hashes], schema=CAPTION_HASHES.arrow))

    def close(self) -> None:
        """Nothing to give back."""


def hashes_target(out: str) -> Target:
    """Where the hashes for the cleaned dataset at `out` lie."""
    return Target(f"{out.rstrip('/')}/{_HASHES_DIR}")


def open_hashes(out: str, captions: Dataset) -> Dataset | None:
    """The hashes at hand for the cleaned dataset at `out`: those units that are of `captions` as it is now.

    None if there are none at all.
    """
    url = hashes_target(out).url
    if read_info(url) is None:
        return None
    found = open_dataset(url, CAPTION_HASHES.kind)
    digests = {unit.name: [i.digest for i in unit.inputs] for plan in plan_captions(captions) for unit in plan.units}
    current = (entry for entry in found.entries if [i.digest for i in entry.inputs] == digests.get(entry.unit))
    return replace(found, entries=tuple(current))


def repeated_hashes(hashes: Dataset | None, rows: int, at_once: int = HASHES_AT_ONCE) -> Hashes:
    """The hashes that `rows` rows or more of the dataset have, sorted."""
    if hashes is None:
        return np.empty(0, np.uint64)
    total = sum(entry.rows_kept for entry in hashes.entries)
    slices = max(1, -(-total // at_once))
    found = []
    for number in range(slices):
        low, high = number * _RANGE // slices, (number + 1) * _RANGE // slices - 1
        parts = [_between(_values(table), low, high) for table in hashes.tables(CAPTION_HASHES)]
        values = np.concatenate([np.empty(0, np.uint64), *parts])
        del parts
        values.sort()
        last = values[rows - 1 :]  # sorted, a value that lies so many places from itself fills all places between
        found.append(np.unique(last[last == values[: len(last)]]))
    return np.concatenate(found)


def store_repeated(target: Target, repeated: Hashes) -> None:
    """Put the sorted repeated hashes where the workers of the cleaned dataset at `target` find them."""
    target.require_writable()
    buffer = io.BytesIO()
    np.save(buffer, repeated)
    target.write_bytes(_REPEATED_FILE, buffer.getvalue())


def load_repeated(target: Target) -> Hashes:
    """What `store_repeated` stored. Raises `DatasetError` if it cannot be read."""
    path = target.path(_REPEATED_FILE)
    try:
        return np.asarray(np.load(io.BytesIO(target.fs.cat_file(path))), np.uint64)
    except (OSError, ValueError, EOFError) as error:
        raise DatasetError(f"{path}: cannot be read ({error}). Run pipelines.clean again.") from None


def is_repeated(texts: list[str], repeated: Hashes) -> list[bool]:
    """Of each text whether its hash is among the sorted `repeated`."""
    if not len(repeated):
        return [False] * len(texts)
    hashes = [text_hash(text) for text in texts]
    known = np.isin(np.array([h or 0 for h in hashes], np.uint64), repeated)
    return [bool(found) and h is not None for found, h in zip(known, hashes, strict=True)]


def plan_captions(captions: Dataset) -> Generator[ShardPlan, None, None]:
    """The units of `captions`, each reading its table; their rows are numbered through each shard."""
    for plan in plan_tables(captions):
        start, units = 0, []
        for unit in plan.units:
            stop = start + unit.planned.stop
            units.append(replace(unit, planned=replace(unit.planned, start=start, stop=stop)))
            start = stop
        yield replace(plan, units=tuple(units))


def plan_with_repeated(captions: Dataset, hashes: Dataset | None, repeated: Hashes) -> Generator[ShardPlan, None, None]:
    """`plan_captions`, with the repeated texts that a unit has as one more input of it.

    A unit that is not hashed yet (in a dry run) has an input that no made unit has, so it is due.
    """
    hashed = set() if hashes is None else {entry.unit for entry in hashes.entries}
    for plan in plan_captions(captions):
        units = []
        for unit in plan.units:
            digest, count = "not hashed yet", 0
            if hashes is not None and unit.name in hashed:
                own = np.intersect1d(_values(_read_table(hashes, unit.name)), repeated)
                digest, count = xxhash.xxh3_128_hexdigest(own.tobytes()), len(own)
            units.append(replace(unit, inputs=(*unit.inputs, InputIdentity(_INPUT, 8 * count, digest, ""))))
        yield replace(plan, units=tuple(units))


def read_rows(url: str, columns: list[str] | None = None) -> Any:
    """The captions table at `url`, or some columns of it, as a `pyarrow.Table`. Raises `SchemaError` if it is none."""
    with fsspec.open(url, "rb") as file, damage_told(url):
        parquet = pq.ParquetFile(file)
        CAPTIONS.check(parquet.schema_arrow, url)
        return parquet.read(columns=columns)


def _read_table(hashes: Dataset, unit: str) -> Any:
    """The hashes of one unit, as a `pyarrow.Table`."""
    where = f"{hashes.url}/{table_path(unit)}"
    with hashes.fs.open(hashes.path(table_path(unit)), "rb") as file, damage_told(where):
        parquet = pq.ParquetFile(file)
        CAPTION_HASHES.check(parquet.schema_arrow, where)
        return parquet.read()


def _values(table: Any) -> Hashes:
    return np.asarray(pc.drop_null(table["text_xxh64"]).to_numpy(), np.uint64)


def _between(values: Hashes, low: int, high: int) -> Hashes:
    return values[(values >= np.uint64(low)) & (values <= np.uint64(high))]

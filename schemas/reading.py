"""Open a dataset for reading: what is whole, what is missing, and where its files are.

Readers trust the ledger alone. A file without a valid entry does not exist; an entry whose file is missing or has
another size, or that was made under another fingerprint, is reported.
"""

import json
import posixpath
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.dataset import (
    DATASET_FILE,
    LAYOUT_VERSION,
    LEDGER_DIR,
    PLAN_FILE,
    DatasetInfo,
    LedgerEntry,
    OutputFile,
    PlanRecord,
)
from schemas.errors import DamagedFileError, DatasetError, SchemaError
from schemas.location import file_system, is_local
from schemas.record import from_json
from schemas.table import TableSchema

_READ_THREADS = 16

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset on disk. `entries` are the whole units in order of name, `faults` the others and why."""

    url: str
    info: DatasetInfo
    entries: tuple[LedgerEntry, ...]
    faults: tuple[str, ...]
    fs: Any
    root: str

    def path(self, relative: str) -> str:
        """The path of a file of the dataset, as its file system takes it."""
        return posixpath.join(self.root, relative)

    def require_whole(self) -> "Dataset":
        """Raise `DatasetError` if any unit is stale, missing or damaged."""
        if self.faults:
            more = f" (and {len(self.faults) - 3} more)" if len(self.faults) > 3 else ""
            raise DatasetError(
                f"{self.url}: {len(self.faults)} units are not usable: {'; '.join(self.faults[:3])}{more}. "
                f"Run pipelines.{self.info.stage} again to renew them."
            )
        if not self.entries:
            raise DatasetError(f"{self.url}: no finished unit. Run pipelines.{self.info.stage} first.")
        return self

    def tables(self, schema: TableSchema, columns: list[str] | None = None, folder: str = "") -> Iterator[Any]:
        """The Parquet table of each whole unit in order, checked against `schema`, as a `pyarrow.Table`.

        Raises `SchemaError` for a table of another schema, `DatasetError` for one that cannot be read.
        """
        for entry in self.entries:
            for output in entry.outputs:
                if posixpath.dirname(output.path) == folder and output.path.endswith(".parquet"):
                    yield self._table(output.path, schema, columns)

    def _table(self, relative: str, schema: TableSchema, columns: list[str] | None) -> Any:
        where = f"{self.url}/{relative}"
        try:
            with self.fs.open(self.path(relative), "rb") as file:
                parquet = pq.ParquetFile(file)
                schema.check(parquet.schema_arrow, where)
                return parquet.read(columns=columns)
        except (pa.ArrowException, OSError) as error:
            lines = str(error).splitlines() or [type(error).__name__]
            raise DatasetError(
                f"{where}: cannot be read ({lines[0][:200]}). Remove it and run pipelines.{self.info.stage} again."
            ) from None


@contextmanager
def damage_told(where: str) -> Iterator[None]:
    """Turn what pyarrow says of the damaged Parquet file `where` into a `DamagedFileError` that names it."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the storage's own error, which names its file
            raise
        reason = " ".join(str(error).split()).rstrip(".")
        raise DamagedFileError(
            f"{where}: damaged Parquet ({reason}). Remove it and run the command that wrote it again."
        ) from None


def read_info(url: str) -> DatasetInfo | None:
    """The `dataset.json` of the directory `url`, or None if there is none.

    Raises `DatasetError` if it is damaged or of another layout version.
    """
    fs, root = file_system(url)
    path = posixpath.join(root, DATASET_FILE)
    if not fs.exists(path):
        return None
    text = fs.cat_file(path)
    try:
        value = json.loads(text)
    except ValueError as error:
        raise DatasetError(
            f"{url}/{DATASET_FILE}: damaged, not valid JSON ({error}). Restore it, or write the dataset anew elsewhere."
        ) from None
    # Looked at before the other keys, since another layout may have others.
    version = value.get("layout_version", LAYOUT_VERSION) if isinstance(value, dict) else LAYOUT_VERSION
    if version != LAYOUT_VERSION:
        raise DatasetError(
            f"{url}: dataset layout v{version}, this latentmill reads v{LAYOUT_VERSION}. "
            f"Use the latentmill that wrote it, or write the dataset again."
        )
    return from_json(DatasetInfo, text, f"{url}/{DATASET_FILE}")


def read_plan(url: str) -> PlanRecord:
    """The `plan.json` of the directory `url`; empty if there is none."""
    fs, root = file_system(url)
    path = posixpath.join(root, PLAN_FILE)
    if not fs.exists(path):
        return PlanRecord(shards=(), units=())
    return from_json(PlanRecord, fs.cat_file(path), f"{url}/{PLAN_FILE}")


@dataclass(frozen=True, slots=True)
class LedgerFiles:
    """What lies in `ledger/`: the entries in order of unit name, whole or not, and the names of unreadable ones."""

    entries: tuple[LedgerEntry, ...]
    damaged: tuple[str, ...]


def read_ledger(url: str) -> LedgerFiles:
    """The ledger of the directory `url`."""
    fs, root = file_system(url)
    folder = posixpath.join(root, LEDGER_DIR)
    if not fs.isdir(folder):
        return LedgerFiles((), ())
    fs.invalidate_cache(folder)
    names = (posixpath.basename(path) for path in fs.ls(folder, detail=False))
    units = sorted(name.removesuffix(".json") for name in names if name.endswith(".json") and name[0] != ".")

    def read(unit: str) -> LedgerEntry | str | None:
        name = f"{unit}.json"
        try:
            return from_json(LedgerEntry, fs.cat_file(posixpath.join(folder, name)), f"{url}/{LEDGER_DIR}/{name}")
        except FileNotFoundError:  # a job that runs now is renewing this unit
            return None
        except SchemaError:
            return unit

    found = list(_map_in_threads(read, units, fs))
    entries = tuple(entry for entry in found if isinstance(entry, LedgerEntry))
    return LedgerFiles(entries, tuple(unit for unit in found if isinstance(unit, str)))


def damaged_output(fs: Any, root: str, entry: LedgerEntry) -> tuple[OutputFile, int | None] | None:
    """The first output of `entry` that is not as it was published, with its size now (None: missing); else None."""
    for output in entry.outputs:
        try:
            size = fs.size(posixpath.join(root, output.path))
        except (FileNotFoundError, NotADirectoryError):
            return output, None
        if size != output.bytes:
            return output, size
    return None


def damaged_outputs(fs: Any, root: str, entries: Iterable[LedgerEntry]) -> dict[str, tuple[OutputFile, int | None]]:
    """`damaged_output` of each entry that has one, by unit."""
    listed = list(entries)
    found = _map_in_threads(lambda entry: damaged_output(fs, root, entry), listed, fs)
    return {entry.unit: fault for entry, fault in zip(listed, found, strict=True) if fault is not None}


def _map_in_threads(function: Callable[[T], R], items: Sequence[T], fs: Any) -> Iterator[R]:
    """`function` of each item, in order. Threads hide the way to a store; a local disk is faster without."""
    if is_local(fs):
        yield from map(function, items)
        return
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        yield from pool.map(function, items)


def open_dataset(url: str, kind: str) -> Dataset:
    """Open the `kind` dataset at `url` (local path or fsspec URL).

    Raises `DatasetError` if there is none or it is of another kind.
    """
    info = read_info(url)
    if info is None:
        raise DatasetError(f"{url}: no {DATASET_FILE} there, so no latentmill dataset. Check the path.")
    if info.kind != kind:
        raise DatasetError(f"{url}: a {info.kind} dataset, expected {kind}. Point at the right directory.")
    fs, root = file_system(url)
    ledger = read_ledger(url)
    stale = {entry.unit for entry in ledger.entries if entry.fingerprint != info.fingerprint}
    damaged = damaged_outputs(fs, root, (entry for entry in ledger.entries if entry.unit not in stale))
    whole = tuple(entry for entry in ledger.entries if entry.unit not in stale and entry.unit not in damaged)
    made = {entry.unit for entry in ledger.entries} | set(ledger.damaged)
    plan = read_plan(url)
    faults = [f"{unit}: made under other settings" for unit in sorted(stale)]
    faults += [_describe(unit, *fault) for unit, fault in damaged.items()]
    faults += [f"{unit}: its ledger entry is damaged" for unit in ledger.damaged]
    faults += [f"{unit.name}: not made yet" for unit in plan.units if unit.name not in made]
    faults += [f"{shard}: not read yet" for shard in sorted(set(plan.shards) - {u.shard for u in plan.units})]
    return Dataset(url, info, whole, tuple(faults), fs, root)


def _describe(unit: str, output: OutputFile, size: int | None) -> str:
    if size is None:
        return f"{unit}: {output.path} is missing"
    return f"{unit}: {output.path} has {size} bytes, expected {output.bytes}"

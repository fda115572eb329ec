"""Open a dataset for reading: what is whole, what is missing, and where its files are.

Readers trust the ledger alone. A file without a valid entry does not exist; an entry whose file is missing or has
another size, or that was made under another fingerprint, is reported.
"""

import posixpath
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow.parquet as pq

from schemas.dataset import DATASET_FILE, LAYOUT_VERSION, LEDGER_DIR, PLAN_FILE, DatasetInfo, LedgerEntry, PlanRecord
from schemas.errors import DatasetError
from schemas.record import from_json
from schemas.table import TableSchema

_READ_THREADS = 16


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset as it stands on disk. `entries` are the whole units in order of name; `faults` names the others and why."""

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
        """The Parquet table of each whole unit in order, checked against `schema`, as a `pyarrow.Table`."""
        for entry in self.entries:
            for output in entry.outputs:
                if posixpath.dirname(output.path) != folder or not output.path.endswith(".parquet"):
                    continue
                with self.fs.open(self.path(output.path), "rb") as file:
                    parquet = pq.ParquetFile(file)
                    schema.check(parquet.schema_arrow, f"{self.url}/{output.path}")
                    yield parquet.read(columns=columns)


def read_info(url: str) -> DatasetInfo | None:
    """The `dataset.json` of the directory `url`, or None if there is none."""
    fs, root = fsspec.core.url_to_fs(url)
    path = posixpath.join(root, DATASET_FILE)
    if not fs.exists(path):
        return None
    info = from_json(DatasetInfo, fs.cat_file(path).decode(), f"{url}/{DATASET_FILE}")
    if info.layout_version != LAYOUT_VERSION:
        raise DatasetError(
            f"{url}: dataset layout v{info.layout_version}, this latentmill reads v{LAYOUT_VERSION}. "
            f"Use the latentmill that wrote it, or write the dataset again."
        )
    return info


def read_plan(url: str) -> PlanRecord:
    """The `plan.json` of the directory `url`; empty if there is none."""
    fs, root = fsspec.core.url_to_fs(url)
    path = posixpath.join(root, PLAN_FILE)
    if not fs.exists(path):
        return PlanRecord(shards=(), units=())
    return from_json(PlanRecord, fs.cat_file(path).decode(), f"{url}/{PLAN_FILE}")


def read_ledger(url: str) -> list[LedgerEntry]:
    """All ledger entries of the directory `url` in order of unit name, whole or not."""
    fs, root = fsspec.core.url_to_fs(url)
    folder = posixpath.join(root, LEDGER_DIR)
    if not fs.isdir(folder):
        return []
    fs.invalidate_cache(folder)
    paths = sorted(p for p in fs.ls(folder, detail=False) if p.endswith(".json"))

    def read(path: str) -> LedgerEntry:
        return from_json(LedgerEntry, fs.cat_file(path).decode(), f"{url}/{LEDGER_DIR}/{posixpath.basename(path)}")

    with ThreadPoolExecutor(_READ_THREADS) as pool:
        return list(pool.map(read, paths))


def fault_of(fs: Any, root: str, entry: LedgerEntry, fingerprint: str) -> str | None:
    """Why `entry` cannot be trusted, or None if it can."""
    if entry.fingerprint != fingerprint:
        return f"{entry.unit}: made under other settings"
    for output in entry.outputs:
        path = posixpath.join(root, output.path)
        try:
            size = fs.size(path)
        except FileNotFoundError:
            return f"{entry.unit}: {output.path} is missing"
        if size != output.bytes:
            return f"{entry.unit}: {output.path} has {size} bytes, expected {output.bytes}"
    return None


def open_dataset(url: str, kind: str) -> Dataset:
    """Open the `kind` dataset at `url` (local path or fsspec URL).

    Raises `DatasetError` if there is none or it is of another kind.
    """
    info = read_info(url)
    if info is None:
        raise DatasetError(f"{url}: no {DATASET_FILE} there, so no latentmill dataset. Check the path.")
    if info.kind != kind:
        raise DatasetError(f"{url}: a {info.kind} dataset, expected {kind}. Point at the right directory.")
    fs, root = fsspec.core.url_to_fs(url)
    ledger = read_ledger(url)
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        faults = list(pool.map(lambda entry: fault_of(fs, root, entry, info.fingerprint), ledger))
    whole = tuple(entry for entry, fault in zip(ledger, faults, strict=True) if fault is None)
    made = {entry.unit for entry in ledger}
    plan = read_plan(url)
    absent = [f"{unit.name}: not made yet" for unit in plan.units if unit.name not in made]
    absent += [f"{shard}: not read yet" for shard in sorted(set(plan.shards) - {u.shard for u in plan.units})]
    return Dataset(url, info, whole, (*(f for f in faults if f is not None), *absent), fs, root)

"""A dataset's files against its ledger: sizes, digests computed again, row counts, arithmetic, and what lies about."""

import posixpath
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from curation.shards.grouping import group_members
from curation.shards.tar_scan import Member, scan_tar
from curation.verify.findings import Findings
from schemas.dataset import (
    DATASET_FILE,
    INPUTS_DIR,
    LAYOUT_VERSION,
    LEDGER_DIR,
    MERGED_NOUNS_FILE,
    NOUN_SUMMARY_FILE,
    NULL_TEXT_FILE,
    PLAN_FILE,
    REJECTS_DIR,
    RUNS_DIR,
    UNMATCHED_FILE,
    LedgerEntry,
    OutputFile,
    index_path,
    ledger_path,
    rejects_path,
    table_path,
    tar_path,
)
from schemas.errors import SchemaError, UserError
from schemas.reading import Dataset, read_ledger, read_plan
from schemas.table import KIND_KEY
from schemas.tables import ALL_TABLES, REJECTS

FEATURES: Final = frozenset({"latents", "text"})
_ROW_PER_KEY: Final = frozenset({"captions", "measures", *FEATURES})
_SLICED: Final = frozenset({"captions", "measures", "latents"})
"""Kinds whose units are slices of a shard; units of the others count their rows from 0."""
_SCHEMAS: Final = {schema.kind: schema for schema in ALL_TABLES}
_OF_DATASET: Final = {
    "captions": (UNMATCHED_FILE,),
    "text": (NULL_TEXT_FILE,),
    "nouns": (MERGED_NOUNS_FILE, NOUN_SUMMARY_FILE),
}
_CHUNK: Final = 8 << 20
_TEMPORARY: Final = ".tmp-"


def check_ledger(dataset: Dataset, findings: Findings) -> None:
    """The arithmetic of every entry, the plan, and overlaps; no data file is opened."""
    for fault in dataset.faults:
        findings.wrong("ledger", dataset.url, fault)
    planned = {unit.name: unit for unit in read_plan(dataset.url).units}
    by_shard: defaultdict[str, list[LedgerEntry]] = defaultdict(list)
    for entry in dataset.entries:
        where = f"{dataset.url}/{ledger_path(entry.unit)}"
        for what in _arithmetic(dataset.info.kind, entry):
            findings.wrong("ledger", where, what)
        unit = planned.get(entry.unit)
        if unit is not None and (unit.shard, unit.start, unit.stop) != (entry.shard, entry.start, entry.stop):
            findings.wrong(
                "ledger", where, f"rows {entry.start} to {entry.stop}, plan.json: {unit.start} to {unit.stop}"
            )
        if unit is None and planned:
            findings.wrong("ledger", where, "a unit that plan.json does not have")
        by_shard[entry.shard].append(entry)
    if dataset.info.kind in _SLICED:
        for shard, entries in by_shard.items():
            _check_overlaps(f"{dataset.url}: shard {shard}", entries, findings)


def _arithmetic(kind: str, entry: LedgerEntry) -> list[str]:
    rejected = sum(entry.rejected.values())
    out = []
    if entry.layout_version != LAYOUT_VERSION:
        out.append(f"layout v{entry.layout_version}, the dataset is v{LAYOUT_VERSION}")
    if entry.rows_in != entry.rows_kept + rejected:
        out.append(f"{entry.rows_in} rows in, but {entry.rows_kept} kept + {rejected} rejected")
    if entry.stop - entry.start != entry.rows_in:
        out.append(f"rows {entry.start} to {entry.stop}, but {entry.rows_in} rows in")
    if min([entry.rows_kept, *entry.rejected.values()]) < 0:
        out.append("a negative count")
    rows = {output.path: output.rows for output in entry.outputs}
    expected = {rejects_path(entry.unit): rejected} if rejected else {}
    if kind in _ROW_PER_KEY:
        paths = [tar_path(entry.unit), index_path(entry.unit)] if kind in FEATURES else [table_path(entry.unit)]
        expected |= dict.fromkeys(paths, entry.rows_kept)
    if kind == "images":
        tars = sum(count for path, count in rows.items() if path.endswith(".tar"))
        tables = sum(count for path, count in rows.items() if path.endswith(".parquet")) - rejected
        if not tars == tables == entry.rows_kept:
            out.append(f"{tars} rows in tars and {tables} in tables, expected {entry.rows_kept}")
    for path, count in expected.items():
        if path not in rows:
            out.append(f"{path} is not among its outputs")
        elif rows[path] != count:
            out.append(f"{rows[path]} rows in {path}, expected {count}")
    return out


def _check_overlaps(where: str, entries: Sequence[LedgerEntry], findings: Findings) -> None:
    ordered = sorted(entries, key=lambda entry: (entry.start, entry.stop))
    for before, after in pairwise(ordered):
        if after.start < before.stop:
            findings.wrong("ledger", where, f"units {before.unit} and {after.unit} overlap")


@dataclass(frozen=True, slots=True)
class Outputs:
    """What reading a unit through came to. `members` are those of its tar, None if there is none that can be used;
    `tables_sound` says whether every Parquet file of the unit is as it was published."""

    members: Sequence[Member] | None
    tables_sound: bool


def check_outputs(dataset: Dataset, entry: LedgerEntry, findings: Findings) -> Outputs:
    """Read every output of `entry` through."""
    members: Sequence[Member] | None = None
    sound = True
    for output in entry.outputs:
        where = f"{dataset.url}/{output.path}"
        try:
            if output.path.endswith(".tar"):
                members = _check_tar(dataset, output, where, findings)
            else:
                sound = _check_table(dataset, entry, output, where, findings) and sound
        except (OSError, pa.ArrowException, UserError) as error:
            findings.wrong("files", where, _one_line(error, where))
            sound = sound and output.path.endswith(".tar")
    return Outputs(members, sound)


def _check_tar(dataset: Dataset, output: OutputFile, where: str, findings: Findings) -> Sequence[Member] | None:
    with dataset.fs.open(dataset.path(output.path), "rb") as file:
        scan = scan_tar(file, where)
    # A feature's sample is one member; of pictures a sample is all members of a key.
    rows = len(scan.members) if dataset.info.kind in FEATURES else len(group_members(scan.members))
    _compare(output, scan.bytes, scan.digest, rows, where, findings)
    if scan.fault:
        findings.wrong("files", where, scan.fault)
    return scan.members


def _check_table(dataset: Dataset, entry: LedgerEntry, output: OutputFile, where: str, findings: Findings) -> bool:
    """Whether a Parquet output is sound."""
    digest, size = xxhash.xxh3_128(), 0
    with dataset.fs.open(dataset.path(output.path), "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
        if size != output.bytes or digest.hexdigest() != output.digest:
            _compare(output, size, digest.hexdigest(), output.rows, where, findings)
            return False
        file.seek(0)
        parquet = pq.ParquetFile(file)
        kind = (parquet.schema_arrow.metadata or {}).get(KIND_KEY, b"").decode(errors="replace")
        schema = _SCHEMAS.get(kind)
        if schema is None or (output.path == index_path(entry.unit) and kind != dataset.info.kind):
            raise SchemaError(f"{where}: a table of kind {kind!r}, which does not belong here")
        schema.check(parquet.schema_arrow, where)
        _compare(output, size, output.digest, parquet.metadata.num_rows, where, findings)
        if schema is REJECTS:
            reasons = Counter(parquet.read(columns=["reason"])["reason"].to_pylist())
            if reasons != Counter(entry.rejected):
                findings.wrong("files", where, f"reasons {dict(reasons)}, the ledger says {entry.rejected}")
    return True


def _compare(output: OutputFile, size: int, digest: str, rows: int, where: str, findings: Findings) -> None:
    if size != output.bytes:
        findings.wrong("files", where, f"{size} bytes, the ledger says {output.bytes}")
    elif digest != output.digest:
        findings.wrong("files", where, f"its bytes are not those that were published (xxh3 {digest[:12]}..)")
    if rows != output.rows:
        findings.wrong("files", where, f"{rows} rows, the ledger says {output.rows}")


def check_leftovers(dataset: Dataset, findings: Findings) -> None:
    """List what no reader will ever look at: temporary files, and outputs without a valid ledger entry."""
    ledger = read_ledger(dataset.url)
    known = {output.path for entry in ledger.entries for output in entry.outputs}
    known |= {DATASET_FILE, PLAN_FILE, *_OF_DATASET.get(dataset.info.kind, ())}
    kept = {LEDGER_DIR, INPUTS_DIR, RUNS_DIR}
    for path in sorted(dataset.fs.find(dataset.root)):
        relative = posixpath.relpath(path, dataset.root)
        where = f"{dataset.url}/{relative}"
        if _TEMPORARY in posixpath.basename(relative):
            findings.note("leftovers", where, "a temporary file; the next run of the stage removes it")
        elif relative not in known and relative.partition("/")[0] not in kept:
            findings.note("leftovers", where, "a file without a ledger entry, which no reader sees")


def rejects_of(dataset: Dataset, entries: Sequence[LedgerEntry]) -> dict[str, str]:
    """Key to reason of what the units of `entries` refused."""
    out: dict[str, str] = {}
    for entry in entries:
        path = f"{REJECTS_DIR}/{entry.unit}.parquet"
        if not any(output.path == path for output in entry.outputs):
            continue
        table = read_columns(dataset, path, ["key", "reason"])
        out |= dict(zip(table["key"].to_pylist(), table["reason"].to_pylist(), strict=True))
    return out


def read_columns(dataset: Dataset, path: str, columns: list[str]) -> Any:
    """Some columns of a Parquet file of `dataset`, as a `pyarrow.Table`."""
    with dataset.fs.open(dataset.path(path), "rb") as file:
        return pq.ParquetFile(file).read(columns=columns)


def _one_line(error: Exception, where: str) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].removeprefix(f"{where}: ")[:200]

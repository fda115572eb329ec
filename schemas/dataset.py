"""What a dataset directory holds, and the records in it.

    DIR/dataset.json            what this dataset is: kind, version, configuration, fingerprint, source
    DIR/plan.json               the units that the last run planned: what a whole dataset would hold
    DIR/<unit>.parquet|.tar     one output a unit of work
    DIR/index/<unit>.parquet    of tar outputs: where each sample lies
    DIR/rejects/<unit>.parquet  what was refused, only where something was
    DIR/ledger/<unit>.json      written last: a unit without a valid entry does not exist for readers
    DIR/inputs/<shard>.parquet  the offset index of an input shard, kept so that it is scanned once
    DIR/runs/<time>.json        a summary a run; not part of the data

Paths inside records are relative to DIR and use forward slashes.
"""

from dataclasses import dataclass, field
from typing import Any, Final

LAYOUT_VERSION: Final = 1

DATASET_FILE: Final = "dataset.json"
PLAN_FILE: Final = "plan.json"
LEDGER_DIR: Final = "ledger"
REJECTS_DIR: Final = "rejects"
INDEX_DIR: Final = "index"
INPUTS_DIR: Final = "inputs"
RUNS_DIR: Final = "runs"
NULL_TEXT_FILE: Final = "null.text.npy"
UNMATCHED_FILE: Final = "unmatched.parquet"
MERGED_NOUNS_FILE: Final = "merged.parquet"
NOUN_SUMMARY_FILE: Final = "summary.json"

SELECTION_INPUT: Final = "selection/keys"
"""The name of the input of a unit that stands for the keys of its shard that a selection took."""


def ledger_path(unit: str) -> str:
    """Where the ledger entry of `unit` lies."""
    return f"{LEDGER_DIR}/{unit}.json"


def rejects_path(unit: str) -> str:
    """Where the rejects of `unit` lie, if it has any."""
    return f"{REJECTS_DIR}/{unit}.parquet"


def index_path(unit: str) -> str:
    """Where the index of `unit`'s tar lies."""
    return f"{INDEX_DIR}/{unit}.parquet"


def table_path(unit: str) -> str:
    """Where the Parquet output of `unit` lies."""
    return f"{unit}.parquet"


def tar_path(unit: str) -> str:
    """Where the tar output of `unit` lies."""
    return f"{unit}.tar"


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """`dataset.json`. `fingerprint` is the digest of all that changes the output, see curation.shards.fingerprint."""

    kind: str
    schema_version: int
    stage: str
    config: dict[str, Any]
    fingerprint: str
    source: str  # the adapter's name for image sources, else KIND:ID of the dataset it was made from
    dataset_id: str  # stable name of this dataset: kind, source and the shards of its first run
    unit_rows: int  # rows a unit; 0 means one unit a shard
    layout_version: int = LAYOUT_VERSION
    facts: dict[str, Any] = field(default_factory=dict)  # what readers need, such as the VAE's scaling_factor


@dataclass(frozen=True, slots=True)
class PlannedUnit:
    """One unit of work: rows [start, stop) of the shard named `shard`."""

    name: str
    shard: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """`plan.json`: every shard of the dataset, and every unit of the shards read so far, made or not."""

    shards: tuple[str, ...]
    units: tuple[PlannedUnit, ...]


@dataclass(frozen=True, slots=True)
class InputIdentity:
    """One input file of a unit: enough to notice that it changed. `stamp` is an mtime in seconds, or an ETag."""

    name: str
    bytes: int
    digest: str
    stamp: str


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One published file. `rows` counts table rows or tar samples."""

    path: str
    bytes: int
    digest: str
    rows: int


@dataclass(frozen=True, slots=True)
class RunFacts:
    """How one unit went. Not part of the data: two equal outputs may differ here.

    `phases` is seconds spent waiting for or doing each named thing (decode, model, write, ...).
    """

    seconds: float
    phases: dict[str, float]
    attempt: int
    host: str
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """`ledger/<unit>.json`: the proof that a unit is whole. `rows_in == rows_kept + sum(rejected.values())`."""

    unit: str
    shard: str
    start: int
    stop: int
    fingerprint: str
    inputs: tuple[InputIdentity, ...]
    rows_in: int
    rows_kept: int
    rejected: dict[str, int]
    counts: dict[str, int]  # stage-specific tallies that add up over units, such as caption statuses
    outputs: tuple[OutputFile, ...]
    run: RunFacts
    measures: dict[str, float] = field(default_factory=dict)  # figures that do not add up, such as a codec's error
    layout_version: int = LAYOUT_VERSION

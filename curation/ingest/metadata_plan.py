"""What is to be downloaded: one metadata file, canonicalised, filtered, cut into units, and kept in the dataset.

`inputs/PART.parquet` holds the rows that passed, a row group a unit, so that a unit reads only its own. Its schema's
metadata say from which file and under which settings it was made, and what was dropped between the units' rows. It is
made once; a metadata file that changed afterwards is refused, because what was downloaded cannot be matched to it.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.ingest.columns import FIELDS, Columns, resolve_columns
from curation.ingest.prefilter import Prefilter
from curation.ingest.seen_urls import SeenUrls, hash_urls
from curation.refusal import Refusal
from curation.shards.container import stamp_of
from curation.shards.fingerprint import digest_file, digest_of
from curation.shards.sinks import HashingFile
from curation.shards.target import Target
from curation.shards.urls import shard_name
from curation.sources.metadata import read_caption
from schemas.dataset import INPUTS_DIR, InputIdentity
from schemas.errors import DatasetError, SchemaError, UserError
from schemas.location import file_system
from schemas.record import canonical_json, from_json, to_json
from schemas.tables import DOWNLOADS

PLAN_VERSION: Final = 1
"""Raised whenever the same metadata and settings give other rows or other json."""

_PLAN_KEY: Final = b"latentmill.plan"
_BATCH_ROWS: Final = 65_536
_KEY_DIGITS: Final = 9
# What may stand in a URL as it is; the rest (spaces, letters beyond ASCII) is percent-encoded, as browsers do.
_URL_CHARACTERS: Final = "%/:=&?~#+!$,;'@()*[]-._"


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """All that decides what a plan holds. `chosen` is the user's word on columns, by field."""

    prefilter: Prefilter
    chosen: Mapping[str, str]
    unit_rows: int

    @property
    def config(self) -> dict[str, Any]:
        """For fingerprints."""
        return {"prefilter": asdict(self.prefilter), "columns": dict(self.chosen), "plan_version": PLAN_VERSION}


@dataclass(frozen=True, slots=True)
class PlannedRows:
    """One unit: how many rows, and `counts` of what the metadata held up to here since the unit before."""

    rows: int
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class MetadataPlan:
    """What is known of a planned metadata file without its rows."""

    identity: InputIdentity
    settings: str  # digest
    units: tuple[PlannedRows, ...]


@dataclass(frozen=True, slots=True)
class DownloadRow:
    """One row to download. `told` is the json that goes beside the picture, without what only the picture tells."""

    key: str
    url: str
    caption: str | None
    told: dict[str, Any]


def plan_path(part: str) -> str:
    """Where the plan of the metadata file `part` lies in the dataset."""
    return f"{INPUTS_DIR}/{part}.parquet"


def stored_plan(target: Target, url: str, settings: PlanSettings) -> MetadataPlan | None:
    """The plan of the metadata file `url`, if it was made. Raises `DatasetError` if the file changed since, or if it
    was planned under other settings."""
    path = target.path(plan_path(shard_name(url)))
    if not target.fs.exists(path):
        return None
    with target.fs.open(path, "rb") as file:
        try:
            plan = _plan_of(pq.ParquetFile(file), path)
        except pa.ArrowInvalid as error:
            raise SchemaError(f"{path}: damaged ({error}). Delete it and run again.") from None
    if plan.settings != _digest(settings):
        raise DatasetError(f"{path}: planned under other settings. Use the same ones, or name another --out.")
    if (plan.identity.bytes, plan.identity.stamp) != stamp_of(url, "tar") and digest_file(url) != plan.identity.digest:
        raise DatasetError(f"{url}: changed since its downloads were planned. Restore it, or name another --out.")
    return plan


def seen_in(target: Target) -> SeenUrls:
    """The URLs of every plan that the dataset has."""
    seen = SeenUrls()
    folder = target.path(INPUTS_DIR)
    if target.fs.isdir(folder):
        for path in sorted(target.fs.glob(f"{folder}/*.parquet")):
            with target.fs.open(path, "rb") as file:
                for batch in pq.ParquetFile(file).iter_batches(columns=["url_xxh64"]):
                    seen.add(batch.column(0).to_numpy())
    return seen


def make_plan(target: Target, url: str, settings: PlanSettings, seen: SeenUrls) -> MetadataPlan:
    """Read the metadata file `url` through and store its plan. `seen` are the URLs of the plans before, and gets those
    of this one.

    Holds one unit's rows and one batch. Raises `UserError` for a file that cannot be read, and for columns that are
    missing, doubtful or of an unfit type.
    """
    part, path = shard_name(url), plan_path(shard_name(url))
    size, stamp = stamp_of(url, "tar")
    identity = InputIdentity(part, size, digest_file(url), stamp)
    units: list[PlannedRows] = []
    temporary = target.temporary(path)
    file = HashingFile(temporary)
    try:
        with pq.ParquetWriter(file, DOWNLOADS.arrow, compression="zstd") as writer:
            for rows, counts in _units(url, settings, seen):
                writer.write_table(pa.Table.from_pylist(rows, schema=DOWNLOADS.arrow), row_group_size=max(1, len(rows)))
                units.append(PlannedRows(len(rows), counts))
            plan = MetadataPlan(identity, _digest(settings), tuple(units))
            writer.add_key_value_metadata({_PLAN_KEY: to_json(plan).encode()})
        file.finish()
        target.publish(temporary, path)
    finally:
        file.discard()
    return plan


def read_unit(target: Target, part: str, number: int) -> tuple[PlannedRows, list[DownloadRow]]:
    """Unit `number` of the metadata file `part`: what is known of it, and its rows."""
    path = target.path(plan_path(part))
    with target.fs.open(path, "rb") as file:
        parquet = pq.ParquetFile(file)
        planned = _plan_of(parquet, path).units[number]
        if not planned.rows:
            return planned, []
        rows = parquet.read_row_group(number, columns=["key", "url", "caption", "told"]).to_pylist()
    return planned, [DownloadRow(row["key"], row["url"], row["caption"], json.loads(row["told"])) for row in rows]


def _plan_of(parquet: pq.ParquetFile, path: str) -> MetadataPlan:
    DOWNLOADS.check(parquet.schema_arrow, path)
    return from_json(MetadataPlan, parquet.metadata.metadata.get(_PLAN_KEY, b""), path)


@dataclass(slots=True)
class _Cutter:
    """Collects rows and counts until a unit is full."""

    unit_rows: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def take(self) -> tuple[list[dict[str, Any]], dict[str, int]]:
        unit = self.rows, dict(sorted(self.counts.items()))
        self.rows, self.counts = [], Counter()
        return unit


def _units(url: str, settings: PlanSettings, seen: SeenUrls) -> Iterator[tuple[list[dict[str, Any]], dict[str, int]]]:
    """The rows of each unit with its counts; at least one unit, so that what was dropped is counted somewhere."""
    cutter = _Cutter(settings.unit_rows)
    any_unit = False
    for verdict, row in _judged(url, settings, seen):
        cutter.counts["metadata rows"] += 1
        if verdict is not None:
            cutter.counts[f"dropped: {verdict}"] += 1
            continue
        cutter.rows.append(row)
        if len(cutter.rows) == cutter.unit_rows:
            any_unit = True
            yield cutter.take()
    if cutter.rows or cutter.counts or not any_unit:
        yield cutter.take()


def _judged(url: str, settings: PlanSettings, seen: SeenUrls) -> Iterator[tuple[str | None, dict[str, Any]]]:
    """Every row of the file in order: why it is dropped, or None and what the plan says of it."""
    fs, path = file_system(url)
    with fs.open(path, "rb") as file:
        try:
            parquet = pq.ParquetFile(file)
            needed = {"url", "caption", *settings.prefilter.fields}
            columns = resolve_columns(parquet.schema_arrow, url, needed=needed, chosen=settings.chosen)
            start = 0
            for batch in parquet.iter_batches(_BATCH_ROWS, columns=columns.names):
                yield from _judge_batch(batch, start, columns, settings.prefilter, seen, url)
                start += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"{url}: not readable as Parquet ({first}). Fetch it again.") from None


def _judge_batch(
    batch: pa.RecordBatch, start: int, columns: Columns, prefilter: Prefilter, seen: SeenUrls, where: str
) -> Iterator[tuple[str | None, dict[str, Any]]]:
    table = {name: batch.column(batch.schema.get_field_index(name)) for name in columns.names}
    kinds = {f.name: f.kind for f in FIELDS}
    numbers = {
        name: _numbers(table[column], f"{where}: {column}")
        for name, column in columns.by_field.items()
        if kinds[name] == "number"
    }
    verdicts = prefilter.dropped(numbers, batch.num_rows)
    passing = [index for index, verdict in enumerate(verdicts) if verdict is None]
    kept = {
        name: _values(column.take(pa.array(passing, pa.int64())), f"{where}: {name}") for name, column in table.items()
    }
    rows: dict[int, dict[str, Any]] = {}
    for place, index in enumerate(passing):
        row = _row(start + index, {name: values[place] for name, values in kept.items()}, columns, kinds)
        if isinstance(row, str):
            verdicts[index] = row
        else:
            rows[index] = row
    hashes = hash_urls([row["url"] for row in rows.values()])
    for (index, row), digest, fresh in zip(rows.items(), hashes, seen.add(hashes), strict=True):
        row["url_xxh64"] = int(digest)
        if not fresh:
            verdicts[index] = "url_seen_before"
    for index, verdict in enumerate(verdicts):
        yield (verdict, {}) if verdict is not None else (None, rows[index])


def _values(column: pa.Array, where: str) -> list[Any]:
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:  # Parquet's readers take the writer's word for it
        raise UserError(f"{where}: a text in it is not UTF-8. Convert the file, or take the row out.") from None


def _numbers(column: pa.Array, where: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A column as float64, NaN where unknown."""
    try:
        values = pc.cast(column, pa.float64(), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # a text that is no number; a type without such a cast
        raise UserError(f"{where}: {column.type}, expected numbers. Name another column with --column.") from None
    array: np.ndarray[Any, np.dtype[np.float64]] = values.fill_null(math.nan).to_numpy(zero_copy_only=False)
    return array


def _row(number: int, values: Mapping[str, Any], columns: Columns, kinds: Mapping[str, str]) -> dict[str, Any] | str:
    """The plan's row of metadata row `number`, or why it is dropped."""
    told: dict[str, Any] = {name: _plain(values[name]) for name in columns.others}
    for name, column in columns.by_field.items():
        value = _plain(values[column])
        if value is not None and kinds[name] == "text":
            value = str(value)
        elif isinstance(value, str):  # a number in words, which `_numbers` could read
            value = _plain(float(value))
        told[name] = value
    url = _url(told["url"])
    if url is None:
        return "no_url"
    caption = told.get("caption")
    caption = None if caption is None else read_caption(caption, "caption")
    if isinstance(caption, Refusal):
        return "bad_caption"
    told |= {"url": url, "caption": caption}
    text = canonical_json({name: value for name, value in told.items() if value is not None})
    return {"key": f"{number:0{_KEY_DIGITS}d}", "url": url, "caption": caption, "told": text}


def _url(text: str | None) -> str | None:
    """An http(s) URL in ASCII; None for anything else, such as file:, which would read this machine's own files."""
    if not text:
        return None
    url = quote(text.strip(), safe=_URL_CHARACTERS)
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return url if parts.scheme.lower() in {"http", "https"} and parts.netloc else None


def _plain(value: Any) -> Any:
    """`value` as JSON has it: NaN and the infinities are None, whole floats of a size stay floats, bytes are text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _digest(settings: PlanSettings) -> str:
    return digest_of({**settings.config, "unit_rows": settings.unit_rows})

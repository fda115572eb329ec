"""What img2dataset really wrote, whatever its statistics say.

Each whole picture is found in the tars by a pass over their headers, and belongs to a row only if the json beside it
names that row, its URL, and the SHA-256 of the picture. What failed is in the Parquet file. A row that is in neither
was lost: the tar was cut short, a member is missing, or an exception swallowed the row.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curation.ingest.downloader import ROW_COLUMN
from curation.ingest.failures import failure
from curation.ingest.metadata_plan import DownloadRow
from curation.refusal import Refusal
from curation.shards.grouping import split_at_first_dot
from curation.shards.tar_scan import Member, scan_tar
from curation.sources.base import IMAGE_EXTENSIONS
from schemas.errors import UserError
from schemas.status import RejectReason


@dataclass(frozen=True, slots=True)
class _Place:
    tar: Path
    offset: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Downloaded:
    """The outcome by row key. `torn` says whether a tar was not whole, `miscounted` whether the statistics were not
    what the tars hold."""

    found: Mapping[str, _Place]
    failed: Mapping[str, Refusal]
    torn: bool
    miscounted: bool

    def of(self, row: DownloadRow) -> bytes | Refusal:
        """The file that was downloaded for `row`, or why there is none."""
        place = self.found.get(row.key)
        if place is None:
            return self.failed.get(row.key) or Refusal(
                RejectReason.LOST, "the downloader wrote neither a whole sample nor a reason"
            )
        with place.tar.open("rb") as file:
            file.seek(place.offset)
            data = file.read(place.size)
        if hashlib.sha256(data).hexdigest() != place.sha256:
            return Refusal(RejectReason.LOST, "the picture in the tar is not the one that was downloaded (SHA-256)")
        return data


def read_downloaded(folder: Path, rows: Sequence[DownloadRow]) -> Downloaded:
    """What lies in the folder that `Downloader.download` filled for `rows`."""
    wanted = {row.key: row for row in rows}
    out = folder / "out"
    found: dict[str, _Place] = {}
    torn = False
    for tar in sorted(out.glob("*.tar")):
        places, whole = _samples(tar, wanted)
        found |= places
        torn = torn or not whole
    failed = {
        key: failure(message)
        for table in sorted(out.glob("*.parquet"))
        for key, message in _failures(table, wanted).items()
    }
    counted = [_successes(stats) for stats in sorted(out.glob("*_stats.json"))]
    return Downloaded(found, failed, torn, sum(counted) != len(found))


def _samples(tar: Path, wanted: Mapping[str, DownloadRow]) -> tuple[dict[str, _Place], bool]:
    """The place of each row's picture in `tar`, and whether the tar is whole."""
    with tar.open("rb") as file:
        try:
            scan = scan_tar(file, str(tar))
        except UserError:  # nothing of it was written, or nothing of it is a tar
            return {}, False
        groups: defaultdict[str, list[tuple[str, Member]]] = defaultdict(list)
        for member in scan.members:
            key, extension = split_at_first_dot(member.name) or (member.name, "")
            groups[key].append((extension, member))
        found: dict[str, _Place] = {}
        for members in groups.values():
            pictures = [m for extension, m in members if extension.lower() in IMAGE_EXTENSIONS]
            records = [m for extension, m in members if extension == "json"]
            if len(pictures) != 1 or len(records) != 1 or not (pictures[0].whole and records[0].whole):
                continue
            file.seek(records[0].offset)
            row, digest = _row_of(file.read(records[0].size), wanted)
            if row is not None:
                found[row] = _Place(tar, pictures[0].offset, pictures[0].size, digest)
    return found, not scan.fault


def _row_of(record: bytes, wanted: Mapping[str, DownloadRow]) -> tuple[str | None, str]:
    """The key of the row that a sample's json names, and its picture's SHA-256; None if no row goes by that URL."""
    try:
        told = json.loads(record)
        row = wanted.get(told[ROW_COLUMN])
        return (row.key, str(told["sha256"])) if row is not None and told["url"] == row.url else (None, "")
    except (ValueError, TypeError, KeyError):
        return None, ""


def _failures(table: Path, wanted: Mapping[str, DownloadRow]) -> dict[str, str]:
    """The message of each row that img2dataset says it could not fetch; none if the file was not finished."""
    try:
        read = pq.read_table(table, columns=[ROW_COLUMN, "status", "error_message"])
    except (pa.ArrowInvalid, OSError):
        return {}
    return {
        row[ROW_COLUMN]: row["error_message"] or row["status"]
        for row in read.to_pylist()
        if row[ROW_COLUMN] in wanted and row["status"] != "success"
    }


def _successes(stats: Path) -> int:
    try:
        return int(json.loads(stats.read_text())["successes"])
    except (ValueError, TypeError, KeyError):
        return -1

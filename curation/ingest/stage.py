"""The download stage: a unit's URLs in, a tar of whole samples and a reason for each row that gave none out.

A unit that was published before keeps its tars: what was downloaded is not there to be had again, and what was made
from those tars stays valid. Rows that a later try brings come in a further tar of the same unit.
"""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

import pyarrow.parquet as pq

from curation.execution.clock import PhaseClock
from curation.execution.prefetch import map_ahead
from curation.execution.stage import StageSpec, Unit
from curation.images.decode import DecodePolicy
from curation.ingest.downloaded import Downloaded, read_downloaded
from curation.ingest.downloader import Downloader
from curation.ingest.failures import LASTING, NEVER_AGAIN
from curation.ingest.images import CheckedImage, ImageWriter, check_image, pairs_of
from curation.ingest.metadata_plan import DownloadRow, PlanSettings, read_unit
from curation.refusal import Refusal
from curation.shards.target import Target
from curation.shards.unit_writer import UnitWriter
from schemas.dataset import LedgerEntry, OutputFile, ledger_path, rejects_path
from schemas.errors import SchemaError
from schemas.record import from_json
from schemas.status import RejectReason
from schemas.tables import IMAGES

SOURCE: Final = "laion"

Retry = Literal["all", "transient", "none"]
RETRIES: Final[tuple[Retry, ...]] = ("all", "transient", "none")

_STAGE_VERSION: Final = 1
_TRIED_AGAIN: Final = "rows tried again"
_RECOVERED: Final = "rows recovered"
_CHECK_THREADS: Final = 4
_CHECKED_AHEAD: Final = 64


def tried_again(reason: str, retry: Retry) -> bool:
    """Whether a row that failed for `reason` is downloaded again under `--retry`."""
    if retry == "none" or reason in NEVER_AGAIN:
        return False
    return retry == "all" or reason not in LASTING


@dataclass(frozen=True, slots=True)
class IngestStage:
    """Downloads what the plans in `target` say. `downloader`, `retry` and `work` are how, not what."""

    target: Target
    settings: PlanSettings
    policy: DecodePolicy
    downloader: Downloader
    retry: Retry
    work: str

    @property
    def spec(self) -> StageSpec:
        """Who this stage is."""
        return StageSpec(
            name="ingest",
            version=_STAGE_VERSION,
            schema=IMAGES,
            config={**self.settings.config, "decode": asdict(self.policy)},
        )

    def open(self) -> "IngestWorker":
        """Nothing is held between units."""
        return IngestWorker(self)


@dataclass(frozen=True, slots=True)
class _Before:
    """What an earlier run of the unit left: its entry, the outputs of it that are whole, the keys in them, and the
    rejects (reason and detail by key) that are not tried again."""

    entry: LedgerEntry
    carried: tuple[OutputFile, ...]
    keys: frozenset[str]
    settled: Mapping[str, tuple[str, str]]


class IngestWorker:
    """Runs img2dataset once for each unit and publishes what it verified."""

    def __init__(self, stage: IngestStage) -> None:
        self._stage = stage

    def process(self, unit: Unit, writer: UnitWriter, clock: PhaseClock) -> None:
        """Download, verify and write the unit's rows that are not there yet, in the order of the metadata."""
        stage = self._stage
        number = unit.planned.start // stage.settings.unit_rows
        planned, rows = read_unit(stage.target, unit.planned.shard, number)
        for name, value in planned.counts.items():
            writer.count(name, value)
        before = self._before(unit)
        if before:
            writer.go_on(before.carried)
        wanted = [row for row in rows if not before or (row.key not in before.keys and row.key not in before.settled)]
        images = ImageWriter(writer, unit, before.entry if before else None)
        Path(stage.work).mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=stage.work, prefix=f"{unit.planned.start}-"))
        try:
            downloaded = self._download(wanted, folder, writer, clock)
            self._write(rows, wanted, before, downloaded, images, writer, clock)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if before:
            for name, value in ((_TRIED_AGAIN, len(wanted)), (_RECOVERED, images.written)):
                writer.count(name, before.entry.counts.get(name, 0) + value)

    def close(self) -> None:
        """Nothing is held."""

    def _before(self, unit: Unit) -> _Before | None:
        target = self._stage.target
        path = target.path(ledger_path(unit.name))
        if not target.fs.exists(path):
            return None
        try:
            entry = from_json(LedgerEntry, target.fs.cat_file(path), path)
        except SchemaError:
            return None
        if entry.fingerprint != self._stage.spec.fingerprint:
            return None
        carried: list[OutputFile] = []
        keys: set[str] = set()
        for pair in pairs_of(entry):
            if all(_is_whole(target, output) for output in pair):
                carried += pair
                with target.fs.open(target.path(pair[1].path), "rb") as file:
                    keys |= set(pq.read_table(file, columns=["key"])["key"].to_pylist())
        return _Before(entry, tuple(carried), frozenset(keys), self._settled(entry, keys))

    def _settled(self, entry: LedgerEntry, keys: set[str]) -> dict[str, tuple[str, str]]:
        rejects = next((o for o in entry.outputs if o.path == rejects_path(entry.unit)), None)
        if rejects is None or not _is_whole(self._stage.target, rejects):
            return {}
        with self._stage.target.fs.open(self._stage.target.path(rejects.path), "rb") as file:
            rows = pq.read_table(file, columns=["key", "reason", "detail"]).to_pylist()
        return {
            row["key"]: (row["reason"], row["detail"])
            for row in rows
            if row["key"] not in keys and not tried_again(row["reason"], self._stage.retry)
        }

    def _download(
        self, wanted: Sequence[DownloadRow], folder: Path, writer: UnitWriter, clock: PhaseClock
    ) -> Downloaded:
        if not wanted:
            return Downloaded({}, {}, torn=False, miscounted=False)
        with clock.phase("download"):
            ended = self._stage.downloader.download(wanted, folder)
        with clock.phase("verify"):
            downloaded = read_downloaded(folder, wanted)
        for name, applies in (
            ("downloads stopped because they hung", not ended),
            ("tars of img2dataset that were not whole", ended and downloaded.torn),
            ("statistics of img2dataset that were wrong", ended and downloaded.miscounted),
        ):
            if applies:
                writer.count(name)
        return downloaded

    def _write(
        self,
        rows: Sequence[DownloadRow],
        wanted: Sequence[DownloadRow],
        before: _Before | None,
        downloaded: Downloaded,
        images: ImageWriter,
        writer: UnitWriter,
        clock: PhaseClock,
    ) -> None:
        checked = map_ahead(
            lambda row: self._check(row, downloaded), wanted, threads=_CHECK_THREADS, ahead=_CHECKED_AHEAD
        )
        for row in rows:
            if before and row.key in before.keys:
                writer.keep(row.key)
            elif before and row.key in before.settled:
                reason, detail = before.settled[row.key]
                writer.reject(row.key, RejectReason(reason), detail)
            else:
                with clock.phase("verify"):
                    image = next(checked)
                with clock.phase("write"):
                    if isinstance(image, Refusal):
                        writer.reject(row.key, image.reason, image.detail)
                    else:
                        images.write(row.key, image, row.caption, row.told)

    def _check(self, row: DownloadRow, downloaded: Downloaded) -> CheckedImage | Refusal:
        data = downloaded.of(row)
        image = data if isinstance(data, Refusal) else check_image(data, self._stage.policy)
        if isinstance(image, Refusal):
            return image
        small = self._stage.settings.prefilter.too_small(image.width, image.height)
        return Refusal(RejectReason.TOO_SMALL, small) if small else image


def _is_whole(target: Target, output: OutputFile) -> bool:
    path = target.path(output.path)
    return bool(target.fs.exists(path)) and target.fs.size(path) == output.bytes

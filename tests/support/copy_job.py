"""A small real stage and its command, for tests: copies the txt member of each sample into a table and a tar.

Run as a script it is a command like those of pipelines/; loaded by path it gives the stage to tests in process.
Troubles (`key=kind` or `key=kind:times`) make chosen keys misbehave; --kill ends the process by SIGKILL at a call.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from fault_points import Places, kill_at

from curation.execution import plan
from curation.execution.clock import PhaseClock
from curation.execution.job import Job, check_target, unit_rows_of
from curation.execution.plan import plan_images, plan_selected
from curation.execution.stage import LEFT_OUT, StageSpec, Unit
from curation.shards.container import check_container, open_container
from curation.shards.shard_index import read_samples
from curation.shards.sinks import TableSink
from curation.shards.tar_writer import TarWriter
from curation.shards.target import Target
from curation.shards.unit_writer import UnitWriter
from curation.shards.urls import expand_shards, shard_name
from pipelines import command
from schemas.dataset import table_path, tar_path
from schemas.errors import UserError
from schemas.selection import Selection
from schemas.status import RejectReason
from schemas.table import Column, TableSchema

COPIES = TableSchema(
    "copies",
    1,
    (
        Column("key", pa.string(), "sample key"),
        Column("shard", pa.string(), "shard"),
        Column("text", pa.string(), "copy"),
    ),
)


_SLEEPS = {"nap": 0.5, "doze": 6.0, "sleep": 30.0}


@dataclass(frozen=True, slots=True)
class CopyStage:
    """Copies text with a suffix. `trouble` is by key; a kind with `:times` wears off, which `marks` remembers."""

    target: Target
    suffix: str = ""
    trouble: Mapping[str, str] = field(default_factory=dict)
    marks: str = ""

    @property
    def spec(self) -> StageSpec:
        return StageSpec("copy", 1, COPIES, {"suffix": self.suffix, "text": {"limit": 1000, "tags": ("a", "b")}})

    def open(self) -> "CopyWorker":
        if self.trouble.get("open") == "user_error":
            raise UserError("the model is not there. Name another.")
        if self.trouble.get("open") == "exit":
            os._exit(7)
        return CopyWorker(self)


class CopyWorker:
    def __init__(self, stage: CopyStage) -> None:
        self._stage = stage

    def process(self, unit: Unit, writer: UnitWriter, clock: PhaseClock) -> None:
        table, tar = writer.table(table_path(unit.name), COPIES), writer.tar(tar_path(unit.name))
        container = open_container(unit.url, "tar")
        try:
            for sample in read_samples(self._stage.target, unit.url, unit.planned.start, unit.planned.stop):
                if unit.leaves_out(sample.key):
                    writer.reject(sample.key, RejectReason.NOT_SELECTED, LEFT_OUT)
                    continue
                if sample.refused is not None:
                    writer.reject(sample.key, sample.refused, sample.detail)
                    continue
                with clock.phase("decode"):
                    text = container.read(sample, ["txt"])["txt"].decode() + self._stage.suffix
                if self._misbehave(sample.key):
                    writer.reject(sample.key, RejectReason.CORRUPT, "refused on demand")
                    continue
                with clock.phase("write"):
                    table.write([{"key": sample.key, "shard": unit.planned.shard, "text": text}])
                    tar.add(sample.key, "copy.txt", text.encode())
                writer.keep(sample.key)
                writer.count("characters", len(text))
        finally:
            container.close()

    def close(self) -> None:
        return None

    def _misbehave(self, key: str) -> bool:
        """Do what the trouble of `key` says; whether the row is to be refused."""
        kind, _, times = self._stage.trouble.get(key, "").partition(":")
        if times and not self._left(key, int(times)):
            return False
        if kind == "raise":
            raise ValueError(f"no luck with [bold]{key}[/] today")
        if kind == "user_error":
            raise UserError(f"{key}: the server is down. Start it.")
        if kind == "exit":
            os._exit(9)
        if kind in _SLEEPS:
            time.sleep(_SLEEPS[kind])
        if kind == "swallow":
            try:
                time.sleep(30)
            except Exception:  # noqa: BLE001 - what a careless stage does
                return True
        return kind == "reject"

    def _left(self, key: str, times: int) -> bool:
        for number in range(times):
            mark = Path(self._stage.marks) / f"{key.replace('/', '_')}-{number}"
            if not mark.exists():
                mark.touch()
                return True
        return False


def write_shard(path: Path, rows: int, words: str = "hello") -> Path:
    """Write the shard `NAME.tar` of `rows` samples `NAME/k000.txt`, ..."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        tar = TarWriter(file)
        for row in range(rows):
            tar.add(f"{path.stem}/k{row:03d}.txt", f"{words} {path.stem} {row}".encode())
        tar.finish()
    return path


def make_job(
    shards: Sequence[str],
    out: str,
    *,
    unit_rows: int | None = 4,
    source: str = "texts",
    scan: bool = True,
    suffix: str = "",
    trouble: Mapping[str, str] | None = None,
    marks: str = "",
    selection: Selection | None = None,
) -> Job:
    """The job that copies `shards` to `out`; of a `selection`, only what is in it."""
    urls = expand_shards(shards)
    for url in urls:
        check_container(url, "tar")
    target = Target(out)
    rows = unit_rows_of(out, unit_rows, 4)
    stage = CopyStage(target, suffix, trouble or {}, marks)
    plans, names = plan_images(target, urls, "tar", rows, scan=scan), [shard_name(url) for url in urls]
    job = Job(
        stage, target, source, names, plan_selected(plans, selection, names) if selection else plans, rows, selection
    )
    check_target(job)
    return job


PLACES: Places = {
    "index": (plan, "ensure_index"),
    "process": (CopyWorker, "process"),
    "keep": (UnitWriter, "keep"),
    "reject": (UnitWriter, "reject"),
    "finish": (TableSink, "finish"),
    "commit": (UnitWriter, "commit"),
    "publish": (Target, "publish"),
    "remove": (Target, "remove"),
    "fsync": (os, "fsync"),
    "replace": (os, "replace"),
}


def main(arguments: Sequence[str]) -> int:
    parser = command.parser("copy", "Copy texts.")
    parser.add_argument("--shards", nargs="+", required=True)
    parser.add_argument("--source", default="texts")
    parser.add_argument("--out", required=True)
    parser.add_argument("--suffix", default="")
    parser.add_argument("--trouble", nargs="*", default=[])
    parser.add_argument("--marks", default="")
    parser.add_argument("--kill", default="")
    command.add_job_arguments(parser, unit_rows=4)
    given = parser.parse_args(arguments)
    if given.kill:
        where, call, moment = given.kill.split(":")
        kill_at(PLACES, where, int(call), moment)
    job = make_job(
        given.shards,
        given.out,
        unit_rows=given.unit_rows,
        source=given.source,
        scan=not given.dry_run,
        suffix=given.suffix,
        trouble=dict(item.split("=", 1) for item in given.trouble),
        marks=given.marks,
    )
    return int(command.finish(given, job).exit_code)


if __name__ == "__main__":
    command.run(main)

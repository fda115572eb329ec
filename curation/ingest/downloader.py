"""img2dataset in a process and an environment of its own: made, checked, run, and never left behind.

It stores the bytes as they were served (`disable_all_reencoding`): its resizing reads pictures without their EXIF
orientation, and what is wanted is decided by our own decode policy anyway.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from curation.ingest.metadata_plan import DownloadRow
from curation.shards.target import storage_errors
from schemas.errors import StorageError, UserError

REQUIREMENT: Final = "img2dataset>=1.47,<2"
"""With a lower bound: without one, resolvers fall back to a version of 2022."""

ROW_COLUMN: Final = "latentmill_row"
"""The column by which a sample finds its row again, whatever key img2dataset gives it."""

_CHILD: Final = Path(__file__).with_name("img2dataset_child.py")
_LOG: Final = "img2dataset.log"
_LEAST: Final = (1, 47)
_TOO_NEW_PYTHON: Final = (3, 13)
_POLL_SECONDS: Final = 0.1
_START_SECONDS: Final = 120.0
_FULL_DISK_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Downloader:
    """How img2dataset is run; nothing here changes what is written, only how much of it arrives.

    `python` is the interpreter of its environment. `timeout` bounds each wait for a server, in seconds; `stall` is
    after how many seconds without any row done the process is stopped, for servers that send a byte now and then. Until
    the first row is done it has two minutes at least, because it may have to be read from a slow disk.
    """

    python: str
    threads: int = 64
    timeout: int = 10
    retries: int = 1
    stall: float = 180.0

    def __post_init__(self) -> None:
        if min(self.threads, self.timeout) < 1 or self.retries < 0 or self.stall <= 0:
            raise UserError("--threads, --timeout and --stall must be at least 1, and --tries at least 1.")

    def check(self) -> str:
        """The version of img2dataset. Raises `UserError` if it cannot be run."""
        advice = "Make its environment with python -m pipelines.ingest --make-environment DIR."
        try:
            done = subprocess.run(
                [self.python, str(_CHILD), "version"], capture_output=True, text=True, env=_environment(), check=False
            )
        except OSError as error:
            raise UserError(f"--img2dataset {self.python}: cannot be run ({error.strerror}). {advice}") from None
        if done.returncode != 0:
            why = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(f"--img2dataset {self.python}: img2dataset cannot be imported ({why}). {advice}")
        if not done.stdout.strip():
            raise UserError(f"--img2dataset {self.python}: no Python interpreter, it answers nothing. {advice}")
        version = done.stdout.strip().splitlines()[-1]
        if tuple(int(part) for part in version.split(".")[:2] if part.isdecimal()) < _LEAST:
            raise UserError(f"--img2dataset {self.python}: img2dataset {version}, needed is {REQUIREMENT}. {advice}")
        return version

    def download(self, rows: Sequence[DownloadRow], folder: Path) -> bool:
        """Download `rows` into the empty `folder`; whether img2dataset came to its own end rather than being stopped.

        What it wrote is read by curation.ingest.downloaded. Raises RuntimeError if it failed as a whole, and
        `StorageError` if the disk is full.
        """
        listed, out = folder / "rows.parquet", folder / "out"
        with storage_errors(str(folder)):
            table = {"url": [row.url for row in rows], ROW_COLUMN: [row.key for row in rows]}
            pq.write_table(pa.table(table), listed)
            (folder / _LOG).touch()
        with open(folder / _LOG, "wb") as log:
            process = subprocess.Popen(
                [self.python, str(_CHILD), "download", json.dumps(self._arguments(listed, out, len(rows)))],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(),
                cwd=folder,
                start_new_session=True,
            )
            try:
                ended = self._wait(process, out)
            finally:
                _end(process)
        if shutil.disk_usage(folder).free < _FULL_DISK_BYTES:
            raise StorageError(f"{folder}: the disk is full. Make room, then run the same command.")
        if ended and (process.returncode != 0 or not any(out.glob("*.tar"))):
            raise RuntimeError(f"img2dataset failed with status {process.returncode}: {_last_lines(folder / _LOG)}")
        return ended

    def _wait(self, process: "subprocess.Popen[bytes]", out: Path) -> bool:
        """Wait for the end or a stall; whether it was the end."""
        size, moved = 0, time.monotonic()
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_POLL_SECONDS)
                return True
            now = sum(file.stat().st_size for file in out.glob("*") if file.is_file())
            if now != size:
                size, moved = now, time.monotonic()
            elif time.monotonic() - moved > (self.stall if size else max(self.stall, _START_SECONDS)):
                return False

    def _arguments(self, listed: Path, out: Path, rows: int) -> dict[str, object]:
        return {
            "url_list": str(listed),
            "input_format": "parquet",
            "url_col": "url",
            "save_additional_columns": [ROW_COLUMN],
            "output_folder": str(out),
            "output_format": "webdataset",
            "number_sample_per_shard": rows,
            "processes_count": 1,
            "thread_count": min(self.threads, rows),
            "timeout": self.timeout,
            "retries": self.retries,
            "max_shard_retry": 0,
            "disable_all_reencoding": True,
            "extract_exif": False,
            "compute_hash": "sha256",
            "enable_wandb": False,
        }


def make_environment(folder: str) -> str:
    """Make a virtual environment with img2dataset in `folder`; the path of its interpreter.

    Raises `UserError` if that cannot be done. pip's own output goes to the terminal.
    """
    if sys.version_info >= _TOO_NEW_PYTHON:
        raise UserError("img2dataset needs Python 3.12 or older. Run this command with python3.11.")
    python = Path(folder).absolute() / "bin" / "python"
    for command in (
        [sys.executable, "-m", "venv", folder],
        [str(python), "-m", "pip", "install", "--disable-pip-version-check", REQUIREMENT],
    ):
        if subprocess.run(command, check=False).returncode != 0:
            raise UserError(f"{' '.join(command)} failed, see above. Mend the cause and run the same command again.")
    return str(python)


def _environment() -> dict[str, str]:
    """Ours without what would make the other interpreter import our packages; and no calls home."""
    kept = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
    return kept | {"NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled", "PYTHONUNBUFFERED": "1"}


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the process and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _last_lines(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " / ".join(lines[-3:])[-400:] or "no output"

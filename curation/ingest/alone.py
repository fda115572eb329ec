"""One ingest at a time in a directory: downloads differ from run to run, so two runs would mix what they publish."""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from curation.shards.fingerprint import digest_of
from curation.shards.target import Target
from schemas.dataset import RUNS_DIR
from schemas.errors import DatasetError

_WORK: Final = ".downloads"
_LOCK: Final = f"{RUNS_DIR}/.ingest.lock"


@contextmanager
def alone(target: Target) -> Iterator[None]:
    """Hold the directory for the block. The lock ends with the process, however that ends; object stores have none.

    Raises `DatasetError` if another process of this machine (or of the file system, where it shares locks) holds it.
    """
    if not target.is_local:
        yield
        return
    target.require_writable()
    Path(target.path(RUNS_DIR)).mkdir(exist_ok=True)
    with open(target.path(_LOCK), "wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DatasetError(f"{target.url}: another pipelines.ingest writes here. Wait for its end.") from None
        yield


def work_place(target: Target, asked: str | None) -> Path:
    """The folder for downloads under way, of this dataset alone: in the folder `asked` for, else in the dataset where
    it is on a local disk, else among the temporary files."""
    if asked is None and target.is_local:
        return Path(target.path(_WORK))
    return Path(asked or tempfile.gettempdir()).absolute() / f"{_WORK}-{digest_of(target.url)[:16]}"


@contextmanager
def work_folder(folder: Path) -> Iterator[Path]:
    """Clear away what a killed run left in `folder`, and everything at the end. Only within `alone`."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)

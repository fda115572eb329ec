"""The directory that a job writes: putting files in place whole, and taking away what a dead process left.

On a local disk a file is written beside its place under a temporary name, flushed to the disk, and renamed. Elsewhere
it is written to a local temporary file and uploaded in one request.
"""

import contextlib
import errno
import os
import posixpath
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil

from schemas.errors import StorageError
from schemas.location import file_system, is_local

_MARK = ".tmp-"
_REMOTE_PREFIX = "latentmill-"
_START_TOLERANCE = 2.0  # seconds: the start time is computed from the boot time, which clock corrections move
_UPLOAD_PAUSES = (0.5, 2.0, 8.0)  # seconds
_NAME_LENGTH = 40  # of the final name within the temporary one, which must fit into 255 bytes
_REFUSALS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than this process may write",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "no permission to write",
    errno.EPERM: "no permission to write",
    errno.EIO: "the disk reports an input/output error",
    errno.ENAMETOOLONG: "the name is too long for this disk",
    errno.EEXIST: "a file is in the place of a directory",
    errno.ENOTDIR: "a file is in the place of a directory",
    errno.EISDIR: "a directory is in the place of a file",
}


@contextmanager
def storage_errors(where: str) -> Iterator[None]:
    """Turn the disk's refusals into a `StorageError` that names the place; other errors pass through."""
    try:
        yield
    except OSError as error:
        what = _REFUSALS.get(error.errno or 0)
        if what is None:
            raise
        raise StorageError(
            f"{where}: {what}. Nothing half-written was published; make room or fix access, then run the same command."
        ) from error


@dataclass(frozen=True, slots=True)
class Target:
    """A dataset directory as a place to write to. Cheap to build and to send to a worker."""

    url: str

    @property
    def fs(self) -> Any:
        """Its file system."""
        return file_system(self.url)[0]

    @property
    def root(self) -> str:
        """Its path within the file system."""
        return file_system(self.url)[1]

    @property
    def is_local(self) -> bool:
        """Whether it lies on a local (or mounted) disk."""
        return is_local(self.fs)

    def path(self, relative: str) -> str:
        """The path of a file in it."""
        return posixpath.join(self.root, relative)

    def temporary(self, relative: str) -> str:
        """A local path to write the content of `relative` to before `publish`."""
        name = posixpath.basename(relative)[:_NAME_LENGTH]
        mark = f"{_MARK}{_host()}-{os.getpid()}-{_started(os.getpid()):.0f}-{secrets.token_hex(4)}"
        if not self.is_local:
            return os.path.join(tempfile.gettempdir(), f"{_REMOTE_PREFIX}{name}{mark}")
        folder = posixpath.dirname(self.path(relative))
        with storage_errors(folder):
            os.makedirs(folder, exist_ok=True)
        return posixpath.join(folder, f".{name}{mark}")

    def publish(self, temporary: str, relative: str) -> None:
        """Put the finished file `temporary` (already flushed to the disk) in its place, whole or not at all."""
        final = self.path(relative)
        with storage_errors(final):
            if self.is_local:
                os.replace(temporary, final)
                _sync_folder(posixpath.dirname(final))
                return
            self._upload(temporary, final)
            os.remove(temporary)

    def _upload(self, temporary: str, final: str) -> None:
        """Put a file into the store, asking again where it refuses for a moment; `StorageError` if it goes on."""
        for pause in (*_UPLOAD_PAUSES, None):
            try:
                self.fs.makedirs(posixpath.dirname(final), exist_ok=True)
                self.fs.put_file(temporary, final)
                return
            except OSError as error:
                if error.errno in _REFUSALS:
                    raise
                if pause is None:
                    lines = str(error).strip().splitlines() or [type(error).__name__]
                    raise StorageError(
                        f"{final}: the store refuses it, {len(_UPLOAD_PAUSES) + 1} times in a row ({lines[0][:200]}). "
                        f"Nothing half-written was published; run the same command once it is well again."
                    ) from error
            time.sleep(pause)

    def write_text(self, relative: str, text: str) -> None:
        """Publish a small text file."""
        self.write_bytes(relative, text.encode())

    def write_bytes(self, relative: str, content: bytes) -> None:
        """Publish a small file."""
        temporary = self.temporary(relative)
        try:
            with storage_errors(self.path(relative)), open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            self.publish(temporary, relative)
        finally:
            discard(temporary)

    def remove(self, relative: str) -> None:
        """Remove a file if it is there."""
        path = self.path(relative)
        with storage_errors(path), contextlib.suppress(FileNotFoundError):
            if not self.is_local:
                self.fs.rm_file(path)
                return
            os.remove(path)
            # On the disk before anything that follows: a ledger entry must not come back beside newer outputs.
            _sync_folder(posixpath.dirname(path))

    def require_writable(self) -> None:
        """Create the directory and write a byte into it; `StorageError` if that cannot be done."""
        try:
            with storage_errors(self.url):
                self.fs.makedirs(self.root, exist_ok=True)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StorageError(f"{self.url}: cannot be made ({error.strerror}). Name another --out.") from None
        if not self.is_local:
            self.write_bytes(".writable", b"1")
            self.remove(".writable")
            return
        temporary = self.temporary("writable")
        try:
            with storage_errors(self.url), open(temporary, "wb") as file:
                file.write(b"1")
        finally:
            discard(temporary)

    def sweep(self) -> list[str]:
        """Remove temporary files whose process is dead; their names. Files of other hosts are left to them."""
        if self.is_local:
            found = [os.path.join(folder, name) for folder, _, names in os.walk(self.root) for name in names]
        else:
            here = tempfile.gettempdir()
            found = [os.path.join(here, name) for name in os.listdir(here) if name.startswith(_REMOTE_PREFIX)]
        orphans = [path for path in found if _MARK in path and _is_orphan(path.rpartition(_MARK)[2])]
        for path in orphans:
            discard(path)
        return [os.path.basename(path) for path in orphans]

    def free_bytes(self) -> int | None:
        """Free space on the disk, or None where that has no meaning."""
        return shutil.disk_usage(self.root).free if self.is_local else None


def discard(path: str) -> None:
    """Remove a temporary file if it is there and can be removed.

    One that cannot be does no harm, and must not hide what went wrong with it: the next job sweeps it.
    """
    with contextlib.suppress(OSError):
        os.remove(path)


def _host() -> str:
    return "".join(c if c.isalnum() else "_" for c in socket.gethostname())


def _started(pid: int) -> float:
    """When process `pid` began, in seconds since the epoch; 0 if there is none."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return 0.0


def _is_orphan(mark: str) -> bool:
    """Whether the process that `mark` names is gone. Its start time counts: containers give the same pid again."""
    host, *rest = mark.split("-")
    if host != _host() or len(rest) != 3 or not (rest[0].isdecimal() and rest[1].isdecimal()):
        return False
    return abs(_started(int(rest[0])) - int(rest[1])) > _START_TOLERANCE


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

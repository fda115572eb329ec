"""A directory of bytes that were downloaded once, of bounded size, shared by all processes of a machine.

Objects are named by their content, so one that is there is never stale, and the samples of a data set that was cut into
other units, or lies in another place, are still found. An object appears whole or not at all. Which ones go is decided
by when they were last used.

Room for an object is reserved before its bytes are written: under a lock on the file `size`, which holds the sum of all
reserved bytes, the temporary file is made at its full length. So the sum of all file sizes never exceeds the limit,
whatever is killed when. Nobody holds the lock while something is downloaded or written.
"""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from schemas.errors import UserError

_SIZE: Final = "size"
_TEMPORARY: Final = ".part"
_ABANDONED: Final = 600.0  # seconds after which a temporary file's writer is taken for dead
_KEPT: Final = 0.9  # share of the limit that is left after objects were removed, so that it happens rarely
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)

Buffer = bytes | bytearray | memoryview


class Cache:
    """The cache in `folder`, of at most `limit` bytes. Safe to use from many threads and processes."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._size = os.open(folder / _SIZE, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise UserError(f"--cache {folder}: {error.strerror}. Choose a local directory to write to.") from None
        with self._locked():
            self._write_size(self._measure())

    def get(self, name: str, into: Sequence[bytearray | memoryview]) -> bool:
        """Read the object `name` into `into`, which is as long as it; False if it is not there."""
        path = self._path(name)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            whole = os.preadv(descriptor, into, 0) == sum(map(len, into))
            os.utime(descriptor)
        finally:
            os.close(descriptor)
        return whole

    def put(self, name: str, content: Buffer) -> None:
        """Keep `content` under `name`, removing what was not used for longest. Does nothing where there is no room."""
        path = self._path(name)
        if path.exists():
            return
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(f"{name}.{os.getpid()}-{time.monotonic_ns()}{_TEMPORARY}")
        if not self._reserve(temporary, len(content)):
            return
        try:
            with temporary.open("r+b") as file:
                file.write(content)
            # Under the lock, since who looks for what to remove must see each file under one name.
            with self._locked():
                temporary.rename(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            if error.errno not in _FULL:
                raise
        # Where another process was faster, or the disk is full, `size` is too large until objects are next removed.

    def drop(self, name: str) -> None:
        """Remove the object `name`, if it is there."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / name

    def _reserve(self, temporary: Path, size: int) -> bool:
        """Make `temporary`, `size` bytes long, if there is room for it or room can be made."""
        if size > self._limit:
            return False
        with self._locked():
            used = self._read_size()
            if used + size > self._limit:
                used = self._remove(int(self._limit * _KEPT) - size)
                self._write_size(used)
                if used + size > self._limit:  # files that others write at this moment
                    return False
            with temporary.open("xb") as file:
                file.truncate(size)
            self._write_size(used + size)
        return True

    def _remove(self, until: int) -> int:
        """Remove what was not used for longest until no more than `until` bytes are left; what is left."""
        found = sorted(self._files(), key=lambda item: item[1].st_mtime_ns)
        left, now = sum(status.st_size for _, status in found), time.time()
        for path, status in found:
            in_use = path.suffix == _TEMPORARY and now - status.st_mtime < _ABANDONED
            if left > until and not in_use:
                path.unlink(missing_ok=True)
                left -= status.st_size
        return left

    def _measure(self) -> int:
        return sum(status.st_size for _, status in self._files())

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for folder in self._folder.iterdir():
            if folder.is_dir():
                for entry in os.scandir(folder):
                    with contextlib.suppress(FileNotFoundError):
                        yield Path(entry.path), entry.stat()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        # A descriptor of its own, since threads that share one would share its lock.
        descriptor = os.open(self._folder / _SIZE, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _read_size(self) -> int:
        return int(os.pread(self._size, 32, 0) or b"0")

    def _write_size(self, size: int) -> None:
        os.pwrite(self._size, b"%32d" % size, 0)

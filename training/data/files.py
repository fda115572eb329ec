"""Positioned reads out of the tars of a data set, into memory that the caller owns.

Local files: one `preadv` a member, which puts the .npy header and the data where each belongs and needs no GIL. Other
file systems: ranged reads, neighbouring ones joined, with a cache of bounded size on a local disk where one is given.
"""

import os
import resource
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import xxhash
from fsspec.implementations.local import LocalFileSystem

from training.data.cache import Cache

_GAP: Final = 4096  # bytes between two ranges that are read along; tar headers and padding are about 1,000
_JOINED: Final = 32 << 20  # bytes of a joined range: beyond it two requests at once are faster than one


@dataclass(slots=True, eq=False)
class Member:
    """One member of a tar, and the memory that it is read into: its header and then its data."""

    file: int
    offset: int
    bytes: int
    xxh64: int
    head: bytearray
    body: memoryview

    @property
    def name(self) -> str:
        """The name of its content: equal for equal bytes."""
        return f"{self.xxh64:016x}-{self.bytes}"


class Files(Protocol):
    """The tars of one data set. Safe to call from many threads."""

    def read(self, members: Sequence[Member]) -> Iterator[OSError | None]:
        """Fill each member's memory in turn; what went wrong, or None. `TooShortError`: the file ends too soon."""

    def read_again(self, member: Member) -> OSError | None:
        """Fill it anew, from the storage itself."""

    def close(self) -> None:
        """Close what is open."""


class TooShortError(OSError):
    """The file ends before the member does."""


def open_files(fs: Any, paths: Sequence[str], cache: Cache | None) -> Files:
    """The files `paths` of `fs`. Local ones are never cached."""
    return LocalFiles(paths) if isinstance(fs, LocalFileSystem) else RemoteFiles(fs, paths, cache)


class LocalFiles:
    """Files of this machine. They stay open while a quarter of the process's file limit allows."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self._open: dict[int, int] = {}
        self._room = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4
        self._lock = threading.Lock()

    def read(self, members: Sequence[Member]) -> Iterator[OSError | None]:
        """See `Files`. Lazy: each member is read when it is asked for, and can be looked at while it is in a cache."""
        return map(self.read_again, members)

    def read_again(self, member: Member) -> OSError | None:
        """See `Files`."""
        try:
            descriptor = self._open.get(member.file)
            if descriptor is None:
                descriptor = self._keep_open(member.file)
            if descriptor is not None:
                return _fill(descriptor, member)
            descriptor = os.open(self._paths[member.file], os.O_RDONLY)
            try:
                return _fill(descriptor, member)
            finally:
                os.close(descriptor)
        except OSError as error:
            return error

    def _keep_open(self, file: int) -> int | None:
        """The open file, None once there is no room for another."""
        with self._lock:
            if file not in self._open and len(self._open) < self._room:
                self._open[file] = os.open(self._paths[file], os.O_RDONLY)
            return self._open.get(file)

    def close(self) -> None:
        """See `Files`."""
        while self._open:
            os.close(self._open.popitem()[1])


def _fill(descriptor: int, member: Member) -> OSError | None:
    done = os.preadv(descriptor, (member.head, member.body), member.offset)
    while done < member.bytes:  # network file systems may give less than was asked for
        body = done - len(member.head)
        rest = [member.body[body:]] if body >= 0 else [memoryview(member.head)[done:], member.body]
        more = os.preadv(descriptor, rest, member.offset + done)
        if more == 0:
            return TooShortError(f"the file ends {member.bytes - done} bytes too soon")
        done += more
    return None


class RemoteFiles:
    """Files of any other fsspec file system."""

    def __init__(self, fs: Any, paths: Sequence[str], cache: Cache | None) -> None:
        self._fs, self._paths, self._cache = fs, paths, cache

    def read(self, members: Sequence[Member]) -> Iterator[OSError | None]:
        """See `Files`."""
        cached = [self._cache is not None and self._cache.get(m.name, (m.head, m.body)) for m in members]
        missing = [member for member, found in zip(members, cached, strict=True) if not found]
        outcomes = iter(self._download(missing))
        return (None if found else next(outcomes) for found in cached)

    def read_again(self, member: Member) -> OSError | None:
        """See `Files`. The copy in the cache is replaced."""
        if self._cache is not None:
            self._cache.drop(member.name)
        return self._download([member])[0]

    def _download(self, members: Sequence[Member]) -> list[OSError | None]:
        if not members:
            return []
        ranges = _joined(members)
        contents = self._fs.cat_ranges(
            [self._paths[members[group[0]].file] for group in ranges],
            [members[group[0]].offset for group in ranges],
            [max(members[i].offset + members[i].bytes for i in group) for group in ranges],
            on_error="return",
        )
        outcomes: list[OSError | None] = [None] * len(members)
        for group, content in zip(ranges, contents, strict=True):
            for i in group:
                outcomes[i] = self._take(members[i], content, members[i].offset - members[group[0]].offset)
        return outcomes

    def _take(self, member: Member, content: bytes | Exception, start: int) -> OSError | None:
        """Copy a member out of the range that holds it."""
        if isinstance(content, OSError):
            return content
        if isinstance(content, Exception):  # what a store's own client raises need not be an OSError
            return OSError(f"{type(content).__name__}: {content}")
        part = memoryview(content)[start : start + member.bytes]
        if len(part) < member.bytes:
            return TooShortError(f"the file ends {member.bytes - len(part)} bytes too soon")
        member.head[:] = part[: len(member.head)]
        member.body[:] = part[len(member.head) :]
        if self._cache is not None and xxhash.xxh64_intdigest(part) == member.xxh64:
            self._cache.put(member.name, part)
        return None

    def close(self) -> None:
        """See `Files`."""


def _joined(members: Sequence[Member]) -> list[list[int]]:
    """Groups of members that lie so close in one file that one request reads them all, as indices in file order."""
    groups: list[list[int]] = []
    start = end = 0
    for i in sorted(range(len(members)), key=lambda i: (members[i].file, members[i].offset)):
        member = members[i]
        if (
            not groups
            or member.file != members[groups[-1][0]].file
            or member.offset - end > _GAP
            or member.offset + member.bytes - start > _JOINED
        ):
            groups.append([])
            start = end = member.offset
        groups[-1].append(i)
        end = max(end, member.offset + member.bytes)
    return groups

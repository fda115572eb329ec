"""Positioned reads out of the tars of a data set, into memory that the caller owns.

Local files: one `preadv` a member, which puts the .npy header and the data where each belongs and needs no GIL. Other
file systems: ranged reads, neighbouring ones joined, with a cache of bounded size on a local disk where one is given.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import xxhash
from fsspec.implementations.local import LocalFileSystem

from training.data.cache import Cache
from training.data.manifest import Places

_GAP: Final = 4096  # bytes between two ranges that are read along; tar headers and padding are about 1,000
_JOINED: Final = 32 << 20  # bytes of a joined range: beyond it two requests at once are faster than one


@dataclass(slots=True, eq=False)
class Member:
    """One member of a tar, and the memory that it is read into: its header and then its data."""

    file: int
    offset: int
    bytes: int
    xxh3: int
    head: bytearray
    body: memoryview

    @property
    def name(self) -> str:
        """The name of its content: equal for equal bytes."""
        return f"{self.xxh3:016x}-{self.bytes}"


class TooShortError(OSError):
    """The file ends before the member does."""


class Files:
    """All tars that hold one feature, wherever they lie. Safe to use from many threads.

    At most `room` local ones are kept open; what lies elsewhere goes through `cache`, if there is one.
    """

    def __init__(self, places: Places, cache: Cache | None, room: int) -> None:
        stores = [places.stores[owner].fs for owner in places.owner]
        self._local = [isinstance(fs, LocalFileSystem) for fs in stores]
        self._here, self._elsewhere = LocalFiles(places.paths, room), RemoteFiles(stores, places.paths, cache)

    def read(self, members: Sequence[Member]) -> Iterator[OSError | None]:
        """Fill each member's memory in turn; what went wrong, or None. `TooShortError`: the file ends too soon.

        Local members are read when they are asked for, and can be looked at while they are in the processor's cache.
        """
        elsewhere = iter(self._elsewhere.read([member for member in members if not self._local[member.file]]))
        return (self._here.read(member) if self._local[member.file] else next(elsewhere) for member in members)

    def read_again(self, member: Member) -> OSError | None:
        """Fill the member's memory anew, from the storage itself."""
        return self._here.read(member) if self._local[member.file] else self._elsewhere.read_again(member)

    def close(self) -> None:
        """Close what is open."""
        self._here.close()


class LocalFiles:
    """Files of this machine, of which the first `room` that are used stay open."""

    def __init__(self, paths: Sequence[str], room: int) -> None:
        self._paths, self._room = paths, room
        self._open: dict[int, int] = {}
        self._lock = threading.Lock()

    def read(self, member: Member) -> OSError | None:
        """Fill the member's memory; what went wrong, or None."""
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
        """Close what is open."""
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
    """Files of other fsspec file systems: `stores[i]` is that of `paths[i]`."""

    def __init__(self, stores: Sequence[Any], paths: Sequence[str], cache: Cache | None) -> None:
        self._stores, self._paths, self._cache = stores, paths, cache

    def read(self, members: Sequence[Member]) -> Iterator[OSError | None]:
        """Fill each member's memory; what went wrong, or None, in turn."""
        cached = [self._cache is not None and self._cache.get(m.name, (m.head, m.body)) for m in members]
        outcomes = iter(self._download([member for member, found in zip(members, cached, strict=True) if not found]))
        return (None if found else next(outcomes) for found in cached)

    def read_again(self, member: Member) -> OSError | None:
        """Fill the member's memory from the storage. The copy in the cache is replaced."""
        if self._cache is not None:
            self._cache.drop(member.name)
        return self._download([member])[0]

    def _download(self, members: Sequence[Member]) -> list[OSError | None]:
        outcomes: list[OSError | None] = [None] * len(members)
        by_store: dict[Any, list[list[int]]] = {}
        for group in _joined(members):
            by_store.setdefault(self._stores[members[group[0]].file], []).append(group)
        for fs, groups in by_store.items():
            firsts = [members[group[0]] for group in groups]
            contents = fs.cat_ranges(
                [self._paths[first.file] for first in firsts],
                [first.offset for first in firsts],
                [max(members[i].offset + members[i].bytes for i in group) for group in groups],
                on_error="return",
            )
            for group, first, content in zip(groups, firsts, contents, strict=True):
                for i in group:
                    outcomes[i] = self._take(members[i], content, members[i].offset - first.offset)
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
        if self._cache is not None and xxhash.xxh3_64_intdigest(part) == member.xxh3:
            self._cache.put(member.name, part)
        return None


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

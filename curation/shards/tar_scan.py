"""One sequential pass over a tar file: every member's place, the digest of the whole, and what is wrong with it.

Python's own tarfile stops silently at a damaged header in the middle of an archive, and webdataset with it; all that
follows is lost without a word. Here the reason why the pass ended is part of the result.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Final

import xxhash

from schemas.errors import UserError

_BLOCK: Final = 512
_CHUNK: Final = 8 << 20
_REGULAR: Final = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)


@dataclass(frozen=True, slots=True)
class Member:
    """One regular file in a tar: `size` bytes from `offset`. `whole` is False if the archive ends inside it."""

    name: str
    offset: int
    size: int
    whole: bool = True


@dataclass(frozen=True, slots=True)
class TarScan:
    """What a pass over a tar found. `fault` says why members may be missing after the last; empty if none is."""

    members: tuple[Member, ...]
    bytes: int
    digest: str
    fault: str


def scan_tar(file: IO[bytes], where: str) -> TarScan:
    """Read `file` from its start to its end. Raises `UserError` if it is not a tar at all."""
    stream = _HashingReader(file)
    members: list[Member] = []
    fault = ""
    try:
        members.extend(_members(stream, where))
    except _DamageError as damage:
        members.extend(damage.partial)
        fault = damage.what
    if not fault and stream.drain_finds_data():
        fault = "there is more data behind the end marker (tars joined together?)"
    stream.drain()
    return TarScan(tuple(members), stream.position, stream.digest.hexdigest(), fault)


def check_first_block(file: IO[bytes], where: str) -> None:
    """Raise `UserError` unless `file` begins like an uncompressed tar (or is an empty one)."""
    _check_start(file.read(_BLOCK), where)


class _DamageError(Exception):
    def __init__(self, what: str, partial: tuple[Member, ...] = ()) -> None:
        super().__init__(what)
        self.what = what
        self.partial = partial


class _HashingReader:
    """A forward-only reader that digests all that passes."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.digest = xxhash.xxh3_128()
        self.position = 0

    def read(self, size: int) -> bytes:
        parts: list[bytes] = []
        while size > 0:
            part = self.file.read(min(size, _CHUNK))
            if not part:
                break
            self.digest.update(part)
            self.position += len(part)
            size -= len(part)
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def skip(self, size: int) -> int:
        """Pass over `size` bytes; the number that was there."""
        start = self.position
        while size > self.position - start:
            if not self.read(min(_CHUNK, size - (self.position - start))):
                break
        return self.position - start

    def drain_finds_data(self) -> bool:
        """Read the rest; whether any byte of it was not zero."""
        found = False
        while part := self.read(_CHUNK):
            found = found or part.count(0) != len(part)
        return found

    def drain(self) -> None:
        while self.read(_CHUNK):
            pass


def _check_start(block: bytes, where: str) -> None:
    if block[:2] == b"\x1f\x8b":
        raise UserError(f"{where}: a gzip-compressed file. Uncompress it first (gunzip); shards are read at random.")
    if len(block) == 0:
        raise UserError(f"{where}: an empty file (0 bytes), not a tar. Fetch or write it again.")
    if block == bytes(_BLOCK):
        return
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        raise UserError(f"{where}: not a tar file. Check the path, or fetch it again.") from None


def _members(stream: _HashingReader, where: str) -> Iterator[Member]:
    long_name, long_size = "", -1
    first = True
    while True:
        at = stream.position
        block = stream.read(_BLOCK)
        if first:
            _check_start(block, where)
            first = False
        if len(block) < _BLOCK:
            raise _DamageError(f"the archive has no end marker: it stops at byte {stream.position}")
        if block == bytes(_BLOCK):
            return
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise _DamageError(f"damaged header at byte {at} ({error}); what follows cannot be read") from None
        padded = -(-header.size // _BLOCK) * _BLOCK
        if header.type == tarfile.GNUTYPE_LONGNAME:
            long_name = _content(stream, header.size, padded, at).rstrip(b"\0").decode("utf-8", "surrogateescape")
        elif header.type == tarfile.XHDTYPE:
            records = _pax_records(_content(stream, header.size, padded, at))
            long_name = records.get("path", long_name)
            long_size = int(records["size"]) if "size" in records else long_size
        elif header.type in _REGULAR:
            size = long_size if long_size >= 0 else header.size
            name = long_name or header.name
            member = Member(name, stream.position, size)
            padded = -(-size // _BLOCK) * _BLOCK
            there = stream.skip(padded)
            if there < padded:
                raise _DamageError(
                    f"the archive stops at byte {stream.position}, inside {name}",
                    (Member(name, member.offset, size, whole=there >= size),),
                )
            yield member
            long_name, long_size = "", -1
        else:
            stream.skip(0 if header.type in (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE) else padded)
            long_name, long_size = "", -1


def _content(stream: _HashingReader, size: int, padded: int, at: int) -> bytes:
    content = stream.read(padded)
    if len(content) < padded:
        raise _DamageError(f"the archive stops inside the header at byte {at}")
    return content[:size]


def _pax_records(content: bytes) -> dict[str, str]:
    """The records of a pax extended header: `LENGTH KEY=VALUE\\n`, one after the other."""
    records: dict[str, str] = {}
    while content and content[0] != 0:
        length_text, _, _ = content.partition(b" ")
        length = int(length_text)
        key, _, value = content[len(length_text) + 1 : length - 1].partition(b"=")
        records[key.decode("utf-8")] = value.decode("utf-8", "surrogateescape")
        content = content[length:]
    return records

"""One sequential pass over a tar file: every member's place, the digest of the whole, and what is wrong with it.

Python's own tarfile stops silently at a damaged header in the middle of an archive, and webdataset with it; all that
follows is lost without a word. Here the reason why the pass ended is part of the result.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO, Final, Protocol

import xxhash

from schemas.errors import UserError

_BLOCK: Final = 512
_CHUNK: Final = 8 << 20
_HEADER_LIMIT: Final = 1 << 20  # bytes of a long name or pax header; more is damage, not a name
_REGULAR: Final = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_LINKS: Final = {tarfile.LNKTYPE: "a hard link", tarfile.SYMTYPE: "a symbolic link"}
_NO_FILES: Final = (tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE)


class ByteStream(Protocol):
    """What is read from start to end: a file, or a stream that is being unpacked."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Member:
    """One file in a tar: `size` bytes from `offset`. `whole` is False if the archive ends inside it.

    `odd` says why its content is not simply those bytes (a link, a sparse file); empty for a regular file.
    """

    name: str
    offset: int
    size: int
    whole: bool = True
    odd: str = ""


@dataclass(frozen=True, slots=True)
class TarScan:
    """What a pass over a tar found. `fault` says why members may be missing after the last; empty if none is."""

    members: tuple[Member, ...]
    bytes: int
    digest: str
    fault: str


def scan_tar(file: ByteStream, where: str) -> TarScan:
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


def read_tar(file: ByteStream, where: str) -> Iterator[tuple[Member, bytes]]:
    """Every member of `file` with its content, in one pass from start to end.

    Raises `UserError` where the archive is damaged or ends early, after all members before that place.
    """
    stream = _KeepingReader(file)
    try:
        for member in _members(stream, where):
            yield member, stream.kept[: member.size]
    except _DamageError as damage:
        raise UserError(f"{where}: {damage.what}. Fetch it again.") from None


def stream_tar(file: ByteStream, where: str) -> Iterator[tuple[Member, Iterator[bytes]]]:
    """Every member of `file` with its content in pieces, in one pass, however large it is.

    Pieces that were not taken when the next member is asked for are passed over. Raises `UserError` as `read_tar`.
    """
    stream = _HashingReader(file)
    try:
        for member in _heads(stream, where):
            start = stream.position
            yield member, _pieces(stream, member, where)
            _pass_over(stream, member, stream.position - start)
    except _DamageError as damage:
        raise UserError(f"{where}: {damage.what}. Fetch it again.") from None


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

    def __init__(self, file: ByteStream) -> None:
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


class _KeepingReader(_HashingReader):
    """Keeps what was passed over last."""

    kept = b""

    def skip(self, size: int) -> int:
        self.kept = self.read(size)
        return len(self.kept)


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


@dataclass(slots=True)
class _Extended:
    """What the long-name and pax headers before a member say of it."""

    name: str = ""
    size: int = -1
    sparse: bool = False


def _members(stream: _HashingReader, where: str) -> Iterator[Member]:
    """Every member, once all of it has passed."""
    for member in _heads(stream, where):
        _pass_over(stream, member)
        yield member


def _pass_over(stream: _HashingReader, member: Member, passed: int = 0) -> None:
    """Read the content of `member`, of which `passed` bytes were read before, and what fills its last block."""
    padded = _padded(member.size)
    there = passed + stream.skip(padded - passed)
    if there < padded:
        partial = replace(member, whole=there >= member.size)
        raise _DamageError(_stops_inside(stream, member), (partial,))


def _pieces(stream: _HashingReader, member: Member, where: str) -> Iterator[bytes]:
    """The content of `member`. Raises `UserError` where it ends early."""
    left = member.size
    while left > 0:
        piece = stream.read(min(left, _CHUNK))
        if not piece:
            raise UserError(f"{where}: {_stops_inside(stream, member)}. Fetch it again.")
        left -= len(piece)
        yield piece


def _stops_inside(stream: _HashingReader, member: Member) -> str:
    return f"the archive stops at byte {stream.position}, inside {member.name}"


def _heads(stream: _HashingReader, where: str) -> Iterator[Member]:
    """Every member with the stream at its content, which the caller passes over."""
    extended = _Extended()
    while True:
        at = stream.position
        block = stream.read(_BLOCK)
        if at == 0:
            _check_start(block, where)
        if len(block) < _BLOCK:
            raise _DamageError(f"the archive has no end marker: it stops at byte {stream.position}")
        if block == bytes(_BLOCK):
            return
        header = _header(block, at)
        if header.type in (
            tarfile.GNUTYPE_LONGNAME,
            tarfile.GNUTYPE_LONGLINK,
            tarfile.XHDTYPE,
            tarfile.SOLARIS_XHDTYPE,
        ):
            _extend(extended, header, stream, at)
            continue
        if header.type in _NO_FILES:
            extended = _Extended()
        elif header.type == tarfile.XGLTYPE:  # such as a commit's name; it says nothing that we use
            _content(stream, header.size, at)
        else:
            yield _file(stream, header, extended)
            extended = _Extended()


def _header(block: bytes, at: int) -> tarfile.TarInfo:
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise _DamageError(f"damaged header at byte {at} ({error}); what follows cannot be read") from None
    if header.size < 0:
        raise _DamageError(f"damaged header at byte {at} (negative size); what follows cannot be read")
    return header


def _extend(extended: _Extended, header: tarfile.TarInfo, stream: _HashingReader, at: int) -> None:
    content = _content(stream, header.size, at)
    if header.type == tarfile.GNUTYPE_LONGNAME:
        extended.name = content.partition(b"\0")[0].decode("utf-8", "surrogateescape")
    elif header.type != tarfile.GNUTYPE_LONGLINK:
        try:
            records = _pax_records(content)
            extended.size = int(records.get("size", extended.size))
        except ValueError:
            raise _DamageError(f"damaged pax header at byte {at}; what follows cannot be read") from None
        extended.name = records.get("path", extended.name)
        extended.sparse = any(key.startswith("GNU.sparse.") for key in records)


def _file(stream: _HashingReader, header: tarfile.TarInfo, extended: _Extended) -> Member:
    name = extended.name or header.name
    if header.type in _LINKS:
        return Member(name, stream.position, 0, odd=_LINKS[header.type])
    odd = "a sparse file" if extended.sparse or header.type == tarfile.GNUTYPE_SPARSE else ""
    if not odd and header.type not in _REGULAR:
        odd = f"of the unknown type {header.type!r}"
    return Member(name, stream.position, extended.size if extended.size >= 0 else header.size, odd=odd)


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _content(stream: _HashingReader, size: int, at: int) -> bytes:
    if size > _HEADER_LIMIT:
        raise _DamageError(f"damaged header at byte {at} ({size} bytes long); what follows cannot be read")
    content = stream.read(_padded(size))
    if len(content) < _padded(size):
        raise _DamageError(f"the archive stops inside the header at byte {at}")
    return content[:size]


def _pax_records(content: bytes) -> dict[str, str]:
    """The records of a pax extended header: `LENGTH KEY=VALUE\\n`, one after the other. ValueError if it has others."""
    records: dict[str, str] = {}
    while content and content[0] != 0:
        digits, _, _ = content.partition(b" ")
        length = int(digits)
        if not len(digits) + 1 < length <= len(content):
            raise ValueError(f"record of {length} bytes in {len(content)}")
        key, _, value = content[len(digits) + 1 : length - 1].partition(b"=")
        records[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        content = content[length:]
    return records

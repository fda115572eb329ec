"""Where samples lie: a tar file or a folder of files, local or behind an fsspec URL; read at random."""

import os
import posixpath
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, Literal, Protocol

import xxhash

from curation.shards.grouping import Sample, group_members, split_at_last_dot
from curation.shards.gunzip import Gunzip
from curation.shards.tar_scan import Member, check_first_block, read_tar, scan_tar, stream_tar
from schemas.dataset import InputIdentity
from schemas.errors import UserError
from schemas.location import file_system, is_local

ContainerKind = Literal["tar", "folder", "tgz"]
"""A tgz can be listed and read from start to end, but not opened for random reads: pipelines.ingest unpacks it."""

_GZIP_MAGIC = b"\x1f\x8b"
_BROKEN = "the gzip stream is damaged or cut short behind its last member"


class Container(Protocol):
    """A shard that is open for reading. `read` may be called from several threads at once."""

    def read(self, sample: Sample, extensions: Sequence[str]) -> Mapping[str, bytes]:
        """The bytes of the named members of `sample`, by extension."""

    def head(self, sample: Sample, extension: str, size: int) -> bytes:
        """The first `size` bytes of a member, or all of a shorter one."""

    def close(self) -> None:
        """Give back what is held open."""


def check_container(url: str, kind: ContainerKind) -> None:
    """Raise `UserError` unless `url` looks like a shard of `kind`; reads at most one block."""
    fs, path = file_system(url)
    with _read_errors(url):
        is_folder = fs.isdir(path)
    if kind == "folder" and not is_folder:
        raise UserError(f"{url}: not a folder. This source reads folders of pictures; for tars name another --source.")
    if kind == "folder":
        with _read_errors(url):
            is_empty = not fs.ls(path, detail=False)
        if is_empty:
            raise UserError(f"{url}: an empty folder. Check the path.")
    if kind == "tgz":
        with _read_errors(url), fs.open(path, "rb") as file:
            if file.read(len(_GZIP_MAGIC)) != _GZIP_MAGIC:
                raise UserError(f"{url}: not a gzip file. Check the path, or fetch it again.")
    if kind == "tar":
        if is_folder:
            raise UserError(f"{url}: a folder, not a tar file. For a folder of pictures use --source folder.")
        with _read_errors(url), fs.open(path, "rb") as file:
            check_first_block(file, url)


def stamp_of(url: str, kind: ContainerKind) -> tuple[int, str]:
    """(bytes, stamp) of a shard, cheap to get; if neither changed, the shard counts as unchanged.

    The stamp is the ETag where the store has one, else the modification time; for a folder, a digest of the names,
    sizes and times in it.
    """
    fs, path = file_system(url)
    if kind == "folder":
        return _folder_stamp(_folder_listing(fs, path, url))
    with _read_errors(url):
        info = fs.info(path)
    return int(info["size"]), _time_or_tag(info)


def index_container(url: str, kind: ContainerKind, name: str) -> tuple[InputIdentity, list[Sample]]:
    """Read a shard through once: its identity, and its samples in order."""
    fs, path = file_system(url)
    if kind == "folder":
        listing = _folder_listing(fs, path, url)
        size, stamp = _folder_stamp(listing)
        members = [Member(f.name, 0, f.size, odd="" if f.regular else "a link or device") for f in listing]
        members.sort(key=lambda member: split_at_last_dot(member.name) or (member.name, ""))
        return InputIdentity(name, size, stamp, stamp), group_members(members, split=split_at_last_dot)
    size, stamp = stamp_of(url, kind)
    with _read_errors(url), _open_sequential(fs, path) as file:
        packed = Gunzip(file) if kind == "tgz" else None
        scan = scan_tar(packed or file, url)
    if kind == "tar" and scan.bytes != size:
        raise UserError(
            f"{url}: changed from {size} to {scan.bytes} bytes while it was read. Run again when it is still."
        )
    fault = scan.fault or (_BROKEN if packed and packed.broken else "")
    return InputIdentity(name, size, scan.digest, stamp), group_members(scan.members, fault)


def read_archive(url: str, *, gunzip: bool) -> Iterator[tuple[Member, bytes]]:
    """Every member of a tar, packed by gzip or not, with its content, in one pass.

    Raises `UserError` where the archive is damaged or cut short, after all members before that place.
    """
    fs, path = file_system(url)
    with _read_errors(url), _open_sequential(fs, path) as file:
        packed = Gunzip(file) if gunzip else None
        yield from read_tar(packed or file, url)
        if packed and packed.ends_broken():
            raise UserError(f"{url}: {_BROKEN}. Fetch it again.")


def stream_tgz(url: str) -> Iterator[tuple[Member, Iterator[bytes]]]:
    """Every member of a tar packed by gzip, with its content in pieces (see `stream_tar`), in one pass.

    Raises `UserError` where it is no gzip file, and as `read_archive`.
    """
    check_container(url, "tgz")
    fs, path = file_system(url)
    with _read_errors(url), _open_sequential(fs, path) as file:
        packed = Gunzip(file)
        yield from stream_tar(packed, url)
        if packed.ends_broken():
            raise UserError(f"{url}: {_BROKEN}. Fetch it again.")


def count_samples(url: str, kind: ContainerKind) -> int:
    """How many samples a shard holds by its headers alone: contents are skipped, and no digest is made.

    For estimates: damage that `index_container` would find may go unseen, and what lies behind it uncounted.
    """
    if kind == "folder":
        return len(index_container(url, kind, "")[1])
    fs, path = file_system(url)
    try:
        with _read_errors(url), fs.open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            members = [Member(member.name, member.offset_data, member.size) for member in tar if member.isfile()]
    except tarfile.TarError as error:
        raise UserError(f"{url}: its headers cannot be read ({error}). Is it a plain tar?") from None
    return len(group_members(members))


def open_container(url: str, kind: ContainerKind) -> Container:
    """Open a shard for random reads."""
    fs, path = file_system(url)
    if kind == "folder":
        return _Folder(fs, path)
    if kind == "tgz":
        raise AssertionError(f"{url}: a gzip stream has no random access")
    return _LocalTar(path) if is_local(fs) else _RemoteTar(fs, path)


class _LocalTar:
    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)

    def read(self, sample: Sample, extensions: Sequence[str]) -> Mapping[str, bytes]:
        places = _places(sample)
        return {e: os.pread(self._descriptor, places[e][1], places[e][0]) for e in extensions}

    def head(self, sample: Sample, extension: str, size: int) -> bytes:
        offset, length = _places(sample)[extension]
        return os.pread(self._descriptor, min(size, length), offset)

    def close(self) -> None:
        os.close(self._descriptor)


class _RemoteTar:
    def __init__(self, fs: Any, path: str) -> None:
        self._fs, self._path = fs, path

    def read(self, sample: Sample, extensions: Sequence[str]) -> Mapping[str, bytes]:
        places = _places(sample)
        return {e: _stretch(self._fs, self._path, *places[e]) for e in extensions}

    def head(self, sample: Sample, extension: str, size: int) -> bytes:
        offset, length = _places(sample)[extension]
        return _stretch(self._fs, self._path, offset, min(size, length))

    def close(self) -> None:
        return None


class _Folder:
    def __init__(self, fs: Any, path: str) -> None:
        self._fs, self._path = fs, path

    def read(self, sample: Sample, extensions: Sequence[str]) -> Mapping[str, bytes]:
        return {e: self._fs.cat_file(posixpath.join(self._path, f"{sample.key}.{e}")) for e in extensions}

    def head(self, sample: Sample, extension: str, size: int) -> bytes:
        path = posixpath.join(self._path, f"{sample.key}.{extension}")
        return _stretch(self._fs, path, 0, min(size, _places(sample)[extension][1]))

    def close(self) -> None:
        return None


def _stretch(fs: Any, path: str, offset: int, size: int) -> bytes:
    """`size` bytes of a file from `offset`. Of no byte a store is not asked: S3 would give the whole file."""
    found: bytes = fs.cat_file(path, offset, offset + size) if size else b""
    return found


def _places(sample: Sample) -> dict[str, tuple[int, int]]:
    return {e: (offset, size) for e, offset, size in zip(sample.extensions, sample.offsets, sample.sizes, strict=True)}


@dataclass(frozen=True, slots=True, order=True)
class _Listed:
    """A file of a folder; `name` is relative. Links to files are regular, broken ones and devices are not."""

    name: str
    size: int
    stamp: str
    regular: bool


def _folder_listing(fs: Any, path: str, url: str) -> list[_Listed]:
    """Every file below `path`, hidden ones left out, sorted."""
    with _read_errors(url):
        found = fs.find(path, detail=True)
    rows = [
        _Listed(posixpath.relpath(name, path), int(info["size"]), _time_or_tag(info), info["type"] == "file")
        for name, info in found.items()
    ]
    return sorted(row for row in rows if not any(part.startswith(".") for part in row.name.split("/")))


def _folder_stamp(listing: Sequence[_Listed]) -> tuple[int, str]:
    text = "\n".join(f"{f.name}\t{f.size}\t{f.stamp}" for f in listing)
    digest = xxhash.xxh3_128(text.encode("utf-8", "surrogateescape")).hexdigest()
    return sum(f.size for f in listing), digest


@contextmanager
def _read_errors(url: str) -> Iterator[None]:
    """A shard that cannot be read is something for the user to mend."""
    try:
        yield
    except OSError as error:
        what = error.strerror or str(error) or type(error).__name__
        raise UserError(f"{url}: cannot be read ({what}). Check that it is there and readable.") from error


def _time_or_tag(info: Mapping[str, Any]) -> str:
    for name in ("ETag", "etag", "mtime", "LastModified", "last_modified", "created"):
        if info.get(name) is not None:
            return str(info[name])
    return ""


def _open_sequential(fs: Any, path: str) -> IO[bytes]:
    """A file object for one pass from start to end."""
    file: IO[bytes] = fs.open(path, "rb") if is_local(fs) else fs.open(path, "rb", cache_type="readahead")
    return file

"""Where samples lie: a tar file or a folder of files, local or behind an fsspec URL; read at random."""

import os
import posixpath
from collections.abc import Mapping, Sequence
from typing import IO, Any, Literal, Protocol

import fsspec
import xxhash

from curation.shards.grouping import Sample, group_members, split_at_last_dot
from curation.shards.tar_scan import Member, check_first_block, scan_tar
from schemas.dataset import InputIdentity
from schemas.errors import UserError

ContainerKind = Literal["tar", "folder"]


class Container(Protocol):
    """A shard that is open for reading. `read` may be called from several threads at once."""

    def read(self, sample: Sample, extensions: Sequence[str]) -> Mapping[str, bytes]:
        """The bytes of the named members of `sample`, by extension."""

    def close(self) -> None:
        """Give back what is held open."""


def check_container(url: str, kind: ContainerKind) -> None:
    """Raise `UserError` unless `url` looks like a shard of `kind`; reads at most one block."""
    fs, path = fsspec.core.url_to_fs(url)
    is_folder = fs.isdir(path)
    if kind == "folder" and not is_folder:
        raise UserError(f"{url}: not a folder. This source reads folders of pictures; for tars name another --source.")
    if kind == "tar":
        if is_folder:
            raise UserError(f"{url}: a folder, not a tar file. For a folder of pictures use --source folder.")
        with fs.open(path, "rb") as file:
            check_first_block(file, url)


def stamp_of(url: str, kind: ContainerKind) -> tuple[int, str]:
    """(bytes, stamp) of a shard, cheap to get; if neither changed, the shard counts as unchanged.

    The stamp is the ETag where the store has one, else the modification time; for a folder, a digest of the names,
    sizes and times in it.
    """
    fs, path = fsspec.core.url_to_fs(url)
    if kind == "folder":
        listing = _folder_listing(fs, path)
        digest = xxhash.xxh3_128("\n".join(f"{n}\t{s}\t{t}" for n, s, t in listing).encode("utf-8", "surrogateescape"))
        return sum(size for _, size, _ in listing), digest.hexdigest()
    info = fs.info(path)
    return int(info["size"]), _time_or_tag(info)


def index_container(url: str, kind: ContainerKind, name: str) -> tuple[InputIdentity, list[Sample]]:
    """Read a shard through once: its identity, and its samples in order."""
    size, stamp = stamp_of(url, kind)
    fs, path = fsspec.core.url_to_fs(url)
    if kind == "folder":
        listing = _folder_listing(fs, path)
        members = [Member(relative, 0, length) for relative, length, _ in listing]
        return InputIdentity(name, size, stamp, stamp), group_members(members, split=split_at_last_dot)
    with _open_sequential(fs, path) as file:
        scan = scan_tar(file, url)
    if scan.bytes != size:
        raise UserError(
            f"{url}: changed from {size} to {scan.bytes} bytes while it was read. Run again when it is still."
        )
    return InputIdentity(name, size, scan.digest, stamp), group_members(scan.members, scan.fault)


def open_container(url: str, kind: ContainerKind) -> Container:
    """Open a shard for random reads."""
    fs, path = fsspec.core.url_to_fs(url)
    if kind == "folder":
        return _Folder(fs, path)
    return _LocalTar(path) if _is_local(fs) else _RemoteTar(fs, path)


class _LocalTar:
    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)

    def read(self, sample: Sample, extensions: Sequence[str]) -> Mapping[str, bytes]:
        places = _places(sample)
        return {e: os.pread(self._descriptor, places[e][1], places[e][0]) for e in extensions}

    def close(self) -> None:
        os.close(self._descriptor)


class _RemoteTar:
    def __init__(self, fs: Any, path: str) -> None:
        self._fs, self._path = fs, path

    def read(self, sample: Sample, extensions: Sequence[str]) -> Mapping[str, bytes]:
        places = _places(sample)
        return {e: self._fs.cat_file(self._path, places[e][0], sum(places[e])) for e in extensions}

    def close(self) -> None:
        return None


class _Folder:
    def __init__(self, fs: Any, path: str) -> None:
        self._fs, self._path = fs, path

    def read(self, sample: Sample, extensions: Sequence[str]) -> Mapping[str, bytes]:
        return {e: self._fs.cat_file(posixpath.join(self._path, f"{sample.key}.{e}")) for e in extensions}

    def close(self) -> None:
        return None


def _places(sample: Sample) -> dict[str, tuple[int, int]]:
    return {e: (offset, size) for e, offset, size in zip(sample.extensions, sample.offsets, sample.sizes, strict=True)}


def _folder_listing(fs: Any, path: str) -> list[tuple[str, int, str]]:
    """(relative path, bytes, stamp) of every file below `path`, hidden ones left out, sorted."""
    found = fs.find(path, detail=True)
    rows = [(posixpath.relpath(name, path), int(info["size"]), _time_or_tag(info)) for name, info in found.items()]
    return sorted(row for row in rows if not any(part.startswith(".") for part in row[0].split("/")))


def _time_or_tag(info: Mapping[str, Any]) -> str:
    for name in ("ETag", "etag", "mtime", "LastModified", "last_modified", "created"):
        if info.get(name) is not None:
            return str(info[name])
    return ""


def _is_local(fs: Any) -> bool:
    return "file" in (fs.protocol if isinstance(fs.protocol, tuple | list) else (fs.protocol,))


def _open_sequential(fs: Any, path: str) -> IO[bytes]:
    """A file object for one pass from start to end."""
    file: IO[bytes] = fs.open(path, "rb") if _is_local(fs) else fs.open(path, "rb", cache_type="readahead")
    return file

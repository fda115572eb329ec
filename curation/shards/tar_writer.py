"""Write a tar whose bytes depend on nothing but its members: same rows, same bytes, on any machine, at any time."""

import tarfile
from typing import Any, Final, Protocol

_BLOCK: Final = 512
_END: Final = bytes(2 * _BLOCK)


class Sink(Protocol):
    """What a tar is written to: a file, or anything that takes bytes in order."""

    def write(self, data: bytes, /) -> Any: ...


class TarWriter:
    """Appends members to `file`. Names up to 100 bytes are plain ustar; longer ones use a pax header."""

    def __init__(self, file: Sink) -> None:
        self._file = file
        self._position = 0

    def add(self, name: str, content: bytes) -> int:
        """Append one member; the byte offset of its content."""
        header = tarfile.TarInfo(name)
        header.size = len(content)
        header.mode, header.mtime, header.uid, header.gid = 0o644, 0, 0, 0
        block = header.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
        self._write(block)
        offset = self._position
        self._write(content)
        self._write(bytes(-len(content) % _BLOCK))
        return offset

    def finish(self) -> None:
        """Write the end marker."""
        self._write(_END)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._position += len(data)


def quote_key(key: str) -> str:
    """`key` as the stem of a tar member: dots of the base name are escaped, since readers split names there.

    Keys without dots or percent signs stay as they are. The index holds the key itself.
    """
    folder, slash, base = key.rpartition("/")
    return folder + slash + base.replace("%", "%25").replace(".", "%2E")

"""A gzip stream, read from its start to where it ends or breaks."""

import gzip
import zlib
from typing import IO, Final

_CHUNK: Final = 1 << 20


class Gunzip:
    """The content of a gzip file. Where that is damaged or cut short the content simply ends, so that a tar in it lacks
    its end marker; `broken` says so."""

    def __init__(self, file: IO[bytes]) -> None:
        self._stream = gzip.GzipFile(fileobj=file)
        self.broken = False

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; none at the end."""
        if self.broken:
            return b""
        try:
            return self._stream.read(size)
        except (EOFError, gzip.BadGzipFile, zlib.error):
            self.broken = True
            return b""

    def ends_broken(self) -> bool:
        """Read to the end; whether it, or the checksum there, is not as it should be."""
        while self.read(_CHUNK):
            pass
        return self.broken

"""Files being written under temporary names: digested as they grow, forced onto the disk, and read back when done."""

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import IO, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from curation.shards.tar_scan import scan_tar
from curation.shards.tar_writer import TarWriter, quote_key
from curation.shards.target import Target, discard, storage_errors
from schemas.dataset import OutputFile
from schemas.table import TableSchema

_ROWS_A_GROUP: Final = 1024


class ConservationError(AssertionError):
    """Rows got lost or were counted twice: a defect of the stage, never of the data."""


class HashingFile:
    """A local file that is only appended to, with the xxh3-128 of what was written."""

    def __init__(self, path: str) -> None:
        self._path = path
        with storage_errors(path):
            self._file: IO[bytes] = open(path, "wb")  # noqa: SIM115 - closed by finish or discard
        self._digest = xxhash.xxh3_128()
        self._position = 0
        self.closed = False
        self._discarded = False

    def write(self, data: Any) -> int:
        """Append `data` (bytes or a buffer)."""
        if self._discarded:
            return len(data)
        with storage_errors(self._path):
            self._file.write(data)
        self._digest.update(data)
        self._position += len(data)
        return len(data)

    def tell(self) -> int:
        """Bytes written so far."""
        return self._position

    def flush(self) -> None:
        """Hand what is buffered to the operating system."""
        with storage_errors(self._path):
            self._file.flush()

    def finish(self) -> tuple[int, str]:
        """Force everything onto the disk and close; (bytes, digest)."""
        self.flush()
        with storage_errors(self._path):
            os.fsync(self._file.fileno())
        self.close()
        return self._position, self._digest.hexdigest()

    def close(self) -> None:
        """Close without forcing anything."""
        if not self.closed:
            self.closed = True
            with storage_errors(self._path):
                self._file.close()

    def discard(self) -> None:
        """Close and remove the file. Later writes (a Parquet writer's last words) go nowhere."""
        self._discarded = self.closed = True
        # A full disk refuses the flush that closing implies; the content is unwanted, so that is no error.
        with contextlib.suppress(OSError):
            self._file.close()
        discard(self._path)


class TableSink:
    """A Parquet file being written, in row groups, under a temporary name."""

    def __init__(self, target: Target, path: str, schema: TableSchema, row_per_key: bool) -> None:
        self.path, self.row_per_key = path, row_per_key
        self.temporary = target.temporary(path)
        self._schema = schema.arrow
        self._file = HashingFile(self.temporary)
        self._parquet = pq.ParquetWriter(self._file, self._schema, compression="zstd", compression_level=3)
        self._pending: list[Mapping[str, Any]] = []
        self._rows = 0

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows; each has exactly the declared columns."""
        for row in rows:
            if row.keys() != set(self._schema.names):
                raise ConservationError(f"{self.path}: row has columns {sorted(row)}, not {sorted(self._schema.names)}")
        self._pending.extend(rows)
        while len(self._pending) >= _ROWS_A_GROUP:
            self._flush(_ROWS_A_GROUP)

    def write_table(self, table: pa.Table) -> None:
        """Append a whole Arrow table of the declared schema."""
        self._flush(len(self._pending))
        self._parquet.write_table(table.cast(self._schema), row_group_size=1 << 20)
        self._rows += table.num_rows

    def finish(self) -> OutputFile:
        """Close, force onto the disk, and read footer and row count back."""
        self._flush(len(self._pending))
        self._parquet.close()
        size, digest = self._file.finish()
        found = pq.read_metadata(self.temporary).num_rows
        if found != self._rows:
            raise ConservationError(f"{self.path}: wrote {self._rows} rows, read back {found}")
        return OutputFile(self.path, size, digest, self._rows)

    def abandon(self) -> None:
        """Remove what was written, unless it was published."""
        self._file.discard()

    def _flush(self, count: int) -> None:
        if count:
            batch, self._pending = self._pending[:count], self._pending[count:]
            self._parquet.write_table(pa.Table.from_pylist([dict(row) for row in batch], schema=self._schema))
            self._rows += count


class TarSink:
    """A tar file being written under a temporary name."""

    row_per_key = True

    def __init__(self, target: Target, path: str) -> None:
        self.path = path
        self.temporary = target.temporary(path)
        self._file = HashingFile(self.temporary)
        self._tar = TarWriter(self._file)
        self._rows = self._members = 0

    def add(self, key: str, extension: str, content: bytes) -> tuple[int, int]:
        """Append a sample of the one member `key.extension`; (offset, bytes) of its content."""
        self._rows += 1
        return self._add(key, extension, content), len(content)

    def add_sample(self, key: str, contents: Mapping[str, bytes]) -> None:
        """Append a sample of several members, by extension, in their order."""
        self._rows += 1
        for extension, content in contents.items():
            self._add(key, extension, content)

    def _add(self, key: str, extension: str, content: bytes) -> int:
        self._members += 1
        return self._tar.add(f"{quote_key(key)}.{extension}", content)

    def finish(self) -> OutputFile:
        """Write the end marker, force onto the disk, and read every header back."""
        self._tar.finish()
        size, digest = self._file.finish()
        with open(self.temporary, "rb") as file:
            scan = scan_tar(file, self.path)
        if len(scan.members) != self._members or scan.fault or scan.digest != digest:
            raise ConservationError(
                f"{self.path}: wrote {self._members} members, read back {len(scan.members)} {scan.fault}"
            )
        return OutputFile(self.path, size, digest, self._rows)

    def abandon(self) -> None:
        """Remove what was written, unless it was published."""
        self._file.discard()

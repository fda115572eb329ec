"""A sample as it is published: tar members for the picture, its caption and its json, and a row of the table."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from curation.execution.stage import Unit
from curation.images.decode import DecodePolicy, decode
from curation.refusal import Refusal
from curation.shards.sinks import TableSink, TarSink
from curation.shards.unit_writer import UnitWriter
from schemas.dataset import LedgerEntry, OutputFile, table_path, tar_path
from schemas.record import canonical_json
from schemas.tables import IMAGES

_EXTENSIONS: Final = {
    "JPEG": "jpg",
    "PNG": "png",
    "WEBP": "webp",
    "GIF": "gif",
    "BMP": "bmp",
    "TIFF": "tif",
    "AVIF": "avif",
}


@dataclass(frozen=True, slots=True)
class CheckedImage:
    """A picture that was decoded to its end. `width` and `height` are pixels after EXIF orientation."""

    data: bytes
    format: str
    width: int
    height: int


def check_image(data: bytes, policy: DecodePolicy) -> CheckedImage | Refusal:
    """Decode `data` to its end (JPEG at an eighth of its size, which reads every byte all the same)."""
    decoded = decode(data, policy, at_least=(1, 1))
    if isinstance(decoded, Refusal):
        return decoded
    return CheckedImage(data, decoded.format, decoded.original_width, decoded.original_height)


class ImageWriter:
    """The tar and the table of one unit. They are opened with the first sample: a unit without any has neither.

    The first pair is UNIT.tar and UNIT.parquet; a unit that goes on from `earlier` writes UNIT-retry1, and so on.
    """

    def __init__(self, writer: UnitWriter, unit: Unit, earlier: LedgerEntry | None = None) -> None:
        self._writer = writer
        used = {output.path for output in earlier.outputs} if earlier else set()
        names = [unit.name, *(f"{unit.name}-retry{n}" for n in range(1, len(used) + 2))]
        self.name = next(name for name in names if not {tar_path(name), table_path(name)} & used)
        self.written = 0
        self._tar: TarSink | None = None
        self._table: TableSink | None = None

    def write(self, key: str, image: CheckedImage, caption: str | None, told: Mapping[str, Any]) -> None:
        """Append a sample and count its row as kept. `told` is its json, to which the SHA-256 is added."""
        if self._tar is None or self._table is None:
            self._tar = self._writer.tar(tar_path(self.name))
            self._table = self._writer.table(table_path(self.name), IMAGES)
        digest = hashlib.sha256(image.data).hexdigest()
        members = {_EXTENSIONS[image.format]: image.data}
        if caption is not None:
            members["txt"] = caption.encode()
        members["json"] = canonical_json({**told, "sha256": digest}).encode()
        self._tar.add_sample(key, members)
        self._table.write(
            [
                {
                    "key": key,
                    "shard": self.name,
                    "url": told.get("url"),
                    "caption": caption,
                    "format": image.format,
                    "width": image.width,
                    "height": image.height,
                    "bytes": len(image.data),
                    "sha256": digest,
                }
            ]
        )
        self._writer.keep(key)
        self.written += 1


def pairs_of(entry: LedgerEntry) -> list[tuple[OutputFile, OutputFile]]:
    """The (tar, table) pairs among the outputs of a unit of images."""
    by_path = {output.path: output for output in entry.outputs}
    tars = [path.removesuffix(".tar") for path in by_path if path.endswith(".tar")]
    return [(by_path[tar_path(name)], by_path[table_path(name)]) for name in tars if table_path(name) in by_path]

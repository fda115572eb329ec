"""How the tests of decoding ask, and what they build files from."""

import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from curation.images.decode import Decoded, DecodePolicy, decode
from curation.refusal import Refusal
from schemas.status import RejectReason

ANY_SIZE = DecodePolicy(min_side=1, max_aspect=1e9)
KINDS = (
    "JPEG",
    "JPEG progressive",
    "JPEG cmyk",
    "JPEG grey",
    "PNG",
    "PNG palette",
    "PNG alpha",
    "WEBP",
    "WEBP lossless",
    "WEBP animated",
    "GIF",
    "GIF animated",
    "BMP",
    "TIFF",
    "TIFF lzw",
    "TIFF jpeg",
    "AVIF",
)


def taken(data: bytes, policy: DecodePolicy = ANY_SIZE, **options: Any) -> Decoded:
    result = decode(data, policy, **options)
    assert isinstance(result, Decoded), result
    assert result.image.mode == "RGB"
    return result


def reason(data: bytes, policy: DecodePolicy = ANY_SIZE) -> RejectReason:
    result = decode(data, policy)
    assert isinstance(result, Refusal), result
    assert "\n" not in result.detail
    assert result.detail
    return result.reason


def far(a: Image.Image, b: Image.Image) -> float:
    """Mean absolute difference of two pictures, in grey levels."""
    return float(np.abs(np.asarray(a, np.int16) - np.asarray(b, np.int16)).mean())


def png(header: tuple[int, ...], rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG of (width, height, depth, colour type, interlace) whose stream holds `rows`."""
    width, height, depth, colour, interlace = header
    ihdr = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    chunks = ((b"IHDR", ihdr), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )

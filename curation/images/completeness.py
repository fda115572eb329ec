"""Pictures that a decoder calls whole though part of them is missing: found by the trace that the gap leaves.

libjpeg and Pillow's PNG reader both fill what they never got with a constant and report nothing. Where the last pixel
has that constant, which is rare, the data are looked at again.
"""

import io
import struct
import zlib
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

# 256 bytes of no pattern and without 0xFF, which would begin a marker.
_PROBE: Final = bytes((i * i * 7 + i * 73 + 41) % 255 for i in range(256))
_PNG_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Adam7: (first row, first column, row step, column step) of each pass. PNG specification, section 8.2.
_ADAM7: Final = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)


def jpeg_ends_early(data: bytes, image: Image.Image) -> bool:
    """Whether the scan of the JPEG `data`, decoded as `image`, stops before the last block.

    A file without its end is refused by Pillow; one whose end was cut and that got an end marker again decodes, and
    its missing blocks have all coefficients zero: mid-grey. So where the last pixel is mid-grey, the picture is decoded
    again with bytes put in before the end marker. A whole scan needs no more bytes and does not change.

    Raises what Pillow raises on malformed data.
    """
    corner = image.getpixel((image.width - 1, image.height - 1))
    if any(value not in (127, 128) for value in (corner if isinstance(corner, tuple) else (corner,))):
        return False
    end = data.find(b"\xff\xd9", _start_of_scan(data))
    if end < 0:
        return False
    return not np.array_equal(_eighth(data), _eighth(data[:end] + _PROBE + data[end:]))


def _start_of_scan(data: bytes) -> int:
    """Offset of the first SOS marker; earlier segments may hold a thumbnail with markers of its own."""
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF or data[at + 1] in (0xFF, 0x00):
            at += 1
        elif data[at + 1] == 0xDA:
            break
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return at


def _eighth(data: bytes) -> npt.NDArray[np.uint8]:
    """The picture at an eighth of its size, which needs the first coefficient of each block alone."""
    image = JpegImageFile(io.BytesIO(data))
    image.draft(None, (1, 1))
    image.load()
    return np.asarray(image)


def png_ends_early(data: bytes, image: Image.Image) -> bool:
    """Whether the compressed stream of the PNG `data`, decoded as `image`, is whole but holds too few rows.

    Pillow leaves the missing rows zero. So where the last row is all zero, or the rows are interlaced, the bytes that
    the stream inflates to are counted.
    """
    width, height, depth, colour, _, _, interlace = struct.unpack_from(">IIBBBBB", data, 16)
    if not interlace and np.asarray(image.crop((0, image.height - 1, image.width, image.height))).any():
        return False
    bits = depth * _PNG_CHANNELS[colour]
    passes = _ADAM7 if interlace else ((0, 0, 1, 1),)
    needed = 0
    for row, column, row_step, column_step in passes:
        rows, columns = -(-(height - row) // row_step), -(-(width - column) // column_step)
        if rows > 0 and columns > 0:
            needed += rows * (1 + -(-columns * bits // 8))
    return _inflated_bytes(data, needed) < needed


def _inflated_bytes(data: bytes, enough: int) -> int:
    """How many bytes the IDAT chunks inflate to; counting stops once there are `enough`."""
    inflater, total, at = zlib.decompressobj(), 0, 8
    while at + 8 <= len(data) and total < enough:
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IDAT":
            rest = data[at + 8 : at + 8 + length]
            while rest and total < enough:
                total += len(inflater.decompress(rest, 1 << 20))
                rest = inflater.unconsumed_tail
        at += 12 + length
    return total

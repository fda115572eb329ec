"""What a file is, told from its first bytes. The name it goes by is never asked."""

import struct
from typing import Final

SUPPORTED: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""The formats that can be decoded. MPO (several JPEGs in a row) is JPEG: its first picture is read."""

_MAGIC: Final = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"II\xbc\x01", "JPEG XR"),
    (b"\0\0\x01\0", "ICO"),
    (b"8BPS", "PSD"),
    (b"%PDF-", "PDF"),
    (b"DDS ", "DDS"),
    (b"qoif", "QOI"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
)
_HEIC_BRANDS: Final = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_BMP_HEADER_SIZES: Final = {12, 16, 40, 52, 56, 64, 108, 124}
_SVG_WITHIN: Final = 1024  # an XML declaration, a doctype and comments may stand before the root element


def sniff(data: bytes) -> str | None:
    """The format whose signature `data` begins with, or None. Names in `SUPPORTED` are Pillow's."""
    for magic, name in _MAGIC:
        if data.startswith(magic):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    # "BM" alone begins many a text, so the size of the header that follows it must be one that exists.
    if data[:2] == b"BM" and len(data) >= 18 and struct.unpack_from("<I", data, 14)[0] in _BMP_HEADER_SIZES:
        return "BMP"
    if data[4:8] == b"ftyp":
        return _sniff_iso_media(data)
    if data[:1] == b"P" and data[1:2] in b"1234567" and data[2:3] in b" \t\r\n#" and len(data) > 3:
        return "PNM"
    head = data[:_SVG_WITHIN].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<svg", b"<?xml", b"<!doctype svg", b"<!--")) and b"<svg" in head:
        return "SVG"
    return None


def _sniff_iso_media(data: bytes) -> str | None:
    """AVIF or HEIC, by the brands in the `ftyp` box: the major one, a version, then the compatible ones."""
    box = data[: min(struct.unpack_from(">I", data)[0], 256)]
    brands = {box[8:12], *(box[i : i + 4] for i in range(16, len(box), 4))}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    if brands & _HEIC_BRANDS or box[8:12] in (b"mif1", b"msf1"):
        return "HEIC"
    return None


def webp_canvas(data: bytes) -> tuple[int, int] | None:
    """(height, width) in pixels that a WebP's header declares, or None where the header is not whole.

    Read before Pillow is asked, because its decoder allocates the canvas when it opens the file.
    """
    chunk = data[12:16]
    if chunk == b"VP8X" and len(data) >= 30:
        width = int.from_bytes(data[24:27], "little") + 1
        return int.from_bytes(data[27:30], "little") + 1, width
    if chunk == b"VP8L" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if chunk == b"VP8 " and len(data) >= 30:
        width, height = struct.unpack_from("<HH", data, 26)
        return height & 0x3FFF, width & 0x3FFF
    return None

"""Files that are cut short, damaged, or made to inflate without end."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from decoding import ANY_SIZE, KINDS, far, png, reason, taken
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, PngImagePlugin

from curation.images.decode import Decoded, DecodePolicy, decode
from curation.refusal import Refusal
from schemas.status import RejectReason

# pytest sets its own warning filters over the one that curation.images.decode sets.
pytestmark = pytest.mark.filterwarnings(r"ignore::UserWarning:PIL\.")

Encode = Callable[..., bytes]
Files = dict[str, bytes]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_in_half_is_corrupt(kind: str, files: Files) -> None:
    data = files[kind]
    if kind == "GIF animated":  # half of it holds the whole first frame
        data = data[: len(data) // 2]
    assert reason(data[: len(data) // 2]) == RejectReason.CORRUPT


@given(data=st.data())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_a_cut_file_is_refused_or_loses_no_pixel(data: st.DataObject, files: Files) -> None:
    whole = files[data.draw(st.sampled_from(KINDS))]
    cut = data.draw(st.integers(0, len(whole) - 1))
    result = decode(whole[:cut], ANY_SIZE)
    if isinstance(result, Decoded):
        assert far(result.image, taken(whole).image) == 0


@given(data=st.data())
@settings(max_examples=200, deadline=None, derandomize=True)
def test_damaged_bytes_give_a_picture_or_a_refusal_and_never_an_error(data: st.DataObject, files: Files) -> None:
    damaged = bytearray(files[data.draw(st.sampled_from(KINDS))])
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    result = decode(bytes(damaged), DecodePolicy(min_side=1, max_aspect=1e9, max_pixels=1_000_000))
    assert isinstance(result, Refusal) or result.image.mode == "RGB"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF"])
def test_a_truncated_file_is_corrupt_even_where_someone_told_pillow_to_load_it(
    kind: str, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert reason(files[kind][:-200]) == RejectReason.CORRUPT


@pytest.mark.parametrize("kind", ["JPEG", "JPEG cmyk", "JPEG grey"])
def test_a_truncated_jpeg_that_got_an_end_marker_again_is_corrupt(kind: str, files: Files) -> None:
    data = files[kind]
    assert reason(data[: len(data) - 300] + b"\xff\xd9") == RejectReason.CORRUPT


def test_a_truncated_jpeg_with_an_end_marker_is_corrupt_when_decoded_small(files: Files) -> None:
    result = decode(files["JPEG"][:-300] + b"\xff\xd9", ANY_SIZE, at_least=(8, 8))
    assert isinstance(result, Refusal)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 2}])
def test_a_whole_jpeg_with_a_mid_grey_corner_is_taken(options: dict[str, Any], encoded: Encode) -> None:
    taken(encoded(Image.new("RGB", (83, 61), (128, 128, 128)), "JPEG", **options))


def test_a_png_whose_stream_lacks_rows_is_corrupt() -> None:
    row = b"\0" + bytes([200]) * 30
    taken(png((10, 10, 8, 2, 0), row * 10))
    assert reason(png((10, 10, 8, 2, 0), row * 9)) == RejectReason.CORRUPT


def test_an_interlaced_png_whose_stream_lacks_a_pass_is_corrupt(files: Files) -> None:
    # 8x8 grey: passes of 1, 1, 1x2, 2x2, 2x4, 4x4 and 4x8 pixels, each row led by its filter byte.
    rows = b"".join(b"\0" + bytes([200]) * n for n in (1, 1, 2, 2, 2, 4, 4, 4, 4, 4, 4, 8, 8, 8, 8))
    assert far(taken(png((8, 8, 8, 0, 1), rows)).image, Image.new("RGB", (8, 8), (200, 200, 200))) == 0
    assert reason(png((8, 8, 8, 0, 1), rows[:-9])) == RejectReason.CORRUPT


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "LA", "RGBA", "I;16"])
def test_a_whole_black_png_is_taken(mode: str, encoded: Encode) -> None:
    assert taken(encoded(Image.new(mode, (9, 9)), "PNG")).image.size == (9, 9)


BOMBS = {
    "BMP": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 0, 0, 0, 54, 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0),
    "PNG": png((60000, 60000, 8, 2, 0), bytes(100)),
    "GIF": b"GIF89a" + struct.pack("<HHBBB", 60000, 60000, 0, 0, 0) + b",\0\0\0\0\x10\0\x10\0\0\x08\x01\0\0;",
    "WEBP": b"RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\x5f\xea\0" * 2 + bytes(20),
    "WEBP lossless": b"RIFF\x20\0\0\0WEBPVP8L\x10\0\0\0\x2f" + b"\xff\xff\xff\x0f" + bytes(20),
    "TIFF": b"II*\0\x08\0\0\0\x06\0"
    + b"".join(
        struct.pack("<HHII", tag, 4, 1, value)
        for tag, value in ((256, 60000), (257, 60000), (258, 8), (262, 1), (273, 8), (279, 60000 * 60000))
    )
    + bytes(4),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_decompression_bomb_is_refused_by_its_header_whatever_pillow_allows(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("it was decoded"))
    assert reason(BOMBS[kind]) == RejectReason.TOO_MANY_PIXELS


def test_a_png_text_chunk_that_inflates_without_end_is_corrupt(photo: Image.Image) -> None:
    text = (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(50_000_000)))
    row = b"\0" + bytes([200]) * 30
    assert reason(png((10, 10, 8, 2, 0), row * 10, text)) == RejectReason.CORRUPT
    many = PngImagePlugin.PngInfo()
    for i in range(100):
        many.add_text(f"key{i}", "x" * 900_000, zip=True)
    buffer = io.BytesIO()
    photo.save(buffer, "PNG", pnginfo=many)
    assert reason(buffer.getvalue()) == RejectReason.CORRUPT

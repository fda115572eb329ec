"""What the decode policy takes, what it refuses, and with which reason."""

import dataclasses
import io
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, PngImagePlugin

import curation.images.decode as module
from curation.images.decode import Decoded, DecodePolicy, decode
from curation.refusal import Refusal
from schemas.errors import UserError
from schemas.record import from_json, to_json
from schemas.status import RejectReason

# pytest sets its own warning filters over the one that curation.images.decode sets.
pytestmark = pytest.mark.filterwarnings(r"ignore::UserWarning:PIL\.")

Encode = Callable[..., bytes]
Files = dict[str, bytes]
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


@pytest.mark.parametrize("kind", KINDS)
def test_every_supported_format_becomes_rgb(kind: str, files: Files, photo: Image.Image) -> None:
    result = taken(files[kind])
    assert result.format == kind.split()[0]
    assert (result.original_height, result.original_width) == (64, 80)
    assert result.image.size == (80, 64)
    reference = photo.convert("L").convert("RGB") if "grey" in kind else photo
    assert far(result.image, reference) < 12
    assert not result.image.info


@pytest.mark.parametrize("kind", ["PNG", "PNG alpha", "WEBP lossless", "BMP", "TIFF", "TIFF lzw"])
def test_a_lossless_file_keeps_every_pixel(kind: str, files: Files, photo: Image.Image) -> None:
    assert far(taken(files[kind]).image, photo) == 0


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", RejectReason.EMPTY_FILE),
        (b"<!DOCTYPE html><html><body>404 not found</body></html>", RejectReason.NOT_AN_IMAGE),
        (b"BMW cars are a kind of car, and this is a text", RejectReason.NOT_AN_IMAGE),
        (b"P", RejectReason.NOT_AN_IMAGE),
        (bytes(100), RejectReason.NOT_AN_IMAGE),
        (b"<?xml version='1.0'?>\n<!-- drawn -->\n<svg xmlns='x'/>", RejectReason.UNSUPPORTED_FORMAT),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50), RejectReason.UNSUPPORTED_FORMAT),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(50), RejectReason.UNSUPPORTED_FORMAT),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(50), RejectReason.NOT_AN_IMAGE),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(50), RejectReason.UNSUPPORTED_FORMAT),
        (b"P6 2 2 255 " + bytes(12), RejectReason.UNSUPPORTED_FORMAT),
        (b"\xff\xd8\xff", RejectReason.CORRUPT),
        (b"\x89PNG\r\n\x1a\n", RejectReason.CORRUPT),
        (b"RIFF\x04\0\0\0WEBP", RejectReason.CORRUPT),
        (b"GIF89a", RejectReason.CORRUPT),
        (b"II*\0", RejectReason.CORRUPT),
        (b"\0\0\0\x18ftypavif\0\0\0\0mif1avif" + bytes(50), RejectReason.CORRUPT),
    ],
)
def test_what_a_file_is_follows_from_its_bytes(data: bytes, expected: RejectReason) -> None:
    assert reason(data) == expected


def test_a_format_left_out_of_the_policy_is_refused(files: Files) -> None:
    assert reason(files["GIF"], DecodePolicy(formats=("JPEG", "PNG"))) == RejectReason.UNSUPPORTED_FORMAT


def test_a_jpeg_of_12_bits_is_unsupported_and_not_corrupt(files: Files) -> None:
    data = bytearray(files["JPEG"])
    data[data.index(b"\xff\xc0") + 4] = 12
    assert reason(bytes(data)) == RejectReason.UNSUPPORTED_FORMAT


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


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((31, 40), RejectReason.TOO_SMALL),
        ((40, 31), RejectReason.TOO_SMALL),
        ((1, 1), RejectReason.TOO_SMALL),
        ((32, 321), RejectReason.ASPECT_RATIO),
        ((321, 32), RejectReason.ASPECT_RATIO),
        ((20000, 50), RejectReason.ASPECT_RATIO),
        ((700, 700), RejectReason.TOO_MANY_PIXELS),
    ],
)
def test_sides_aspect_and_pixels_have_limits(size: tuple[int, int], expected: RejectReason, encoded: Encode) -> None:
    policy = DecodePolicy(max_pixels=1_000_000 if expected != RejectReason.TOO_MANY_PIXELS else 489_999)
    assert reason(encoded(Image.new("L", size), "PNG"), policy) == expected


@pytest.mark.parametrize("size", [(32, 32), (32, 320), (320, 32)])
def test_the_limits_themselves_are_allowed(size: tuple[int, int], encoded: Encode) -> None:
    taken(encoded(Image.new("L", size, 9), "PNG"), DecodePolicy(max_pixels=10240))


def with_orientation(image: Image.Image, orientation: int, kind: str, encode: Encode, **options: Any) -> bytes:
    """A file that shows `image` once its orientation is applied."""
    backward = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(image if backward is None else image.transpose(backward), kind, exif=exif, **options)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, kind: str, photo: Image.Image, encoded: Encode) -> None:
    result = taken(with_orientation(photo, orientation, kind, encoded))
    assert (result.original_height, result.original_width) == (64, 80)
    assert far(result.image, photo) < 8
    assert ("exif-rotated" in result.notes) == (orientation != 1)


def test_exif_orientation_can_be_left_alone(photo: Image.Image, encoded: Encode) -> None:
    policy = DecodePolicy(min_side=1, exif_orientation=False)
    result = taken(with_orientation(photo, 6, "JPEG", encoded), policy)
    assert (result.original_height, result.original_width) == (80, 64)
    assert result.notes == ()


def test_an_orientation_that_does_not_exist_changes_nothing(photo: Image.Image, encoded: Encode) -> None:
    exif = Image.Exif()
    exif[0x0112] = 9
    assert taken(encoded(photo, "JPEG", exif=exif)).image.size == photo.size


@pytest.mark.parametrize("options", [{}, {"dpi": (72, 72)}])
def test_exif_that_cannot_be_read_does_not_cost_the_picture(
    options: dict[str, Any], photo: Image.Image, encoded: Encode
) -> None:
    result = taken(encoded(photo, "JPEG", exif=b"Exif\0\0XX*\0\xff\xff\xff\xff", **options))
    assert result.notes == ("bad-exif",)
    assert far(result.image, photo) < 8


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_scaled_decode_keeps_the_original_size_and_what_was_asked(
    orientation: int, photo: Image.Image, encoded: Encode
) -> None:
    large = photo.resize((1600, 1000))
    result = taken(with_orientation(large, orientation, "JPEG", encoded), at_least=(250, 10))
    assert (result.original_height, result.original_width) == (1000, 1600)
    assert result.image.size == (400, 250)
    assert far(result.image, large.resize((400, 250))) < 3


@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    asked=st.tuples(st.integers(1, 320), st.integers(1, 320)),
    orientation=st.sampled_from([1, 3, 6, 8]),
)
@settings(max_examples=60, deadline=None)
def test_a_scaled_decode_is_never_smaller_than_asked_unless_the_picture_is(
    width: int, height: int, asked: tuple[int, int], orientation: int, encoded: Encode
) -> None:
    image = Image.new("RGB", (width, height), (200, 30, 90))
    result = taken(with_orientation(image, orientation, "JPEG", encoded), at_least=asked)
    assert (result.original_height, result.original_width) == (height, width)
    assert result.image.height >= min(asked[0], height)
    assert result.image.width >= min(asked[1], width)


def test_asking_for_no_pixels_is_a_mistake_of_the_caller(files: Files) -> None:
    with pytest.raises(ValueError, match="not positive"):
        decode(files["JPEG"], ANY_SIZE, at_least=(0, 10))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_the_first_frame_of_an_animation_is_read(kind: str, encoded: Encode) -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in ((250, 0, 0), (0, 250, 0))]
    result = taken(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert far(result.image, frames[0]) < 3
    assert "animated" in result.notes


def test_an_mpo_is_read_as_its_first_jpeg(photo: Image.Image, encoded: Encode) -> None:
    data = encoded(photo, "MPO", save_all=True, append_images=[Image.new("RGB", (80, 64))])
    result = taken(data)
    assert far(result.image, photo) < 8
    assert result.format == "JPEG"
    assert result.notes == ("mpo",)


def test_an_error_of_the_reader_is_a_refusal_that_names_it(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(stream: io.BytesIO) -> Any:
        raise TypeError(f"cannot\nread {stream!r}")

    monkeypatch.setitem(module._READERS, "PNG", stumble)
    result = decode(files["PNG"], ANY_SIZE)
    assert isinstance(result, Refusal)
    assert result.reason == RejectReason.CORRUPT
    assert result.detail == "PNG header cannot be read: TypeError: cannot read <_io.BytesIO object at 0x…>"


def test_a_mistake_of_our_own_is_not_taken_for_a_bad_picture(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistaken(*_: Any) -> Any:
        raise KeyError("no such thing")

    monkeypatch.setattr(module, "to_rgb", mistaken)
    with pytest.raises(KeyError):
        decode(files["PNG"], ANY_SIZE)
    with pytest.raises(TypeError):
        decode("photo.jpg", ANY_SIZE)  # type: ignore[arg-type]


def test_threads_get_what_one_thread_gets(files: Files) -> None:
    cases = [*files.values(), *(data[:-300] for data in files.values())] * 3
    alone = [decode(data, ANY_SIZE, at_least=(20, 20)) for data in cases]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: decode(data, ANY_SIZE, at_least=(20, 20)), cases))
    for a, b in zip(alone, together, strict=True):
        if isinstance(a, Refusal):
            assert a == b
        else:
            assert isinstance(b, Decoded)
            assert far(a.image, b.image) == 0
            assert dataclasses.replace(a, image=b.image) == b


def test_a_policy_goes_to_json_and_back() -> None:
    policy = DecodePolicy(min_side=64, background=(0, 0, 0), formats=("JPEG",))
    assert from_json(DecodePolicy, to_json(policy), "policy") == policy


@pytest.mark.parametrize(
    "fields",
    [
        {"min_side": 0},
        {"max_pixels": 0},
        {"max_pixels": 10**9},
        {"max_aspect": 0.5},
        {"max_aspect": float("nan")},
        {"background": (0, 0)},
        {"background": (0, 0, 256)},
        {"formats": ("JPEG", "HEIC")},
        {"frame": "middle"},
        {"version": 0},
    ],
)
def test_a_policy_that_makes_no_sense_is_told_in_one_line(fields: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        DecodePolicy(**fields)
    assert str(caught.value).count("\n") == 0

"""What the decode policy takes, what it refuses, and with which reason."""

import dataclasses
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from decoding import ANY_SIZE, KINDS, far, reason, taken
from PIL import Image

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
        decode("photo.jpg", ANY_SIZE)


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

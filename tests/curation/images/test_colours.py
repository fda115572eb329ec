"""Which RGB values the colours of a file become: inks, transparency, deep and grey samples."""

import struct
from collections.abc import Callable

import numpy as np
import pytest
from decoding import far, png, reason, taken
from PIL import Image

from curation.images.decode import Decoded, DecodePolicy
from schemas.status import RejectReason

Encode = Callable[..., bytes]


def pixels(result: Decoded) -> list[tuple[int, ...]]:
    return [tuple(p) for p in np.asarray(result.image).reshape(-1, 3).tolist()]


def test_cmyk_as_photoshop_inverts_it_comes_out_right(encoded: Encode) -> None:
    inks = Image.new("CMYK", (40, 40), (0, 255, 255, 0))
    result = taken(encoded(inks, "JPEG", quality=100))
    assert far(result.image, Image.new("RGB", (40, 40), (255, 0, 0))) < 3
    assert result.notes == ("cmyk",)


def test_ycck_comes_out_right(encoded: Encode) -> None:
    # Stored inverted: Y 200, Cb 128, Cr 128, K 255. So each ink is 200 of 255 and there is no black: (55, 55, 55).
    data = bytearray(encoded(Image.new("CMYK", (40, 40), (55, 127, 127, 0)), "JPEG", quality=100))
    transform = data.index(b"Adobe") + 11
    assert data[transform] == 0
    data[transform] = 2
    assert far(taken(bytes(data)).image, Image.new("RGB", (40, 40), (55, 55, 55))) < 3


def test_transparent_pixels_show_the_background(encoded: Encode) -> None:
    image = Image.new("RGBA", (40, 40), (10, 20, 30, 0))
    image.paste((10, 20, 30, 255), (0, 0, 20, 40))
    image.paste((0, 0, 0, 128), (0, 0, 20, 20))
    for background in ((255, 255, 255), (9, 100, 200)):
        policy = DecodePolicy(background=background)
        for kind in ("PNG", "WEBP"):
            result = taken(
                encoded(image, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {})), policy
            )
            assert result.image.getpixel((30, 5)) == background
            assert result.image.getpixel((5, 30)) == (10, 20, 30)
            assert result.image.getpixel((5, 5)) == tuple(round(c * 127 / 255) for c in background)
            assert result.notes == ("alpha",)


@pytest.mark.parametrize(("kind", "transparency"), [("PNG", 1), ("PNG", b"\xff\x00\xff"), ("GIF", 1)])
def test_a_palette_with_transparency_shows_the_background(
    kind: str, transparency: int | bytes, encoded: Encode
) -> None:
    image = Image.new("P", (40, 40), 0)
    image.putpalette([10, 20, 30, 200, 0, 0, 0, 200, 0])
    image.paste(1, (0, 0, 20, 40))
    result = taken(encoded(image, kind, transparency=transparency))
    assert result.image.getpixel((5, 5)) == (255, 255, 255)
    assert result.image.getpixel((30, 30)) == (10, 20, 30)
    assert result.notes == ("alpha", "palette")


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_grey_png_may_name_one_value_transparent_at_any_depth(depth: int) -> None:
    # Four pixels: white, black, black, black as far as the bits go; the transparent value is black, then white.
    top = (1 << depth) - 1
    bits = "".join(format(v, f"0{depth}b") for v in (top, 0, 0, 0)).ljust(8, "0")
    row = b"\0" + int(bits, 2).to_bytes(len(bits) // 8)
    black = taken(
        png((4, 1, depth, 0, 0), row, (b"tRNS", struct.pack(">H", 0))), DecodePolicy(min_side=1, background=(1, 2, 3))
    )
    assert pixels(black) == [(255, 255, 255), (1, 2, 3), (1, 2, 3), (1, 2, 3)]
    white = taken(
        png((4, 1, depth, 0, 0), row, (b"tRNS", struct.pack(">H", top))), DecodePolicy(min_side=1, background=(1, 2, 3))
    )
    assert pixels(white) == [(1, 2, 3), (0, 0, 0), (0, 0, 0), (0, 0, 0)]


def test_a_16_bit_rgb_png_may_name_one_colour_transparent() -> None:
    row = b"\0" + struct.pack(">6H", 60000, 500, 7, 0, 65535, 9)
    result = taken(png((2, 1, 16, 2, 0), row, (b"tRNS", struct.pack(">3H", 60000, 500, 7))))
    assert pixels(result) == [(255, 255, 255), (0, 255, 0)]


def test_16_bit_grey_is_scaled_and_not_clipped(encoded: Encode) -> None:
    samples = np.array([[0, 257, 32768, 65535]], np.uint16)
    for kind in ("PNG", "TIFF"):
        result = taken(encoded(Image.fromarray(samples), kind))
        assert [p[0] for p in pixels(result)] == [0, 1, 128, 255]
        assert result.notes == ("16-bit",)


def test_a_white_is_zero_tiff_of_16_bits_is_inverted(encoded: Encode) -> None:
    samples = np.array([[0, 65535]], np.uint16)
    data = bytearray(encoded(Image.fromarray(samples), "TIFF"))
    entry = data.index(struct.pack("<HHI", 262, 3, 1))
    data[entry + 8 : entry + 10] = struct.pack("<H", 0)
    assert [p[0] for p in pixels(taken(bytes(data)))] == [255, 0]


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255]),
        (np.array([[0, 51, 200]], np.float32), [0, 51, 200]),
        (np.array([[0, 257, 65535]], np.float32), [0, 1, 255]),
        (np.array([[-2, 0, 2]], np.float32), [0, 128, 255]),
        (np.array([[5, 5, 5]], np.float32), [5, 5, 5]),
        (np.array([[-5, -5, -5]], np.float32), [0, 0, 0]),
        (np.array([[0, 51, 255]], np.int32), [0, 51, 255]),
        (np.array([[0, 257, 65535]], np.int32), [0, 1, 255]),
        (np.array([[-100, 0, 100]], np.int32), [0, 128, 255]),
    ],
)
def test_samples_without_a_declared_white_are_scaled_by_the_first_usual_range_that_holds_them(
    samples: np.ndarray, expected: list[int], encoded: Encode
) -> None:
    assert [p[0] for p in pixels(taken(encoded(Image.fromarray(samples), "TIFF")))] == expected


def test_a_picture_of_nan_is_corrupt(encoded: Encode) -> None:
    assert reason(encoded(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF")) == RejectReason.CORRUPT


@pytest.mark.parametrize(
    ("mode", "kind", "note"),
    [("1", "PNG", "1-bit"), ("L", "JPEG", "grey"), ("YCbCr", "TIFF", "ycbcr"), ("LAB", "TIFF", "lab")],
)
def test_other_modes_become_rgb_and_are_noted(mode: str, kind: str, note: str, encoded: Encode) -> None:
    data = encoded(Image.new(mode, (40, 40)), kind)
    assert taken(data).notes == (note,)

"""Modes that no small file can be written in, straight to RGB."""

import numpy as np
import pytest
from PIL import Image

from curation.images.modes import SampleFacts, to_rgb

WHITE = (255, 255, 255)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "I", "F", "I;16"])
def test_modes_without_transparency_keep_their_size_and_become_rgb(mode: str) -> None:
    image, _ = to_rgb(Image.new(mode, (5, 3)), SampleFacts(), WHITE)
    assert (image.mode, image.size) == ("RGB", (5, 3))


@pytest.mark.parametrize("mode", ["LA", "La", "PA", "RGBA", "RGBa"])
def test_modes_with_transparency_show_the_background_through_it(mode: str) -> None:
    clear = Image.new("RGBA", (5, 3), (0, 0, 0, 0))
    image = {"La": clear.convert("LA").convert("La"), "PA": clear.convert("PA")}.get(mode) or clear.convert(mode)
    rgb, notes = to_rgb(image, SampleFacts(), (7, 8, 9))
    assert rgb.getpixel((2, 2)) == (7, 8, 9)
    assert "alpha" in notes


def test_premultiplied_colours_are_restored_before_they_meet_the_background() -> None:
    half = Image.new("RGBA", (2, 2), (200, 100, 50, 128)).convert("RGBa")
    rgb, _ = to_rgb(half, SampleFacts(), (0, 0, 0))
    assert np.abs(np.array(rgb.getpixel((0, 0))) - (100, 50, 25)).max() <= 1


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B"])
def test_16_bit_grey_of_either_byte_order_is_scaled(mode: str) -> None:
    order = ">" if mode == "I;16B" else "<"
    image = Image.frombytes(mode, (2, 1), np.array([32768, 65535], f"{order}u2").tobytes())
    assert np.asarray(to_rgb(image, SampleFacts(), WHITE)[0])[0, :, 0].tolist() == [128, 255]


def test_12_bits_in_16_are_scaled_by_what_is_declared() -> None:
    image = Image.fromarray(np.array([[0, 2048, 4095]], np.uint16))
    assert np.asarray(to_rgb(image, SampleFacts(bits=12), WHITE)[0])[0, :, 0].tolist() == [0, 128, 255]


def test_unsigned_samples_of_32_bits_do_not_turn_negative() -> None:
    image = Image.fromarray(np.array([[0, 2**31, 2**32 - 1]], np.uint32).view(np.int32))
    assert np.asarray(to_rgb(image, SampleFacts(bits=32), WHITE)[0])[0, :, 0].tolist() == [0, 128, 255]


def test_signed_samples_of_16_bits_have_half_the_range() -> None:
    image = Image.fromarray(np.array([[0, 16384, 32767]], np.int32))
    facts = SampleFacts(bits=16, signed=True)
    assert np.asarray(to_rgb(image, facts, WHITE)[0])[0, :, 0].tolist() == [0, 128, 255]

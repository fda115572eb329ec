"""Padding and cropping: exact sizes, nothing distorted, the record true."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from curation.images.resize import CropBox, cover_and_crop, cover_size, pad_to_square

SIDE = st.integers(1, 400)


@given(height=SIDE, width=SIDE)
@settings(max_examples=50, deadline=None)
def test_padding_makes_a_square_of_the_longer_side_with_the_picture_in_its_middle(height: int, width: int) -> None:
    square = np.asarray(pad_to_square(Image.new("RGB", (width, height), (255, 0, 0)), (1, 2, 3)))
    side = max(height, width)
    assert square.shape == (side, side, 3)
    top, left = (side - height) // 2, (side - width) // 2
    assert (square[top : top + height, left : left + width] == (255, 0, 0)).all()
    assert (square == (1, 2, 3)).all(axis=2).sum() == side * side - height * width


def test_an_odd_margin_has_its_extra_pixel_at_the_bottom_or_right() -> None:
    square = np.asarray(pad_to_square(Image.new("RGB", (4, 7), (255, 0, 0)), (0, 0, 0)))
    assert square[0, :, 0].tolist() == [0, 255, 255, 255, 255, 0, 0]


def test_a_square_is_not_padded() -> None:
    image = Image.new("RGB", (5, 5))
    assert pad_to_square(image, (0, 0, 0)) is image


@given(height=SIDE, width=SIDE, height_px=SIDE, width_px=SIDE)
@settings(max_examples=300, deadline=None)
def test_the_covering_size_covers_and_is_distorted_by_rounding_alone(
    height: int, width: int, height_px: int, width_px: int
) -> None:
    resized_height, resized_width = cover_size(height, width, height_px, width_px)
    assert resized_height >= height_px
    assert resized_width >= width_px
    assert resized_height == height_px or resized_width == width_px
    scale = max(height_px / height, width_px / width)
    assert abs(resized_height - scale * height) <= 0.5 + 1e-9
    assert abs(resized_width - scale * width) <= 0.5 + 1e-9


@given(height=SIDE, width=SIDE, height_px=st.integers(1, 64), width_px=st.integers(1, 64))
@settings(max_examples=60, deadline=None)
def test_a_crop_has_the_size_asked_for_and_lies_inside(height: int, width: int, height_px: int, width_px: int) -> None:
    image, box = cover_and_crop(Image.new("RGB", (width, height), (9, 8, 7)), height_px, width_px)
    assert image.size == (width_px, height_px)
    assert (box.resized_height, box.resized_width) == cover_size(height, width, height_px, width_px)
    assert 0 <= box.crop_top <= box.resized_height - height_px
    assert 0 <= box.crop_left <= box.resized_width - width_px
    assert abs(2 * box.crop_top + height_px - box.resized_height) <= 1
    assert abs(2 * box.crop_left + width_px - box.resized_width) <= 1
    assert image.getpixel((0, 0)) == (9, 8, 7)


def test_the_record_says_where_the_crop_was() -> None:
    image, box = cover_and_crop(Image.new("RGB", (500, 375)), 256, 256)
    assert box == CropBox(resized_height=256, resized_width=341, crop_top=0, crop_left=42)
    assert image.size == (256, 256)


def test_a_picture_of_the_right_size_keeps_its_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    image, box = cover_and_crop(Image.fromarray(pixels), 48, 64)
    assert (np.asarray(image) == pixels).all()
    assert box == CropBox(48, 64, 0, 0)


def test_a_large_reduction_differs_little_from_filtering_every_pixel() -> None:
    rows, columns = np.mgrid[:1500, :2000]
    image = Image.fromarray(np.stack([rows % 256, columns % 256, (rows + columns) // 14], axis=2).astype(np.uint8))
    ours, _ = cover_and_crop(image, 96, 128)
    plain = image.resize((128, 96), Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(ours, np.int16) - np.asarray(plain, np.int16)).mean() < 2


def test_no_size_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="0x10"):
        cover_and_crop(Image.new("RGB", (5, 5)), 0, 10)

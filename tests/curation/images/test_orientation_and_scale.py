"""Pictures that are turned by their metadata, and pictures decoded smaller than they are."""

from collections.abc import Callable
from typing import Any

import pytest
from decoding import ANY_SIZE, far, taken
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from curation.images.decode import DecodePolicy, decode

# pytest sets its own warning filters over the one that curation.images.decode sets.
pytestmark = pytest.mark.filterwarnings(r"ignore::UserWarning:PIL\.")

Encode = Callable[..., bytes]
Files = dict[str, bytes]


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

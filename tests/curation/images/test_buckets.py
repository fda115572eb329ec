"""The aspect buckets are the released ones, and every picture finds the nearest."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.images.buckets import BUCKETS, RESOLUTIONS, nearest_bucket, square
from schemas.errors import UserError

# Key and size at 1024, as the released code has them.
AT_1024 = """
0.25 512x2048, 0.26 512x1984, 0.27 512x1920, 0.28 512x1856, 0.32 576x1792, 0.33 576x1728, 0.35 576x1664, 0.4 640x1600,
0.42 640x1536, 0.48 704x1472, 0.5 704x1408, 0.52 704x1344, 0.57 768x1344, 0.6 768x1280, 0.68 832x1216, 0.72 832x1152,
0.78 896x1152, 0.82 896x1088, 0.88 960x1088, 0.94 960x1024, 1.0 1024x1024, 1.07 1024x960, 1.13 1088x960, 1.21 1088x896,
1.29 1152x896, 1.38 1152x832, 1.46 1216x832, 1.67 1280x768, 1.75 1344x768, 2.0 1408x704, 2.09 1472x704, 2.4 1536x640,
2.5 1600x640, 2.89 1664x576, 3.0 1728x576, 3.11 1792x576, 3.62 1856x512, 3.75 1920x512, 3.88 1984x512, 4.0 2048x512
"""


def test_the_buckets_at_1024_are_the_released_ones() -> None:
    released = [tuple(entry.split()) for entry in AT_1024.split(",")]
    assert [(str(bucket.key), bucket.name) for bucket in BUCKETS[1024]] == released


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_every_resolution_has_the_same_forty_keys_and_scaled_sizes(resolution: int) -> None:
    assert len(BUCKETS[resolution]) == len({bucket.name for bucket in BUCKETS[resolution]}) == 40
    for bucket, reference in zip(BUCKETS[resolution], BUCKETS[1024], strict=True):
        assert bucket.key == reference.key
        assert bucket.height_px * 1024 == reference.height_px * resolution
        assert bucket.width_px * 1024 == reference.width_px * resolution
        assert bucket.height_px % (resolution // 16) == bucket.width_px % (resolution // 16) == 0
        assert 0.89 < bucket.height_px * bucket.width_px / resolution**2 <= 1


@given(height=st.integers(1, 5000), width=st.integers(1, 5000), resolution=st.sampled_from(RESOLUTIONS))
def test_no_other_key_is_nearer(height: int, width: int, resolution: int) -> None:
    chosen = nearest_bucket(height, width, resolution)
    ratio = Fraction(height, width)
    distances = {b.key: abs(Fraction(str(b.key)) - ratio) for b in BUCKETS[resolution]}
    assert chosen in BUCKETS[resolution]
    assert chosen.key == min(distances, key=lambda key: (distances[key], key))


@given(bucket=st.sampled_from(BUCKETS[512]), factor=st.integers(1, 9))
def test_a_picture_shaped_like_a_bucket_goes_there(bucket: object, factor: int) -> None:
    chosen = nearest_bucket(bucket.height_px * factor, bucket.width_px * factor, 512)
    assert chosen == bucket


def test_of_two_keys_as_near_the_smaller_is_taken() -> None:
    assert nearest_bucket(51, 200, 256).key == 0.25  # 0.255, between 0.25 and 0.26
    assert nearest_bucket(97, 100, 256).key == 0.94  # between 0.94 and 1.0


@pytest.mark.parametrize(("size", "key"), [((1, 100), 0.25), ((100, 1), 4.0), ((300, 300), 1.0)])
def test_pictures_beyond_the_table_go_to_its_ends(size: tuple[int, int], key: float) -> None:
    assert nearest_bucket(*size, 256).key == key


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_the_square_has_the_side_of_its_resolution(resolution: int) -> None:
    assert square(resolution).name == f"{resolution}x{resolution}"


def test_a_resolution_without_buckets_is_told_with_those_that_have() -> None:
    with pytest.raises(UserError, match="256, 512, 1024, 2048"):
        nearest_bucket(10, 10, 300)


def test_a_picture_without_sides_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="0x10"):
        nearest_bucket(0, 10, 256)

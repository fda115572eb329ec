"""Thumbnails: within their budget, and crops of the part that the trainer sees."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curation.report.crops import CroppedSample
from curation.report.pictures import PictureSource, Thumbnail, Wanted, read_thumbnails
from curation.sources.table import source_named


@pytest.fixture
def where(tmp_path: Path) -> PictureSource:
    """A shard of one noisy picture, 300 × 600 px, whose left half is red and right half blue, and one of no picture."""
    noise = np.random.default_rng(0).integers(0, 60, (300, 600, 3), np.uint8)
    noise[:, :300, 0] += 190
    noise[:, 300:, 2] += 190
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG", quality=95)
    with tarfile.open(tmp_path / "s0.tar", "w") as tar:
        for key, content in (("a", buffer.getvalue()), ("b", b"no picture")):
            member = tarfile.TarInfo(f"{key}.jpg")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return PictureSource((str(tmp_path / "s0.tar"),), source_named("webdataset"), ())


def crop(**changes: object) -> CroppedSample:
    told = {"shard": "s0", "key": "a", "bucket": "128x128", "height_px": 128, "width_px": 128, "original_height": 300}
    told |= {"original_width": 600, "resized_height": 128, "resized_width": 256, "crop_top": 0, "crop_left": 0}
    return CroppedSample(**(told | {"flipped": False} | changes))


def mean_colour(picture: Thumbnail | str, part: tuple[int, int, int, int] | None = None) -> tuple[float, ...]:
    assert isinstance(picture, Thumbnail)
    image = Image.open(io.BytesIO(picture.jpeg))
    return tuple(np.asarray(image.crop(part) if part else image, np.float64).mean(axis=(0, 1)))


def test_a_budget_is_kept_however_noisy_the_picture(where: PictureSource) -> None:
    for budget in (60_000, 6_000, 3_000):
        (picture,) = read_thumbnails([Wanted("s0", "a", 256)], where, budget).values()
        assert isinstance(picture, Thumbnail)
        assert len(picture.jpeg) <= budget
        assert picture.width_px <= 256


def test_a_thumbnail_says_how_large_its_picture_is(where: PictureSource) -> None:
    picture = read_thumbnails([Wanted("s0", "a", 200)], where, 10**6)[Wanted("s0", "a", 200)]
    assert isinstance(picture, Thumbnail)
    assert (picture.height_px, picture.width_px) == (100, 200)
    assert (picture.original_height, picture.original_width) == (300, 600)


def test_a_crop_shows_the_part_that_the_latent_is_of(where: PictureSource) -> None:
    left, right = Wanted("s0", "a", 128, crop()), Wanted("s0", "a", 128, crop(crop_left=128))
    found = read_thumbnails([left, right], where, 10**6)
    assert mean_colour(found[left])[0] > 180 > 80 > mean_colour(found[left])[2]
    assert mean_colour(found[right])[2] > 180 > 80 > mean_colour(found[right])[0]


def test_a_mirrored_crop_is_shown_mirrored(where: PictureSource) -> None:
    whole = crop(width_px=256, flipped=True)
    found = read_thumbnails([Wanted("s0", "a", 128, whole)], where, 10**6)
    assert mean_colour(found[Wanted("s0", "a", 128, whole)], (0, 0, 50, 64))[2] > 180


def test_what_cannot_be_shown_says_why(where: PictureSource) -> None:
    wanted = [Wanted("s0", "b", 64), Wanted("s0", "c", 64), Wanted("s9", "a", 64)]
    found = read_thumbnails(wanted, where, 10**6)
    assert str(found[wanted[0]]).startswith("not_an_image")
    assert found[wanted[1]] == "not in the shard any more"
    assert found[wanted[2]] == "shard s9 is not among the given --shards"

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from curation.images.decode import Decoded, DecodePolicy, decode
from curation.measures.picture import measure_picture, perceptual_hash


def scene(height: int, width: int, seed: int = 0) -> Image.Image:
    """Soft blobs of colour."""
    small = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def distance(one: Image.Image, other: Image.Image) -> int:
    hashes = perceptual_hash(one.convert("L")), perceptual_hash(other.convert("L"))
    assert hashes[0] is not None
    assert hashes[1] is not None
    return (hashes[0] ^ hashes[1]).bit_count()


def test_the_hash_is_what_its_definition_says() -> None:
    luma = scene(64, 96).convert("L")
    reduced = np.asarray(luma.resize((32, 32), Image.Resampling.BOX), float)
    place = np.arange(32) + 0.5
    coefficients = [
        sum(
            reduced[y, x] * np.cos(np.pi / 32 * v * place[y]) * np.cos(np.pi / 32 * u * place[x])
            for y, x in np.ndindex(32, 32)
        )
        / 16
        for v in range(1, 9)
        for u in range(1, 9)
    ]
    expected = "".join("1" if c > np.median(coefficients) else "0" for c in coefficients)
    assert f"{perceptual_hash(luma):064b}" == expected


def test_size_brightness_and_compression_hardly_move_the_hash() -> None:
    picture = scene(480, 640)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=30)
    brighter = picture.point(lambda value: min(255, value + 20))
    for other in (
        picture.resize((200, 300)),
        Image.open(buffer),
        brighter,
        picture.filter(ImageFilter.GaussianBlur(3)),
    ):
        assert distance(picture, other) <= 2


def test_other_pictures_and_mirrored_or_turned_ones_are_far_away() -> None:
    picture = scene(480, 640)
    for other in (scene(480, 640, 1), picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), picture.rotate(90)):
        assert distance(picture, other) > 16


@pytest.mark.parametrize("shade", [0, 128, 255])
def test_a_picture_without_detail_has_no_hash_and_no_contrast(shade: int) -> None:
    measures = measure_picture(Image.new("RGB", (50, 40), (shade, shade, shade)))
    assert (measures.phash, measures.luma_mean, measures.luma_std, measures.sharpness) == (None, shade, 0, 0)


def test_a_plain_gradient_has_no_hash() -> None:
    assert perceptual_hash(Image.linear_gradient("L")) is None


def test_a_blurred_picture_is_less_sharp_at_the_same_brightness() -> None:
    sharp = scene(400, 400).effect_spread(3)
    blurred = sharp.filter(ImageFilter.GaussianBlur(4))
    before, after = measure_picture(sharp), measure_picture(blurred)
    assert after.sharpness < before.sharpness / 4
    assert after.luma_mean == pytest.approx(before.luma_mean, abs=1)


def test_contrast_is_the_deviation_of_the_luma() -> None:
    halves = np.zeros((100, 100, 3), np.uint8)
    halves[:, 50:] = 200
    measures = measure_picture(Image.fromarray(halves))
    assert (measures.luma_mean, measures.luma_std) == pytest.approx((100, 100))


def test_a_picture_that_exif_turns_upright_has_the_hash_of_the_upright_one() -> None:
    upright = scene(300, 400)
    exif = Image.Exif()
    exif[274] = 8  # shown turned by 90 degrees counter-clockwise
    buffer = io.BytesIO()
    upright.transpose(Image.Transpose.ROTATE_270).save(buffer, "JPEG", quality=95, exif=exif.tobytes())
    turned = decode(buffer.getvalue(), DecodePolicy())
    assert isinstance(turned, Decoded)
    assert distance(upright, turned.image) <= 2


def test_real_copies_lie_within_two_bits_and_real_others_beyond_eight(
    data_folder: Path, read_tar: Callable[[Path], dict[str, bytes]]
) -> None:
    members = read_tar(data_folder / "near-duplicates/near-duplicates.dev.tar")
    lines = (data_folder / "near-duplicates/groups.dev.jsonl").read_text().splitlines()
    hashes: dict[str, list[tuple[str, int]]] = {}
    for row in map(json.loads, lines):
        decoded = decode(members[row["file"]], DecodePolicy(), at_least=(512, 512))
        assert isinstance(decoded, Decoded)
        found = perceptual_hash(decoded.image.convert("L"))
        assert found is not None
        hashes.setdefault(row["group"], []).append((row["relation"], found))
    (first, *_), *others = [rows for _, rows in sorted(hashes.items())]
    turned = ("rotate", "flip")
    for relation, found in hashes["bridge"]:
        far = (found ^ first[1]).bit_count()
        assert far > 16 if relation.startswith(turned) else far <= 2, relation
    assert min((found ^ first[1]).bit_count() for rows in others for _, found in rows) > 8

"""Real SA-1B pictures, COCO photographs and nine turns of one scene."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curation.images.decode import Decoded, DecodePolicy, decode
from curation.images.resize import cover_and_crop

ReadTar = Callable[[Path], dict[str, bytes]]


def test_every_sa1b_picture_is_taken_at_its_listed_size_though_decoded_small(
    data_folder: Path, read_tar: ReadTar
) -> None:
    folder = data_folder / "sa1b-samples"
    pictures = read_tar(folder / "sa1b-images.dev.tar")
    for row in map(json.loads, (folder / "images.dev.jsonl").read_text().splitlines()):
        result = decode(pictures[row["file"]], DecodePolicy(), at_least=(336, 336))
        assert isinstance(result, Decoded), row["file"]
        assert (result.original_height, result.original_width) == (row["height"], row["width"])
        assert min(result.image.size) >= 336


def test_a_decode_at_twice_the_size_wanted_looks_like_the_whole_one_once_both_are_cropped(
    data_folder: Path, read_tar: ReadTar
) -> None:
    pictures = read_tar(data_folder / "sa1b-samples" / "sa1b-images.dev.tar")
    for name in sorted(pictures)[:4]:
        whole, small = (decode(pictures[name], DecodePolicy(), at_least=size) for size in (None, (512, 512)))
        assert isinstance(whole, Decoded)
        assert isinstance(small, Decoded)
        a, b = (np.asarray(cover_and_crop(r.image, 256, 256)[0], np.int16) for r in (whole, small))
        assert np.abs(a - b).mean() < 1


def test_a_sample_of_coco_photographs_decodes_as_pillow_decodes_them(data_folder: Path, read_tar: ReadTar) -> None:
    photos = read_tar(data_folder / "coco-photos" / "coco-photos.dev.tar")
    for name in sorted(photos)[::12]:
        result = decode(photos[name], DecodePolicy())
        assert isinstance(result, Decoded), name
        reference = Image.open(io.BytesIO(photos[name])).convert("RGB")
        assert result.image.tobytes() == reference.tobytes()


@pytest.mark.parametrize("scene", ["Landscape", "Portrait"])
def test_the_same_scene_comes_out_upright_whatever_its_orientation(
    scene: str, data_folder: Path, read_tar: ReadTar
) -> None:
    tricky = read_tar(data_folder / "tricky-images" / "tricky.dev.tar")
    turns = [name for name in tricky if f"/{scene}_" in name]
    assert len(turns) > 2
    views = []
    for name in turns:
        result = decode(tricky[name], DecodePolicy(), at_least=(64, 64))
        assert isinstance(result, Decoded)
        assert (result.original_width > result.original_height) == (scene == "Landscape")
        views.append(np.asarray(cover_and_crop(result.image, 64, 64)[0], np.int16))
    assert all(np.abs(view - views[0]).mean() < 12 for view in views)

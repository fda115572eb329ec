import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import CLIPImageProcessorPil

from curation.captions.server_pictures import CLIP_MEAN, PictureEncoding, kind_named, picture_wanted
from curation.images.resize import pad_to_square
from schemas.errors import UserError


def opened(url: str) -> Image.Image:
    head, _, data = url.partition(",")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert head == f"data:image/{image.format.lower() if image.format else ''};base64"
    return image


def test_png_sends_the_very_pixels(picture: Any) -> None:
    image = picture(0, 30, 50)
    sent = opened(PictureEncoding(64, None).data_url(image))
    assert np.array_equal(np.asarray(sent), np.asarray(image))


def test_jpeg_sends_nearly_the_pixels_at_the_stated_quality(picture: Any) -> None:
    smooth = picture(0, 4, 6).resize((300, 200), Image.Resampling.BICUBIC)
    errors = [
        np.abs(
            np.asarray(opened(PictureEncoding(512, None, "jpeg", q).data_url(smooth)), int) - np.asarray(smooth)
        ).max()
        for q in (98, 40)
    ]
    assert errors[0] <= 6 < errors[1]


@pytest.mark.parametrize(("height", "width", "sent"), [(100, 200, (64, 32)), (200, 100, (32, 64)), (40, 64, (64, 40))])
def test_larger_pictures_are_shrunk_to_the_longest_side_and_smaller_ones_stay(
    height: int, width: int, sent: tuple[int, int], picture: Any
) -> None:
    assert opened(PictureEncoding(64, None).data_url(picture(0, height, width))).size == sent


def test_a_padded_picture_gives_the_model_the_pixels_that_padding_before_its_processor_gives(picture: Any) -> None:
    processor = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    for number, (height, width) in enumerate(((60, 97), (97, 60), (20, 13), (28, 28))):
        image = picture(number, height, width)
        sent = opened(PictureEncoding(28, CLIP_MEAN).data_url(image))
        ours, theirs = (
            processor(i, return_tensors="np")["pixel_values"] for i in (sent, pad_to_square(image, CLIP_MEAN))
        )
        assert np.array_equal(ours, theirs)


def test_a_checkpoint_says_what_it_wants(llava: Path, llava_next: Path, llava_onevision: Path, tmp_path: Path) -> None:
    assert picture_wanted(str(llava)) == (28, CLIP_MEAN)
    assert picture_wanted(str(llava_next)) == (56, None)
    assert picture_wanted(str(llava_onevision)) == (56, None)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2_vl"}))
    assert picture_wanted(str(tmp_path)) is None
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava"}))
    old = {"crop_size": 336, "image_mean": [0.48145466, 0.4578275, 0.40821073]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(old))
    assert picture_wanted(str(tmp_path)) == (336, CLIP_MEAN)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="no JSON"):
        picture_wanted(str(tmp_path))


def test_encodings_are_named() -> None:
    assert (kind_named("png"), kind_named("jpeg"), kind_named("jpeg:80")) == (("png", 95), ("jpeg", 95), ("jpeg", 80))
    for wrong in ("webp", "png:3", "jpeg:", "jpeg:0", "jpeg:101", "jpeg:a"):
        with pytest.raises(UserError, match="--picture-format"):
            kind_named(wrong)


def test_what_changes_the_picture_changes_its_identity_and_nothing_else_does() -> None:
    encodings = (
        PictureEncoding(336, None),
        PictureEncoding(336, CLIP_MEAN),
        PictureEncoding(224, CLIP_MEAN),
        PictureEncoding(336, CLIP_MEAN, "jpeg", 95),
        PictureEncoding(336, CLIP_MEAN, "jpeg", 90),
    )
    assert len({json.dumps(e.identity) for e in encodings}) == len(encodings)
    assert PictureEncoding(336, None, "png", 90).identity == PictureEncoding(336, None, "png", 95).identity

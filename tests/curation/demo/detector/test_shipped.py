"""The detector that the package ships, as its users have it."""

import numpy as np
import pytest
from diffusers import AutoencoderKL

from curation.demo.detector.detector import Detector
from curation.demo.detector.measure import measure_detector
from curation.demo.shipped import DETECTOR, VAE
from curation.scenes.drawing import draw
from curation.scenes.scene import Split, scene


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector()


@pytest.mark.parametrize("split", [Split.TEST, Split.NOVEL])
def test_scenes_never_shown_to_it_are_read_rightly(detector: Detector, split: Split) -> None:
    found = measure_detector(detector, split, 128, 40, None)
    assert found.precision > 0.9
    assert found.score.aligned.right.share > 0.85
    assert found.score.chance.right.share < 0.05


def test_scenes_are_still_read_after_the_autoencoder(detector: Detector) -> None:
    autoencoder = AutoencoderKL.from_pretrained(VAE).eval()
    assert measure_detector(detector, Split.TEST, 64, 40, autoencoder).score.aligned.right.share > 0.65


def test_arrays_and_pictures_of_any_shape_are_read_alike(detector: Detector) -> None:
    pictures = [draw(scene(3, number)) for number in range(3)]
    assert len({picture.size for picture in pictures}) > 1
    assert detector.read(pictures) == detector.read([np.asarray(picture) for picture in pictures])


def test_an_empty_picture_shows_nothing(detector: Detector) -> None:
    (reading,) = detector.read([np.full((64, 64, 3), (36, 88, 212), np.uint8)])
    assert (reading.things, reading.unrecognised) == ((), 0)
    assert (reading.ground, reading.ground_colours) == ("plain", ("blue",))


def test_it_is_small_and_has_a_card() -> None:
    assert sum(file.stat().st_size for file in DETECTOR.iterdir()) < 6e6
    assert "by chance" in (DETECTOR / "README.md").read_text(encoding="utf-8").lower()

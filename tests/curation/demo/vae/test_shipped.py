"""The autoencoder that the package ships, as its users have it."""

import json

import pytest

from curation.demo.shipped import VAE
from curation.demo.vae.recipe import measure_autoencoder
from curation.scenes.scene import Split


@pytest.mark.parametrize("split", [Split.TEST, Split.NOVEL])
def test_pictures_never_trained_on_come_back_as_they_were(split: Split) -> None:
    assert measure_autoencoder(VAE, short_px=128, pictures=12, split=split) > 26


def test_it_is_small_has_a_card_and_a_scale_of_its_own() -> None:
    assert sum(file.stat().st_size for file in VAE.iterdir()) < 5e6
    assert "PSNR" in (VAE / "README.md").read_text(encoding="utf-8")
    assert json.loads((VAE / "config.json").read_text())["scaling_factor"] != 0.18215

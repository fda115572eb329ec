from collections.abc import Callable

import pytest
import torch

from training.models.config import DitConfig, PixArtConfig
from training.models.dit import DiT
from training.models.pixart import PixArt

SMALL = PixArtConfig(depth=2, hidden=48, heads=4, caption_channels=20, position_base=4)


@pytest.fixture
def small_config() -> PixArtConfig:
    return SMALL


@pytest.fixture
def build() -> Callable[[PixArtConfig], PixArt]:
    """A model whose every parameter is random: at its own initialisation the output and all of the text path are 0."""

    def make(config: PixArtConfig) -> PixArt:
        torch.manual_seed(0)
        model = PixArt(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.2)
        return model

    return make


@pytest.fixture
def build_dit() -> Callable[[DitConfig], DiT]:
    """A DiT whose every parameter is random: at its own initialisation each block is the identity."""

    def make(config: DitConfig) -> DiT:
        torch.manual_seed(1)
        model = DiT(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.2)
        return model

    return make

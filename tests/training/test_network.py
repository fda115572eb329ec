from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from schemas.errors import UserError
from training.data.collate import Features
from training.data.manifest import Manifest, open_manifest
from training.data.plan import Plan
from training.data.policy import Policy
from training.data.prefetch import Prefetcher, Share, micro_batches
from training.data.reader import Reader
from training.models.config import DitConfig, PixArtConfig
from training.models.flops import dit_flops, pixart_flops
from training.network import network_of, smallest_batch

CPU = torch.device("cpu")
PIXART = PixArtConfig(depth=1, hidden=32, heads=2, caption_channels=32, text_tokens=12, position_base=4)
DIT = DitConfig(depth=1, hidden=32, heads=2, classes=5, position_base=4)


@pytest.fixture
def manifest(write_features: Callable[..., Any]) -> Manifest:
    made = write_features()
    return open_manifest(str(made.latents), str(made.text))


def only_batch(manifest: Manifest, drop: float) -> Features:
    work = micro_batches(Plan(manifest.population(), 0, Policy(12, caption_drop=drop)), Share(0, 1, 12), range(1))
    stream = Prefetcher(manifest, Reader(manifest), work, 0, 1, CPU)
    features = next(iter(stream))
    return replace(features, text=features.text.clone(), text_lengths=features.text_lengths.clone())


def test_a_dropped_caption_is_the_empty_string_with_its_own_length(manifest: Manifest) -> None:
    network = network_of(PIXART)
    features = only_batch(network.with_null(manifest, network.build()), drop=1.0)
    assert features.text_lengths.tolist() == [1] * 12
    assert torch.equal(features.text[:, 0], torch.tensor(manifest.null_text).expand(12, -1))


def test_a_dropped_caption_is_the_constant_in_the_weights_with_the_captions_length(manifest: Manifest) -> None:
    network = network_of(replace(PIXART, null_caption="buffer"))
    model = network.build()
    kept = only_batch(manifest, drop=0.0)
    with_null = network.with_null(manifest, model)
    dropped = only_batch(with_null, drop=1.0)
    assert torch.equal(dropped.text_lengths, kept.text_lengths)
    constant = model.state_dict()["y_embedder.y_embedding"].half()
    for text, length in zip(dropped.text, dropped.text_lengths.tolist(), strict=True):
        assert torch.equal(text[:length], constant[:length])
        assert not text[length:].any()
    some = only_batch(with_null, drop=0.5)
    changed = (some.text != kept.text).flatten(1).any(dim=1)
    assert 0 < int(changed.sum()) < 12
    assert torch.equal(some.text[changed], dropped.text[changed])


def test_a_constant_shorter_than_the_captions_is_refused(manifest: Manifest) -> None:
    network = network_of(replace(PIXART, null_caption="buffer", text_tokens=11))
    with pytest.raises(UserError, match="captions have up to 12 tokens, the null caption in the weights has 11"):
        network.with_null(manifest, network.build())


@pytest.mark.parametrize("config", [PIXART, DIT, replace(PIXART, micro_conditions=True, hidden=48)])
def test_either_kind_of_model_is_built_called_and_counted(config: PixArtConfig | DitConfig) -> None:
    network, batch = network_of(config), smallest_batch(config, CPU)
    model = network.build()
    assert network.predict(model, batch.latents, batch).shape == (1, 8, 2, 2)
    counted = dit_flops(config, 2, 2) if isinstance(config, DitConfig) else pixart_flops(config, 2, 2, 8)
    assert network.flops(batch) == counted.step


def test_a_label_that_is_dropped_is_the_null_class() -> None:
    network, batch = network_of(DIT), smallest_batch(DIT, CPU)
    seen: list[torch.Tensor] = []

    class Listening(nn.Module):
        def forward(self, latents: torch.Tensor, timesteps: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            seen.append(labels)
            return latents

    network.predict(Listening(), batch.latents, replace(batch, labels=torch.tensor([-1, 0, 4])))
    assert seen[0].tolist() == [5, 0, 4]

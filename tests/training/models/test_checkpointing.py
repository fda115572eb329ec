"""Blocks computed anew in the backward pass: the same numbers, and less kept in between."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from training.models.config import DitConfig, PixArtConfig
from training.models.dit import DiT
from training.models.pixart import PixArt


def inputs(model: PixArt | DiT) -> list[Tensor]:
    g = torch.Generator().manual_seed(1)
    latents, timesteps = torch.randn(2, 4, 8, 12, generator=g), torch.tensor([3, 999])
    if isinstance(model, DiT):
        return [latents, timesteps, torch.tensor([0, 5])]
    return [latents, timesteps, torch.randn(2, 16, 20, generator=g), torch.tensor([1, 16])]


def trained(model: PixArt | DiT) -> tuple[list[Tensor], int]:
    """Output and gradients, and the bytes that the backward pass kept, weights apart."""
    kept: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage()
        if place.data_ptr() not in weights:
            kept[place.data_ptr()] = place.nbytes()
        return tensor

    model.zero_grad()
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        out = model(*inputs(model))
    bytes_kept = sum(kept.values())
    out.square().mean().backward()
    return [out.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)], bytes_kept


@pytest.fixture
def models(
    build: Callable[[PixArtConfig], PixArt], build_dit: Callable[[DitConfig], DiT], small_config: PixArtConfig
) -> list[PixArt | DiT]:
    return [build(small_config), build_dit(DitConfig(depth=2, hidden=48, heads=4, classes=5, position_base=4))]


def test_output_and_gradients_are_bit_for_bit_the_same_and_less_is_kept(models: list[PixArt | DiT]) -> None:
    for model in models:
        plain, kept = trained(model)
        model.checkpoint_activations = True
        again, kept_again = trained(model)
        assert len(plain) == 1 + len(list(model.parameters()))
        assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
        assert kept_again < kept / 3


def test_without_gradients_nothing_is_computed_twice(
    models: list[PixArt | DiT], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("training.models.block.checkpoint", refuse)
    for model in models:
        assert isinstance(model, nn.Module)
        model.checkpoint_activations = True
        with torch.no_grad():
            model(*inputs(model))

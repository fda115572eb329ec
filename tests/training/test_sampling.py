import math

import numpy as np
import pytest
import torch
from torch import Tensor

from training.models.config import PixArtConfig
from training.models.pixart import PixArt
from training.sampling import sample

CUMPROD = torch.from_numpy(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))
NULL = torch.zeros(1, 1)


class GaussianData:
    """The exact epsilon predictor for data from N(mu, spread^2), mu being the first value of the text.

    x_t is N(sqrt(abar) mu, abar spread^2 + 1 - abar), and E[epsilon | x_t] follows. The variance channels are garbage.
    """

    def __init__(self, spread: float) -> None:
        self.config = PixArtConfig(depth=1, hidden=48, heads=4, caption_channels=1)
        self.spread = spread
        self.text_seen: list[tuple[Tensor, Tensor]] = []

    def __call__(
        self, latents: Tensor, timesteps: Tensor, text: Tensor, text_lengths: Tensor, sizes: Tensor | None = None
    ) -> Tensor:
        self.text_seen.append((text, text_lengths))
        abar = CUMPROD[timesteps].float()[:, None, None, None]
        centred = latents - abar.sqrt() * text[:, 0, 0][:, None, None, None]
        epsilon = (1 - abar).sqrt() * centred / (abar * self.spread**2 + 1 - abar)
        return torch.cat([epsilon, torch.full_like(epsilon, math.nan)], dim=1)


def texts(*means: float) -> tuple[Tensor, Tensor]:
    return torch.tensor(means)[:, None, None], torch.ones(len(means), dtype=torch.int64)


def test_samples_of_a_known_distribution_have_its_mean_and_std() -> None:
    model = GaussianData(spread=0.7)
    out = sample(model, *texts(1.5, -0.5), NULL, 1, height=48, width=48, seeds=[1, 2], guidance=1.0)
    assert out.shape == (2, 4, 48, 48)
    for picture, mean in zip(out, (1.5, -0.5), strict=True):
        assert picture.mean().item() == pytest.approx(mean, abs=0.03)
        assert picture.std().item() == pytest.approx(0.7, rel=0.03)


def test_each_sample_follows_the_exact_flow_from_its_noise() -> None:
    """The probability flow of a Gaussian keeps (x_t - sqrt(abar) mu) / std(x_t) as it is, so the end is known."""
    mean, spread = 1.5, 0.7
    noise = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(5))
    abar = CUMPROD[-1].float()
    exact = mean + spread * (noise - abar.sqrt() * mean) / (abar * spread**2 + 1 - abar).sqrt()
    errors = []
    for steps in (10, 20, 40):
        out = sample(
            GaussianData(spread), *texts(mean), NULL, 1, height=8, width=8, seeds=[5], steps=steps, guidance=1.0
        )
        errors.append((out[0] - exact).abs().max().item())
    assert errors[0] > errors[1] > errors[2]
    assert errors[1] < 0.05


def test_guidance_moves_from_the_null_condition_past_the_text_on_every_channel() -> None:
    """With equal spreads the guided predictor is that of the mean null + guidance * (mean - null)."""
    model = GaussianData(spread=0.5)
    null = torch.full((1, 1), 0.2)
    out = sample(model, *texts(0.6), null, 1, height=32, width=32, seeds=[3], guidance=3.0)
    assert out.mean(dim=(0, 2, 3)).tolist() == pytest.approx([1.4] * 4, abs=0.06)
    assert out.std().item() == pytest.approx(0.5, rel=0.05)


def test_the_null_condition_comes_with_its_own_length_and_padding() -> None:
    model = GaussianData(spread=0.5)
    text, lengths = torch.ones(2, 3, 1), torch.tensor([3, 2])
    sample(model, text, lengths, torch.zeros(5, 1), 1, height=4, width=4, seeds=[0, 1], steps=2)
    seen, seen_lengths = model.text_seen[0]
    assert seen.shape == (4, 5, 1)
    assert seen_lengths.tolist() == [1, 1, 3, 2]
    assert seen[2:, :3].eq(1).all()


def test_without_guidance_the_null_condition_is_not_computed() -> None:
    model = GaussianData(spread=0.5)
    sample(model, *texts(1.0), torch.full((1, 1), math.nan), 1, height=4, width=4, seeds=[0], steps=2, guidance=1.0)
    assert len(model.text_seen[0][0]) == 1


def test_a_picture_depends_on_its_seed_and_text_but_not_on_its_batch() -> None:
    torch.manual_seed(0)
    model = PixArt(PixArtConfig(depth=1, hidden=48, heads=4, caption_channels=20, position_base=4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    text, lengths, null = torch.randn(3, 6, 20), torch.tensor([6, 2, 4]), torch.randn(1, 20)
    together = sample(model, text, lengths, null, 1, height=8, width=6, seeds=[7, 8, 7], steps=4)
    assert not together.requires_grad
    for b, seed in enumerate((7, 8, 7)):
        alone = sample(model, text[b : b + 1], lengths[b : b + 1], null, 1, height=8, width=6, seeds=[seed], steps=4)
        torch.testing.assert_close(alone[0], together[b], rtol=1e-3, atol=1e-3)
    assert not torch.allclose(together[0], together[2], atol=0.01)
    again = sample(model, text, lengths, null, 1, height=8, width=6, seeds=[7, 8, 7], steps=4)
    assert torch.equal(again, together)


def test_sizes_reach_both_halves_of_a_guided_batch() -> None:
    model = PixArt(PixArtConfig(depth=1, hidden=48, heads=4, caption_channels=20, micro_conditions=True))
    sizes = torch.tensor([[512.0, 512.0, 1.0]])
    out = sample(
        model,
        torch.randn(1, 2, 20),
        torch.tensor([2]),
        torch.randn(1, 20),
        1,
        height=4,
        width=4,
        seeds=[0],
        steps=1,
        sizes=sizes,
    )
    assert out.isfinite().all()


def test_a_seed_for_each_text_is_required() -> None:
    with pytest.raises(ValueError, match="2 texts but 1 seeds"):
        sample(GaussianData(0.5), *texts(1.0, 2.0), NULL, 1, height=4, width=4, seeds=[0])

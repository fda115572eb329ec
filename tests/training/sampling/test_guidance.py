import math

import numpy as np
import pytest
import torch
from torch import Tensor

from schemas.errors import UserError
from training.diffusion.config import ObjectiveConfig
from training.models.config import DitConfig, PixArtConfig
from training.models.dit import DiT
from training.models.pixart import PixArt
from training.sampling.guidance import _with_null, null_condition, sample, sample_classes

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


def test_the_null_condition_may_be_as_long_as_each_text() -> None:
    """As the constant in released weights is."""
    lengths = torch.tensor([3, 1])
    null = torch.arange(4.0)[:, None]
    text, both = _with_null(torch.ones(2, 3, 1), lengths, null, lengths)
    assert both.tolist() == [3, 1, 3, 1]
    assert text[:2, :, 0].tolist() == [[0, 1, 2, 3]] * 2
    plain = PixArt(PixArtConfig(depth=1, hidden=12, heads=2, caption_channels=4))
    keeping = PixArt(PixArtConfig(depth=1, hidden=12, heads=2, caption_channels=4, null_caption="buffer"))
    empty = torch.ones(2, 4)
    assert null_condition(plain, empty, lengths)[0] is empty
    assert null_condition(plain, empty, lengths)[1] == 2
    assert null_condition(keeping, empty, lengths)[0] is keeping.y_embedder.y_embedding
    assert null_condition(keeping, empty, lengths)[1] is lengths


def test_without_guidance_the_null_condition_is_not_computed() -> None:
    model = GaussianData(spread=0.5)
    sample(model, *texts(1.0), torch.full((1, 1), math.nan), 1, height=4, width=4, seeds=[0], steps=2, guidance=1.0)
    assert len(model.text_seen[0][0]) == 1


@pytest.mark.parametrize(
    ("sampler", "objective"),
    [
        *((sampler, ObjectiveConfig(prediction="v")) for sampler in ("dpm", "ddim", "ancestral")),
        *((sampler, ObjectiveConfig(prediction="flow")) for sampler in ("dpm", "euler")),
    ],
)
def test_a_picture_depends_on_its_seed_and_text_but_not_on_its_batch(sampler: str, objective: ObjectiveConfig) -> None:
    torch.manual_seed(0)
    flow = objective.prediction == "flow"
    config = PixArtConfig(depth=1, hidden=48, heads=4, caption_channels=20, position_base=4, learn_sigma=not flow)
    model = PixArt(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    text, lengths, null = torch.randn(3, 6, 20), torch.tensor([6, 2, 4]), torch.randn(1, 20)

    def pictures(chosen: slice, seeds: tuple[int, ...]) -> Tensor:
        return sample(
            model,
            text[chosen],
            lengths[chosen],
            null,
            1,
            height=8,
            width=6,
            seeds=seeds,
            steps=4,
            sampler=sampler,
            objective=objective,
        )

    together = pictures(slice(3), (7, 8, 7))
    assert not together.requires_grad
    for b, seed in enumerate((7, 8, 7)):
        torch.testing.assert_close(pictures(slice(b, b + 1), (seed,))[0], together[b], rtol=1e-3, atol=1e-3)
    assert not torch.allclose(together[0], together[2], atol=0.01)
    assert torch.equal(pictures(slice(3), (7, 8, 7)), together)


class NullWithoutVariance(GaussianData):
    """Its null half has no number in the variance channels, its other half the posterior's variance."""

    def __call__(
        self, latents: Tensor, timesteps: Tensor, text: Tensor, text_lengths: Tensor, sizes: Tensor | None = None
    ) -> Tensor:
        output = super().__call__(latents, timesteps, text, text_lengths, sizes)
        output[len(output) // 2 :, 4:] = -1.0
        return output


def test_guidance_leaves_the_variance_to_the_condition() -> None:
    model, null = NullWithoutVariance(spread=0.5), torch.full((1, 1), 0.2)
    out = sample(
        model, *texts(0.6), null, 1, height=32, width=32, seeds=[3], guidance=3.0, sampler="ancestral", steps=100
    )
    assert out.mean(dim=(0, 2, 3)).tolist() == pytest.approx([1.4] * 4, abs=0.06)


def test_a_sampler_that_the_model_cannot_have_is_refused() -> None:
    model = GaussianData(0.5)
    model.config = PixArtConfig(depth=1, hidden=48, heads=4, caption_channels=1, learn_sigma=False)
    with pytest.raises(UserError, match="learned the variance"):
        sample(model, *texts(1.0), NULL, 1, height=4, width=4, seeds=[0], sampler="ancestral")


class GaussianClasses:
    """`GaussianData` whose classes have the means 0.6 and -0.6, and the null class 0.2."""

    def __init__(self) -> None:
        self.config = DitConfig(depth=1, hidden=48, heads=4, classes=2)
        self.labels_seen: list[Tensor] = []
        self._by_text = GaussianData(spread=0.5)

    def __call__(self, latents: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        self.labels_seen.append(labels)
        means = torch.tensor([0.6, -0.6, 0.2])[labels]
        return self._by_text(latents, timesteps, means[:, None, None], torch.ones_like(labels))


def test_classes_are_guided_away_from_the_null_class() -> None:
    model, labels = GaussianClasses(), torch.tensor([0, 1])
    out = sample_classes(model, labels, height=32, width=32, seeds=[3, 4], guidance=3.0)
    assert model.labels_seen[0].tolist() == [2, 2, 0, 1]
    assert out.mean(dim=(1, 2, 3)).tolist() == pytest.approx([1.4, -2.2], abs=0.06)
    alone = sample_classes(model, labels[1:], height=32, width=32, seeds=[4], guidance=3.0)
    torch.testing.assert_close(alone[0], out[1])


def test_classes_without_guidance_need_no_null_class() -> None:
    model = GaussianClasses()
    sample_classes(model, torch.tensor([1]), height=4, width=4, seeds=[0], steps=2, guidance=1.0)
    assert model.labels_seen[0].tolist() == [1]


def test_a_dit_can_be_sampled_from() -> None:
    model = DiT(DitConfig(depth=1, hidden=48, heads=4, classes=2, position_base=2))
    out = sample_classes(model, torch.tensor([0, 1]), height=4, width=4, seeds=[0, 1], steps=2)
    assert out.shape == (2, 4, 4, 4)
    assert out.isfinite().all()


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
    with pytest.raises(ValueError, match="2 conditions but 1 seeds"):
        sample(GaussianData(0.5), *texts(1.0, 2.0), NULL, 1, height=4, width=4, seeds=[0])

"""Train the small KL autoencoder: Stable Diffusion's architecture with few channels, on crops of scenes.

Its latents are what a small PixArt learns to draw, so all that matters is that scenes come back as they were.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn import functional as F

from curation.demo.muon import Muon
from curation.demo.vae.start import start_from_mean_colours
from curation.scenes.drawing import draw
from curation.scenes.scene import Split, generator, pick, scene

_CELL: Final = 8  # pixels a latent cell
_CROP_STREAM: Final = 300  # of randomness
_GROUPS: Final = 2  # of channels that are normalised together: a plain picture is told by their proportions alone
_MOMENTUM: Final = 0.9
_START_STEPS: Final = 20  # whose crops the start is solved for
_WARMUP: Final = 50  # steps


@dataclass(frozen=True, slots=True)
class AutoencoderRecipe:
    """How the autoencoder is made. `kl` weighs the mean divergence a latent value (nats) against the mean absolute
    plus `square` times the mean squared error of a pixel (range -1 to 1)."""

    steps: int = 5_000
    batch: int = 2
    crop_px: int = 64
    short_px: tuple[int, ...] = (64, 64, 80, 96, 128)
    channels: tuple[int, ...] = (16, 32, 64, 64)
    filter_lr: float = 1e-3  # of Muon, for the weights of convolutions
    lr: float = 3e-4  # of AdamW, for all else
    square: float = 4.0
    kl: float = 1e-4
    seed: int = 0


def train_autoencoder(
    directory: Path, recipe: AutoencoderRecipe, say: Callable[[str], None], *, say_every: int = 250
) -> None:
    """Train from nothing and save at `directory`; `scaling_factor` becomes one over the deviation of the latents."""
    torch.manual_seed(recipe.seed)
    model: Any = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * len(recipe.channels),
        up_block_types=("UpDecoderBlock2D",) * len(recipe.channels),
        block_out_channels=recipe.channels,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=_GROUPS,
        sample_size=recipe.crop_px,
    )
    unseen = range(recipe.steps, recipe.steps + _START_STEPS)
    start_from_mean_colours(model, torch.cat([_crops(recipe, step) for step in unseen]))
    model.to(memory_format=torch.channels_last)
    filters = [weight for weight in model.parameters() if weight.ndim == 4]
    others = [weight for weight in model.parameters() if weight.ndim != 4]
    optimisers: list[torch.optim.Optimizer] = [
        Muon(filters, recipe.filter_lr, weight_decay=0.0, momentum=_MOMENTUM),
        torch.optim.AdamW(others, lr=recipe.lr, betas=(0.9, 0.99)),
    ]
    schedules = [torch.optim.lr_scheduler.LambdaLR(one, lambda step: _rate(step, recipe.steps)) for one in optimisers]
    squares: list[float] = []
    for step in range(recipe.steps):
        pixels = _crops(recipe, step)
        posterior = model.encode(pixels).latent_dist
        error = model.decode(posterior.sample()).sample - pixels
        square = error.square().mean()
        loss = error.abs().mean() + recipe.square * square + recipe.kl * posterior.kl().mean() / _values(recipe)
        model.zero_grad()
        loss.backward()
        for optimiser, schedule in zip(optimisers, schedules, strict=True):
            optimiser.step()
            schedule.step()
        squares.append(square.item())
        if (step + 1) % say_every == 0:
            say(f"step {step + 1} of {recipe.steps}: {_psnr(float(np.mean(squares[-say_every:]))):.2f} dB")
    model.eval().to(memory_format=torch.contiguous_format)
    model.register_to_config(scaling_factor=round(1 / _deviation(model), 5))
    model.save_pretrained(directory)


def measure_autoencoder(directory: Path, *, short_px: int, pictures: int = 200, split: Split = Split.TEST) -> float:
    """Mean PSNR (dB) of scenes that training never saw, coded by the mean of the posterior and decoded.

    Pictures have `short_px` on the shorter side and are cut to whole latent cells.
    """
    model: Any = AutoencoderKL.from_pretrained(directory).eval()
    return float(np.mean([_psnr(_square_error(model, _whole(number, short_px, split))) for number in range(pictures)]))


def _rate(step: int, steps: int) -> float:
    """Share of the highest rate: up over `_WARMUP` steps, down by a cosine."""
    return min(1.0, (step + 1) / _WARMUP) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _crops(recipe: AutoencoderRecipe, step: int) -> torch.Tensor:
    """The crops [B, 3, H, W] of a step, -1 to 1: of training scenes at several sizes."""
    crops = []
    for number in range(step * recipe.batch, (step + 1) * recipe.batch):
        random = generator(recipe.seed, number, _CROP_STREAM)
        image = np.asarray(draw(scene(recipe.seed, number), short_px=pick(random, recipe.short_px)))
        top, left = (int(random.integers(side - recipe.crop_px + 1)) for side in image.shape[:2])
        crops.append(image[top : top + recipe.crop_px, left : left + recipe.crop_px])
    return _to_tensor(np.stack(crops)).contiguous(memory_format=torch.channels_last)


def _whole(number: int, short_px: int, split: Split) -> torch.Tensor:
    image = np.asarray(draw(scene(0, number, split=split), short_px=short_px))
    height, width = (side // _CELL * _CELL for side in image.shape[:2])
    return _to_tensor(image[None, :height, :width])


def _to_tensor(images: np.ndarray[Any, Any]) -> torch.Tensor:
    """Pictures [B, H, W, 3] of bytes as [B, 3, H, W], -1 to 1."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def _square_error(model: Any, pixels: torch.Tensor) -> float:
    """Mean squared error in the range -1 to 1, of pictures clamped to what can be shown."""
    back = model.decode(model.encode(pixels).latent_dist.mode()).sample.clamp(-1, 1)
    return float(F.mse_loss(back, pixels))


@torch.no_grad()
def _deviation(model: Any, pictures: int = 400) -> float:
    """Standard deviation of latents sampled from the posteriors of training scenes, over all channels."""
    torch.manual_seed(0)
    latents = [model.encode(_whole(number, 64, Split.TRAIN)).latent_dist.sample() for number in range(pictures)]
    return float(torch.cat([latent.flatten() for latent in latents]).std())


def _values(recipe: AutoencoderRecipe) -> int:
    """Latent values a crop: `kl` of diffusers is their sum."""
    return 4 * (recipe.crop_px // _CELL) ** 2


def _psnr(square_error: float) -> float:
    """Peak signal-to-noise ratio in dB: 10 log10(peak² / error), the peak being 2 from -1 to 1."""
    return 10 * math.log10(4 / square_error)

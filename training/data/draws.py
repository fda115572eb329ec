"""What is random about a micro-batch, drawn on its device: each number is keyed by sample and visit, see randomness."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from training.data.collate import Features
from training.data.manifest import Facts
from training.data.randomness import Purpose, fractions, normal


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What one micro-step trains on."""

    latents: Tensor  # [B, C, h, w] float32: drawn from the posterior, shifted and scaled
    noise: Tensor  # [B, C, h, w] float32
    timesteps: Tensor  # [B] int64 in [0, T); under flow matching float32 in [0, 1000]
    text: Tensor  # [B, L, D] float16, zero beyond each length; [B, 0, 0] where there is no text
    text_lengths: Tensor  # [B] int64
    lengths_on_host: tuple[int, ...]  # the same, without asking the device
    labels: Tensor  # [B] int64: the class; -1 where it is dropped, or there is none
    sizes: Tensor  # [B, 3] float32: original height and width in pixels, bucket height / width
    weights: Tensor  # [B] float32: 1, or 0 for a sample that could not be read


def draw(features: Features, facts: Facts, seed: int, timesteps: Callable[[Tensor], Tensor]) -> Batch:
    """Make the draws of each sample; `timesteps` makes them from float64 [B] in [0, 1), see `Objective.timesteps`."""
    mean, std = features.posterior.float().unbind(1)
    visits, samples, shape = features.visits, features.samples, tuple(mean.shape[1:])
    epsilon = normal(seed, visits, samples, Purpose.POSTERIOR, shape)
    return Batch(
        latents=torch.addcmul(mean, std, epsilon).sub_(facts.shift_factor).mul_(facts.scaling_factor),
        noise=normal(seed, visits, samples, Purpose.NOISE, shape),
        timesteps=timesteps(fractions(seed, visits, samples, Purpose.TIMESTEP)),
        text=features.text,
        text_lengths=features.text_lengths,
        lengths_on_host=features.lengths_on_host,
        labels=features.labels,
        sizes=features.sizes,
        weights=features.weights,
    )

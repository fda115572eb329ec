"""From features on disk to what one micro-step trains on; every random draw is keyed by sample and visit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.data.manifest import Manifest
from training.data.randomness import Purpose, generator
from training.data.reader import Reader

TEXT_MULTIPLE: Final = 8  # text is padded to a multiple of it, so that few shapes occur


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One use of one sample. Arrays are float32 but for the text."""

    latent: NDArray[np.float32]  # [C, h, w] drawn from the posterior, shifted and scaled
    noise: NDArray[np.float32]  # [C, h, w]
    timestep: int
    text: NDArray[np.float16]  # [N, D] the caption's embedding, or the null embedding where it is dropped
    size: tuple[float, float, float]  # original height and width in pixels, bucket height / width


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What one micro-step trains on."""

    latents: Tensor  # [B, C, h, w] float32
    noise: Tensor  # [B, C, h, w] float32
    timesteps: Tensor  # [B] int64
    text: Tensor  # [B, L, D] float16, zero beyond each length
    text_lengths: Tensor  # [B] int64
    sizes: Tensor  # [B, 3] float32: original height and width in pixels, bucket height / width

    def to(self, device: torch.device) -> "Batch":
        """The batch on `device`; from pinned memory the copies overlap with what the device does."""
        tensors = (self.latents, self.noise, self.timesteps, self.text, self.text_lengths, self.sizes)
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in tensors))


@dataclass(frozen=True, slots=True)
class Sampler:
    """Reads samples and makes their random draws. `timesteps` is the T of the schedule; draws are uniform in [0, T)."""

    manifest: Manifest
    reader: Reader
    seed: int
    caption_drop: float
    timesteps: int

    def sample(self, row: int, visit: int) -> Sample:
        """The use number `visit` of the sample at `row` of the manifest."""
        facts, name = self.manifest.facts, int(self.manifest.sample[row])

        def draw(purpose: Purpose) -> np.random.Generator:
            return generator(self.seed, visit, name, purpose)

        mean, std = self.reader.latent(row).astype(np.float32)
        epsilon = draw(Purpose.POSTERIOR).standard_normal(mean.shape, np.float32)
        dropped = draw(Purpose.CAPTION_DROP).random() < self.caption_drop
        height_px, width_px = self.manifest.buckets[self.manifest.bucket[row]]
        height, width = self.manifest.original_size[row]
        return Sample(
            latent=(mean + std * epsilon - np.float32(facts.shift_factor)) * np.float32(facts.scaling_factor),
            noise=draw(Purpose.NOISE).standard_normal(mean.shape, np.float32),
            timestep=int(draw(Purpose.TIMESTEP).integers(self.timesteps)),
            text=self.manifest.null_text if dropped else self.reader.text(row),
            size=(float(height), float(width), height_px / width_px),
        )


def collate(samples: Sequence[Sample], pin: bool) -> Batch:
    """Stack samples of one bucket; text is padded to the longest, rounded up to a multiple of 8.

    `pin` puts all into page-locked memory: a copy from any other makes the host wait for the GPU.
    """
    lengths = [len(sample.text) for sample in samples]
    longest = -(-max(lengths) // TEXT_MULTIPLE) * TEXT_MULTIPLE
    text = torch.empty(len(samples), longest, samples[0].text.shape[1], dtype=torch.float16, pin_memory=pin)
    for row, sample in zip(text.numpy(), samples, strict=True):
        row[: len(sample.text)] = sample.text
        row[len(sample.text) :] = 0

    def stacked(field: Callable[[Sample], NDArray[np.float32]]) -> Tensor:
        out = torch.empty(len(samples), *field(samples[0]).shape, pin_memory=pin)
        np.stack([field(sample) for sample in samples], out=out.numpy())
        return out

    return Batch(
        latents=stacked(lambda sample: sample.latent),
        noise=stacked(lambda sample: sample.noise),
        timesteps=torch.tensor([sample.timestep for sample in samples], dtype=torch.int64, pin_memory=pin),
        text=text,
        text_lengths=torch.tensor(lengths, dtype=torch.int64, pin_memory=pin),
        sizes=torch.tensor([sample.size for sample in samples], dtype=torch.float32, pin_memory=pin),
    )

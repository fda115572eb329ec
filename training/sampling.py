"""Latents from text: DPM-Solver++ with classifier-free guidance."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor

from training.diffusion.schedule import BETA_END, BETA_START, TIMESTEPS
from training.models.config import PixArtConfig


class Denoiser(Protocol):
    """What can be sampled from: a `PixArt`, or anything called like one."""

    config: PixArtConfig

    def __call__(
        self, latents: Tensor, timesteps: Tensor, text: Tensor, text_lengths: Tensor, sizes: Tensor | None = None
    ) -> Any:
        """As `PixArt.forward`."""


@torch.no_grad()
def sample(
    model: Denoiser,
    text: Tensor,
    text_lengths: Tensor,
    null_text: Tensor,
    null_length: int,
    *,
    height: int,
    width: int,
    seeds: Sequence[int],
    steps: int = 20,
    guidance: float = 4.5,
    sizes: Tensor | None = None,
) -> Tensor:
    """Scaled latents [B, C, height, width], float32, on the device of `text`.

    text: [B, L, D] embeddings of true lengths text_lengths [B]. null_text: [L0, D], the embedding of the empty string,
    of which the first null_length rows count. height, width: latent cells. seeds: one a picture; the starting noise is
    drawn on the CPU from it alone, so a picture depends neither on its batch nor on the device. sizes: [B, 3], see
    `PixArt.forward`.

    Second-order multistep DPM-Solver++ (Lu et al. 2022) on the training schedule. Guidance (Ho & Salimans 2022) acts
    on all latent channels: epsilon = null + guidance * (conditional - null); 1 is no guidance. The variance channels
    are not used.
    """
    batch, channels, device = len(text), model.config.in_channels, text.device
    if len(seeds) != batch:
        raise ValueError(f"{batch} texts but {len(seeds)} seeds")
    latents = torch.stack([_noise(seed, (channels, height, width)) for seed in seeds]).to(device)
    guided = guidance != 1
    if guided:
        text, text_lengths = _with_null(text, text_lengths, null_text.to(text), null_length)
        sizes = None if sizes is None else sizes.repeat(2, 1)
    solver = _solver(steps, device)
    for timestep in solver.timesteps:
        inputs = latents.repeat(2, 1, 1, 1) if guided else latents
        output = model(inputs, timestep.expand(len(inputs)), text, text_lengths, sizes)
        epsilon = output[:, :channels].float()
        if guided:
            null, conditional = epsilon.chunk(2)
            epsilon = null + guidance * (conditional - null)
        latents = solver.step(epsilon, timestep, latents, return_dict=False)[0]
    return latents


def _noise(seed: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _with_null(text: Tensor, lengths: Tensor, null_text: Tensor, null_length: int) -> tuple[Tensor, Tensor]:
    """The null condition once for each text, then the texts, padded to one length: [2B, max(L, L0), D] and [2B]."""
    rows = max(text.shape[1], len(null_text))
    null = F.pad(null_text, (0, 0, 0, rows - len(null_text))).expand(len(text), -1, -1)
    padded = F.pad(text, (0, 0, 0, rows - text.shape[1]))
    return torch.cat([null, padded]), torch.cat([torch.full_like(lengths, null_length), lengths])


def _solver(steps: int, device: torch.device) -> Any:
    solver = DPMSolverMultistepScheduler(
        num_train_timesteps=TIMESTEPS,
        beta_start=BETA_START,
        beta_end=BETA_END,
        beta_schedule="linear",
        prediction_type="epsilon",
        algorithm_type="dpmsolver++",
        solver_order=2,
    )
    solver.set_timesteps(steps, device=device)
    solver.set_begin_index(0)
    return solver

"""The forward diffusion process: linear betas, and the tables that follow from them."""

from typing import Final, NamedTuple

import torch
from torch import Tensor

TIMESTEPS: Final = 1000
BETA_START: Final = 1e-4
BETA_END: Final = 0.02


class Tables(NamedTuple):
    """Values for each timestep, float64 [T]. Index t is the step from x_(t-1) to x_t, with x_(-1) the clean latents."""

    betas: Tensor
    alphas_cumprod: Tensor  # abar_t = prod(1 - beta)
    signal: Tensor  # sqrt(abar_t)
    sigma: Tensor  # sqrt(1 - abar_t)
    log_betas: Tensor
    log_posterior_variance: (
        Tensor  # log of beta_t (1 - abar_(t-1)) / (1 - abar_t); 0 at t = 0, so its t = 1 stands there
    )
    posterior_error: Tensor  # d mean of q(x_(t-1) | x_t, x_0) / d epsilon, negated: beta_t / sqrt(alpha_t (1 - abar_t))


class Schedule:
    """T timesteps of noise with betas linear from `beta_start` to `beta_end` (Ho et al. 2020). Tables are float64.

    Lookups happen on the device of the timesteps; the tables are copied there once.
    """

    def __init__(self, timesteps: int = TIMESTEPS, beta_start: float = BETA_START, beta_end: float = BETA_END) -> None:
        self.timesteps = timesteps
        self.tables = _tables(torch.linspace(beta_start, beta_end, timesteps, dtype=torch.float64))
        self._stacked: dict[torch.device, Tensor] = {}

    def at(self, timesteps: Tensor) -> Tables:
        """The tables' values at `timesteps` [B], each float32 [B, 1, 1, 1], on their device."""
        if timesteps.device not in self._stacked:
            self._stacked[timesteps.device] = torch.stack(self.tables).to(timesteps.device)
        values = self._stacked[timesteps.device][:, timesteps].float()
        return Tables(*values[:, :, None, None, None].unbind(0))


def add_noise(schedule: Schedule, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) epsilon. Latents and noise [B, C, H, W], timesteps [B] int64."""
    values = schedule.at(timesteps)
    return values.signal * latents + values.sigma * noise


def _tables(betas: Tensor) -> Tables:
    alphas = 1 - betas
    cumprod = alphas.cumprod(0)
    previous = torch.cat([torch.ones(1, dtype=torch.float64), cumprod[:-1]])
    posterior = betas * (1 - previous) / (1 - cumprod)
    return Tables(
        betas=betas,
        alphas_cumprod=cumprod,
        signal=cumprod.sqrt(),
        sigma=(1 - cumprod).sqrt(),
        log_betas=betas.log(),
        log_posterior_variance=torch.cat([posterior[1:2], posterior[1:]]).log(),
        posterior_error=betas / (alphas * (1 - cumprod)).sqrt(),
    )

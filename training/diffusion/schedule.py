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
    snr: Tensor  # abar_t / (1 - abar_t)
    log_betas: Tensor
    log_posterior_variance: (
        Tensor  # log of beta_t (1 - abar_(t-1)) / (1 - abar_t); 0 at t = 0, so its t = 1 stands there
    )
    posterior_error: Tensor  # d mean of q(x_(t-1) | x_t, x_0) / d epsilon, negated: beta_t / sqrt(alpha_t (1 - abar_t))
    posterior_error_v: Tensor  # d that mean / d v, negated: sqrt(abar_(t-1)) beta_t / sqrt(1 - abar_t)


class Schedule:
    """T timesteps of noise with betas linear from `beta_start` to `beta_end` (Ho et al. 2020). Tables are float64.

    With `zero_terminal_snr` the betas are rescaled by `zero_terminal`; epsilon then tells nothing at the last timestep,
    where `posterior_error` is infinite. Lookups happen on the device of the timesteps; the tables are copied there
    once.
    """

    def __init__(
        self,
        timesteps: int = TIMESTEPS,
        beta_start: float = BETA_START,
        beta_end: float = BETA_END,
        zero_terminal_snr: bool = False,
    ) -> None:
        self.timesteps = timesteps
        betas = torch.linspace(beta_start, beta_end, timesteps, dtype=torch.float64)
        self.tables = _tables(zero_terminal(betas) if zero_terminal_snr else betas)
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


def zero_terminal(betas: Tensor) -> Tensor:
    """Betas [T] moved so that the last timestep keeps no signal at all (Lin et al. 2023, Algorithm 1).

    sqrt(abar) is shifted to end at 0 and scaled to begin where it did.
    """
    signal = (1 - betas).cumprod(0).sqrt()
    first, last = signal[0], signal[-1]
    cumprod = ((signal - last) * first / (first - last)).square()
    return 1 - torch.cat([cumprod[:1], cumprod[1:] / cumprod[:-1]])


def respaced(schedule: Schedule, kept: Tensor) -> Tensor:
    """The betas, float64 [N], of a shorter schedule with the abar of the timesteps `kept` [N], which ascend.

    Nichol & Dhariwal 2021, section 4.
    """
    cumprod = schedule.tables.alphas_cumprod[kept]
    previous = torch.cat([cumprod.new_ones(1), cumprod[:-1]])
    return 1 - cumprod / previous


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
        snr=cumprod / (1 - cumprod),
        log_betas=betas.log(),
        log_posterior_variance=torch.cat([posterior[1:2], posterior[1:]]).log(),
        posterior_error=betas / (alphas * (1 - cumprod)).sqrt(),
        posterior_error_v=previous.sqrt() * betas / (1 - cumprod).sqrt(),
    )

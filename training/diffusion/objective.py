"""What the model is given, what it should answer and what a wrong answer costs: diffusion, or flow matching."""

from typing import Final, Protocol

import torch
from torch import Tensor

from training.diffusion.config import FLOW, LOGIT_NORMAL, ObjectiveConfig
from training.diffusion.loss import LossTerms, diffusion_loss, diffusion_target, min_snr_weight
from training.diffusion.schedule import TIMESTEPS, Schedule, add_noise

FLOW_TIME: Final = float(TIMESTEPS)
"""What the model is told under flow matching where there is noise alone."""


class Objective(Protocol):
    """One way to train. All latents and noise are [B, C, H, W], all timesteps [B].

    How a model's output is read when sampling follows from the same `config`, see `samplers.make_solver`.
    """

    config: ObjectiveConfig

    def timesteps(self, uniform: Tensor) -> Tensor:
        """Timesteps as the model is told them, from draws in [0, 1): float64 [B]."""

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The model's input: clean `latents` with `noise` of that time."""

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the first C channels of the output should be."""

    def weights(self, timesteps: Tensor) -> Tensor:
        """What the squared error counts in the loss: float32 [B]."""

    def loss(self, output: Tensor, latents: Tensor, noise: Tensor, timesteps: Tensor) -> LossTerms:
        """The loss of `output` [B, C or 2C, H, W], by sample."""


def make_objective(config: ObjectiveConfig) -> Objective:
    """The objective that `config` describes."""
    return FlowMatching(config) if config.prediction == FLOW else Diffusion(config)


class Diffusion:
    """Epsilon or v at integer timesteps of `Schedule`, with the variance where the model has channels for it."""

    def __init__(self, config: ObjectiveConfig) -> None:
        self.config = config
        self.schedule = Schedule(zero_terminal_snr=config.zero_terminal_snr)

    def timesteps(self, uniform: Tensor) -> Tensor:
        """Each of 0 to T - 1 with equal chance, int64."""
        return (uniform * self.schedule.timesteps).long()

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """sqrt(abar_t) x_0 + sqrt(1 - abar_t) epsilon."""
        return add_noise(self.schedule, latents, noise, timesteps)

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Epsilon or v."""
        return diffusion_target(self.schedule.at(timesteps), latents, noise, self.config.prediction)

    def weights(self, timesteps: Tensor) -> Tensor:
        """1, or those of min-SNR."""
        snr = self.schedule.at(timesteps).snr.flatten()
        gamma = self.config.min_snr_gamma
        return min_snr_weight(snr, self.config.prediction, gamma) if gamma else torch.ones_like(snr)

    def loss(self, output: Tensor, latents: Tensor, noise: Tensor, timesteps: Tensor) -> LossTerms:
        """See `diffusion_loss`."""
        prediction, gamma = self.config.prediction, self.config.min_snr_gamma
        return diffusion_loss(self.schedule, output, latents, noise, timesteps, prediction, gamma)


class FlowMatching:
    """The velocity from picture to noise on the straight line between them (Lipman et al. 2022; Liu et al. 2022).

    x = (1 - s) x_0 + s epsilon for a share of noise s in [0, 1], of which the model is told the timestep 1000 s, as a
    float. It predicts dx / ds = epsilon - x_0. Draws of s follow Esser et al. 2024, sections 3.1 and 5.3.2.
    """

    def __init__(self, config: ObjectiveConfig) -> None:
        self.config = config

    def timesteps(self, uniform: Tensor) -> Tensor:
        """1000 s, float32, with s of the density chosen and shifted."""
        config, share = self.config, uniform
        if config.time_density == LOGIT_NORMAL:
            share = torch.sigmoid(config.time_mean + config.time_std * torch.special.ndtri(uniform))
        return (FLOW_TIME * shifted(share, config.time_shift)).float()

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """(1 - s) x_0 + s epsilon."""
        share = (timesteps / FLOW_TIME)[:, None, None, None]
        return (1 - share) * latents + share * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """epsilon - x_0, at any time."""
        return noise - latents

    def weights(self, timesteps: Tensor) -> Tensor:
        """1: what counts more is drawn more often."""
        return torch.ones_like(timesteps)

    def loss(self, output: Tensor, latents: Tensor, noise: Tensor, timesteps: Tensor) -> LossTerms:
        """The squared error; vb is 0. Raises `ValueError` for an output with variance channels."""
        if output.shape != latents.shape:
            raise ValueError(f"flow matching predicts {tuple(latents.shape)}, but the output is {tuple(output.shape)}")
        mse = (self.target(latents.float(), noise.float(), timesteps) - output.float()).square().mean(dim=(1, 2, 3))
        return LossTerms(mse, mse, torch.zeros_like(mse))


def shifted(share: Tensor, shift: float) -> Tensor:
    """Shares of noise moved towards 1 for `shift` > 1: a s / (1 + (a - 1) s) (Esser et al. 2024, section 5.3.2)."""
    return shift * share / (1 + (shift - 1) * share)

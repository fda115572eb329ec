"""The training loss: epsilon's squared error, and the variational bound that trains the learned variance."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from training.diffusion.schedule import Schedule, Tables

_HALF_BIN = 1 / 255  # half the distance of two 8-bit levels on [-1, 1]
_TINY = 1e-12
_EDGE = 0.999  # beyond it a value counts as the outermost level


class LossTerms(NamedTuple):
    """Loss a sample, float32 [B] each; total = mse + vb."""

    total: Tensor
    mse: Tensor
    vb: Tensor


def diffusion_loss(schedule: Schedule, output: Tensor, latents: Tensor, noise: Tensor, timesteps: Tensor) -> LossTerms:
    """Loss of the model's `output` for clean `latents` noised by `noise` at `timesteps`.

    output: [B, 2C, H, W], epsilon and then variance channels; or [B, C, H, W], for which vb is 0.
    latents, noise: [B, C, H, W]. timesteps: [B] int64.

    vb is the term of the variational bound at the timestep, in bits a latent value and unscaled: KL(q(x_(t-1) | x_t,
    x_0) || p) for t > 0, a discretised Gaussian's negative log-likelihood for t = 0. It trains the variance alone:
    the mean in it is detached (Nichol & Dhariwal 2021, section 3.1).
    """
    output, latents, noise = output.float(), latents.float(), noise.float()
    channels = latents.shape[1]
    error = noise - output[:, :channels]
    mse = error.square().mean(dim=(1, 2, 3))
    if output.shape[1] == channels:
        return LossTerms(mse, mse, torch.zeros_like(mse))
    vb = _variational_bound(schedule.at(timesteps), output[:, channels:], error.detach(), latents, timesteps)
    return LossTerms(mse + vb, mse, vb)


def _variational_bound(values: Tables, variance: Tensor, error: Tensor, latents: Tensor, timesteps: Tensor) -> Tensor:
    # x_0 and the model's idea of it differ by a multiple of epsilon's error, and so do the two means. Taking the
    # difference directly avoids forming x_0 from x_t, which loses digits at high t.
    difference = values.posterior_error * error
    fraction = (variance + 1) / 2
    log_variance = fraction * values.log_betas + (1 - fraction) * values.log_posterior_variance
    kl = _gaussian_kl(difference, values.log_posterior_variance, log_variance)
    nll = -_discretised_log_likelihood(latents, -difference, 0.5 * log_variance)
    bits = torch.where(timesteps[:, None, None, None] == 0, nll, kl) / math.log(2)
    return bits.mean(dim=(1, 2, 3))


def _gaussian_kl(difference: Tensor, log_variance1: Tensor, log_variance2: Tensor) -> Tensor:
    """KL(N1 || N2) in nats of two Gaussians whose means differ by `difference`."""
    return 0.5 * (
        log_variance2
        - log_variance1
        - 1
        + torch.exp(log_variance1 - log_variance2)
        + difference.square() * torch.exp(-log_variance2)
    )


def _discretised_log_likelihood(x: Tensor, centred: Tensor, log_std: Tensor) -> Tensor:
    """Log of the Gaussian's mass in x's bin of 2 / 255, `centred` being x minus its mean; outermost bins are open."""
    inverse_std = torch.exp(-log_std)
    below_upper = _normal_cdf(inverse_std * (centred + _HALF_BIN))
    below_lower = _normal_cdf(inverse_std * (centred - _HALF_BIN))
    mass = torch.where(x < -_EDGE, below_upper, torch.where(x > _EDGE, 1 - below_lower, below_upper - below_lower))
    return mass.clamp(min=_TINY).log()


def _normal_cdf(x: Tensor) -> Tensor:
    """The tanh approximation of the normal distribution function, which the reference implementation uses."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

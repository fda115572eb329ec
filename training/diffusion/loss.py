"""The loss of diffusion: the prediction's squared error, and the variational bound that trains the learned variance."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from training.diffusion.config import EPSILON
from training.diffusion.schedule import Schedule, Tables

_HALF_BIN = 1 / 255  # half the distance of two 8-bit levels on [-1, 1]
_TINY = 1e-12
_EDGE = 0.999  # beyond it a value counts as the outermost level


class LossTerms(NamedTuple):
    """Loss a sample, float32 [B] each; total = weight * mse + vb, where the weight is 1 unless min-SNR sets it."""

    total: Tensor
    mse: Tensor
    vb: Tensor


def diffusion_loss(
    schedule: Schedule,
    output: Tensor,
    latents: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    prediction: str = EPSILON,
    min_snr_gamma: float = 0.0,
) -> LossTerms:
    """Loss of the model's `output` for clean `latents` noised by `noise` at `timesteps`.

    output: [B, 2C, H, W], the prediction (epsilon or v) and then variance channels; or [B, C, H, W], for which vb is 0.
    latents, noise: [B, C, H, W]. timesteps: [B] int64.

    vb is the term of the variational bound at the timestep, in bits a latent value and unscaled: KL(q(x_(t-1) | x_t,
    x_0) || p) for t > 0, a discretised Gaussian's negative log-likelihood for t = 0. It trains the variance alone:
    the mean in it is detached (Nichol & Dhariwal 2021, section 3.1), and `min_snr_gamma` does not weigh it.
    """
    output, latents, noise = output.float(), latents.float(), noise.float()
    values, channels = schedule.at(timesteps), latents.shape[1]
    error = diffusion_target(values, latents, noise, prediction) - output[:, :channels]
    mse = error.square().mean(dim=(1, 2, 3))
    weighted = mse * min_snr_weight(values.snr.flatten(), prediction, min_snr_gamma) if min_snr_gamma else mse
    if output.shape[1] == channels:
        return LossTerms(weighted, mse, torch.zeros_like(mse))
    # x_0 and the model's idea of it differ by a multiple of the prediction's error, and so do the two means. Taking
    # the difference directly avoids forming x_0 from x_t, which loses digits at high t.
    slope = values.posterior_error if prediction == EPSILON else values.posterior_error_v
    vb = _variational_bound(values, output[:, channels:], slope * error.detach(), latents, timesteps)
    return LossTerms(weighted + vb, mse, vb)


def diffusion_target(values: Tables, latents: Tensor, noise: Tensor, prediction: str) -> Tensor:
    """What is predicted, [B, C, H, W]: epsilon, or v = sqrt(abar) epsilon - sqrt(1 - abar) x_0.

    v is by Salimans & Ho 2022, section 4.
    """
    return noise if prediction == EPSILON else values.signal * noise - values.sigma * latents


def min_snr_weight(snr: Tensor, prediction: str, gamma: float) -> Tensor:
    """The weight of the squared error at signal-to-noise ratios `snr`, of their shape.

    min(SNR, gamma) on the squared error of x_0, which is that of epsilon divided by SNR, and that of v by SNR + 1
    (Hang et al. 2023, Efficient Diffusion Training via Min-SNR Weighting Strategy).
    """
    return snr.clamp(max=gamma) / (snr if prediction == EPSILON else snr + 1)


def _variational_bound(
    values: Tables, variance: Tensor, difference: Tensor, latents: Tensor, timesteps: Tensor
) -> Tensor:
    """`difference` is the mean of the model less that of the posterior."""
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

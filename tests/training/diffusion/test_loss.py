"""The loss against a plain numpy version, written from the formulas and by way of x_t, x_0 and the two means."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch

from training.diffusion.loss import diffusion_loss
from training.diffusion.schedule import Schedule, add_noise

Array = npt.NDArray[np.float64]

BETAS = np.linspace(1e-4, 0.02, 1000)
ALPHAS = 1 - BETAS
CUMPROD = np.cumprod(ALPHAS)
PREVIOUS = np.append(1.0, CUMPROD[:-1])
POSTERIOR_VARIANCE = BETAS * (1 - PREVIOUS) / (1 - CUMPROD)
CLIPPED_LOG_VARIANCE = np.log(np.append(POSTERIOR_VARIANCE[1], POSTERIOR_VARIANCE[1:]))


def posterior_mean(x_0: Array, x_t: Array, t: int) -> Array:
    """The mean of q(x_(t-1) | x_t, x_0), equation 7 of Ho et al. 2020."""
    from_start = np.sqrt(PREVIOUS[t]) * BETAS[t] / (1 - CUMPROD[t])
    from_noised = np.sqrt(ALPHAS[t]) * (1 - PREVIOUS[t]) / (1 - CUMPROD[t])
    return from_start * x_0 + from_noised * x_t


def normal_cdf(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def discretised_nll(x: Array, mean: Array, log_std: Array) -> Array:
    upper = normal_cdf((x - mean + 1 / 255) / np.exp(log_std))
    lower = normal_cdf((x - mean - 1 / 255) / np.exp(log_std))
    upper = np.where(x > 0.999, 1.0, upper)
    lower = np.where(x < -0.999, 0.0, lower)
    return -np.log(np.maximum(upper - lower, 1e-12))


def reference(epsilon: Array, variance: Array, x_0: Array, noise: Array, t: int) -> tuple[float, float]:
    """mse and vb of one sample."""
    x_t = np.sqrt(CUMPROD[t]) * x_0 + np.sqrt(1 - CUMPROD[t]) * noise
    predicted_x_0 = (x_t - np.sqrt(1 - CUMPROD[t]) * epsilon) / np.sqrt(CUMPROD[t])
    mean = posterior_mean(predicted_x_0, x_t, t)
    fraction = (variance + 1) / 2
    log_variance = fraction * np.log(BETAS[t]) + (1 - fraction) * CLIPPED_LOG_VARIANCE[t]
    if t == 0:
        nats = discretised_nll(x_0, mean, log_variance / 2)
    else:
        true_log_variance = CLIPPED_LOG_VARIANCE[t]
        nats = 0.5 * (
            -1
            + log_variance
            - true_log_variance
            + np.exp(true_log_variance - log_variance)
            + (posterior_mean(x_0, x_t, t) - mean) ** 2 * np.exp(-log_variance)
        )
    return float(np.mean((noise - epsilon) ** 2)), float(np.mean(nats) / np.log(2))


def draws(error: float, spread: float = 0.6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """latents, noise, output, timesteps. Latents reach past both ends of [-1, 1]."""
    generator = torch.Generator().manual_seed(0)
    timesteps = torch.tensor([0, 0, 1, 2, 250, 999])
    latents = spread * torch.randn(6, 4, 8, 8, generator=generator)
    noise = torch.randn(6, 4, 8, 8, generator=generator)
    epsilon = noise + error * torch.randn(6, 4, 8, 8, generator=generator)
    variance = torch.randn(6, 4, 8, 8, generator=generator)
    return latents, noise, torch.cat([epsilon, variance], dim=1), timesteps


@pytest.mark.parametrize("error", [0.05, 1.0])
def test_the_loss_is_that_of_the_formulas_number_for_number(error: float) -> None:
    latents, noise, output, timesteps = draws(error)
    assert (latents > 1).any()
    assert (latents < -1).any()
    terms = diffusion_loss(Schedule(), output, latents, noise, timesteps)
    assert terms.total.shape == (6,)
    for b, t in enumerate(timesteps.tolist()):
        arrays = [a.double().numpy() for a in (output[b, :4], output[b, 4:], latents[b], noise[b])]
        mse, vb = reference(*arrays, t)
        assert terms.mse[b].item() == pytest.approx(mse, rel=1e-5)
        assert terms.vb[b].item() == pytest.approx(vb, rel=2e-5), t
        assert terms.total[b].item() == pytest.approx(mse + vb, rel=2e-5)


def test_the_variational_bound_trains_only_the_variance() -> None:
    latents, noise, output, timesteps = draws(0.3)
    output.requires_grad_()
    (for_vb,) = torch.autograd.grad(diffusion_loss(Schedule(), output, latents, noise, timesteps).vb.sum(), output)
    assert not for_vb[:, :4].any()
    assert for_vb[:, 4:].abs().amax(dim=(1, 2, 3)).min() > 0
    (for_mse,) = torch.autograd.grad(diffusion_loss(Schedule(), output, latents, noise, timesteps).mse.sum(), output)
    assert not for_mse[:, 4:].any()
    torch.testing.assert_close(for_mse[:, :4], 2 * (output[:, :4] - noise).detach() / (4 * 8 * 8))


def test_the_gradient_of_the_variance_is_that_of_the_formulas() -> None:
    latents, noise, output, timesteps = draws(0.3)
    output.requires_grad_()
    (gradient,) = torch.autograd.grad(diffusion_loss(Schedule(), output, latents, noise, timesteps).vb.sum(), output)
    arrays = [a.detach().double().numpy() for a in (output, latents, noise)]
    for b, t in enumerate(timesteps.tolist()):
        epsilon, variance = arrays[0][b, :4], arrays[0][b, 4:]
        for place in ((0, 0, 0), (3, 5, 2)):
            step = np.zeros_like(variance)
            step[place] = 1e-4
            ends = [reference(epsilon, variance + s * step, arrays[1][b], arrays[2][b], t)[1] for s in (1, -1)]
            expected = (ends[0] - ends[1]) / 2e-4
            assert gradient[b, 4:][place].item() == pytest.approx(expected, rel=1e-3, abs=1e-7), t


def test_without_learned_variance_the_loss_is_the_squared_error() -> None:
    latents, noise, output, timesteps = draws(0.3)
    terms = diffusion_loss(Schedule(), output[:, :4], latents, noise, timesteps)
    torch.testing.assert_close(terms.total, (output[:, :4] - noise).square().mean(dim=(1, 2, 3)))
    assert not terms.vb.any()


def test_the_perfect_prediction_with_the_posterior_s_variance_costs_nothing_past_the_first_timestep() -> None:
    latents, noise, _, timesteps = draws(0.0)
    output = torch.cat([noise, -torch.ones_like(noise)], dim=1)
    terms = diffusion_loss(Schedule(), output, latents, noise, timesteps)
    assert terms.total[2:].abs().max().item() < 1e-6


def test_a_very_wrong_or_low_precision_output_gives_a_finite_loss_and_gradient() -> None:
    latents, noise, output, timesteps = draws(30.0)
    wild = output.bfloat16().requires_grad_()
    terms = diffusion_loss(Schedule(), wild, latents, noise, timesteps)
    terms.total.sum().backward()
    assert terms.total.dtype == torch.float32
    assert all(math.isfinite(v) for v in terms.total.tolist())
    assert wild.grad is not None
    assert wild.grad.isfinite().all()


def test_the_expected_loss_of_a_known_distribution_is_the_known_one() -> None:
    """For data from N(0, s^2) the best epsilon leaves the error abar s^2 / (abar s^2 + 1 - abar)."""
    schedule, spread, t = Schedule(), 0.5, torch.full((64,), 300)
    generator = torch.Generator().manual_seed(3)
    latents = spread * torch.randn(64, 4, 16, 16, generator=generator)
    noise = torch.randn(64, 4, 16, 16, generator=generator)
    noised = add_noise(schedule, latents, noise, t)
    abar = CUMPROD[300]
    variance = abar * spread**2 + 1 - abar
    terms = diffusion_loss(schedule, math.sqrt(1 - abar) / variance * noised, latents, noise, t)
    assert terms.mse.mean().item() == pytest.approx(abar * spread**2 / variance, rel=0.02)

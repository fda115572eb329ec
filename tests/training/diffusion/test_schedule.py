import numpy as np
import torch

from training.diffusion.schedule import Schedule, add_noise


def test_the_tables_are_those_of_linear_betas_in_float64() -> None:
    schedule = Schedule()
    betas = np.linspace(1e-4, 0.02, 1000)
    cumprod = np.cumprod(1 - betas)
    assert schedule.timesteps == 1000
    assert all(table.dtype == torch.float64 and table.shape == (1000,) for table in schedule.tables)
    np.testing.assert_allclose(schedule.tables.betas.numpy(), betas, rtol=1e-13)
    np.testing.assert_allclose(schedule.tables.alphas_cumprod.numpy(), cumprod, rtol=1e-12)
    posterior = betas[1:] * (1 - cumprod[:-1]) / (1 - cumprod[1:])
    np.testing.assert_allclose(schedule.tables.log_posterior_variance[1:].exp().numpy(), posterior, rtol=1e-10)
    assert schedule.tables.log_posterior_variance[0] == schedule.tables.log_posterior_variance[1]


def test_noise_is_added_by_each_sample_s_own_timestep() -> None:
    latents, noise = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)
    noised = add_noise(Schedule(), latents, noise, torch.tensor([0, 400, 999]))
    cumprod = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    for b, t in enumerate((0, 400, 999)):
        expected = np.sqrt(cumprod[t]) * latents[b].numpy() + np.sqrt(1 - cumprod[t]) * noise[b].numpy()
        np.testing.assert_allclose(noised[b].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_the_last_timestep_is_almost_pure_noise() -> None:
    latents = torch.full((1, 4, 2, 2), 100.0)
    assert add_noise(Schedule(), latents, torch.zeros_like(latents), torch.tensor([999])).max().item() < 0.7

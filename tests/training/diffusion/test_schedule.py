import numpy as np
import pytest
import torch

from training.diffusion.schedule import Schedule, add_noise, respaced


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


def test_zero_terminal_snr_is_algorithm_1_of_its_paper() -> None:
    """Written from Lin et al. 2023: alphas_bar_sqrt, shifted by its last value, scaled by its first, and back."""
    betas = np.linspace(1e-4, 0.02, 1000)
    root = np.sqrt(np.cumprod(1 - betas))
    first, last = root[0].copy(), root[-1].copy()
    root -= last
    root *= first / (first - last)
    cumprod = root**2
    alphas = np.concatenate([cumprod[:1], cumprod[1:] / cumprod[:-1]])
    tables = Schedule(zero_terminal_snr=True).tables
    np.testing.assert_allclose(tables.betas.numpy(), 1 - alphas, rtol=1e-9)
    np.testing.assert_allclose(tables.alphas_cumprod.numpy(), cumprod, rtol=1e-10, atol=1e-18)
    np.testing.assert_allclose(tables.snr[:-1].numpy(), (cumprod / (1 - cumprod))[:-1], rtol=1e-9)
    assert tables.alphas_cumprod[-1] == tables.snr[-1] == tables.signal[-1] == 0
    assert tables.sigma[-1] == tables.betas[-1] == 1
    np.testing.assert_allclose(tables.alphas_cumprod[0], 1 - 1e-4, rtol=1e-12)


def test_with_zero_terminal_snr_the_last_timestep_is_the_noise_itself() -> None:
    latents, noise = torch.full((1, 4, 2, 2), 100.0), torch.randn(1, 4, 2, 2)
    noised = add_noise(Schedule(zero_terminal_snr=True), latents, noise, torch.tensor([999]))
    assert torch.equal(noised, noise)


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
def test_a_shorter_schedule_has_the_noise_of_the_timesteps_it_keeps(zero_terminal_snr: bool) -> None:
    schedule, kept = Schedule(zero_terminal_snr=zero_terminal_snr), torch.tensor([0, 7, 400, 999])
    cumprod = (1 - respaced(schedule, kept)).cumprod(0)
    torch.testing.assert_close(cumprod, schedule.tables.alphas_cumprod[kept], rtol=1e-12, atol=0)

"""Each objective against a plain numpy version, written from the formulas sample by sample."""

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pytest
import torch

from training.diffusion.config import ObjectiveConfig
from training.diffusion.objective import make_objective

Array = npt.NDArray[np.float64]

TIMESTEPS = (0, 0, 1, 2, 250, 999)
DIFFUSIONS = [
    ObjectiveConfig(),
    ObjectiveConfig(min_snr_gamma=5.0),
    ObjectiveConfig(prediction="v"),
    ObjectiveConfig(prediction="v", min_snr_gamma=5.0),
    ObjectiveConfig(prediction="v", zero_terminal_snr=True),
]


class Reference:
    """Diffusion in float64, by way of x_t, x_0 and the two means."""

    def __init__(self, config: ObjectiveConfig) -> None:
        self.config = config
        root = np.sqrt(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))
        if config.zero_terminal_snr:
            root = (root - root[-1]) * root[0] / (root[0] - root[-1])
        self.cumprod = root**2
        self.previous = np.append(1.0, self.cumprod[:-1])
        self.betas = 1 - self.cumprod / self.previous
        variance = self.betas * (1 - self.previous) / (1 - self.cumprod)
        self.log_variance = np.log(np.append(variance[1], variance[1:]))

    def noised(self, x_0: Array, noise: Array, t: int) -> Array:
        return np.asarray(np.sqrt(self.cumprod[t]) * x_0 + np.sqrt(1 - self.cumprod[t]) * noise)

    def target(self, x_0: Array, noise: Array, t: int) -> Array:
        if self.config.prediction == "epsilon":
            return noise
        return np.asarray(np.sqrt(self.cumprod[t]) * noise - np.sqrt(1 - self.cumprod[t]) * x_0)

    def clean(self, prediction: Array, x_t: Array, t: int) -> Array:
        signal, sigma = np.sqrt(self.cumprod[t]), np.sqrt(1 - self.cumprod[t])
        if self.config.prediction == "epsilon":
            return np.asarray((x_t - sigma * prediction) / signal)
        return np.asarray(signal * x_t - sigma * prediction)

    def weight(self, t: int) -> float:
        gamma = self.config.min_snr_gamma
        if not gamma:
            return 1.0
        snr = self.cumprod[t] / (1 - self.cumprod[t])
        divisor = snr if self.config.prediction == "epsilon" else snr + 1
        return float(min(snr, gamma) / divisor)

    def mean(self, x_0: Array, x_t: Array, t: int) -> Array:
        """The mean of q(x_(t-1) | x_t, x_0), equation 7 of Ho et al. 2020."""
        from_start = np.sqrt(self.previous[t]) * self.betas[t] / (1 - self.cumprod[t])
        from_noised = np.sqrt(1 - self.betas[t]) * (1 - self.previous[t]) / (1 - self.cumprod[t])
        return np.asarray(from_start * x_0 + from_noised * x_t)

    def terms(self, output: Array, x_0: Array, noise: Array, t: int) -> tuple[float, float, float]:
        """total, mse and vb of one sample."""
        prediction, variance = output[:4], output[4:]
        mse = float(np.mean((self.target(x_0, noise, t) - prediction) ** 2))
        x_t = self.noised(x_0, noise, t)
        mean = self.mean(self.clean(prediction, x_t, t), x_t, t)
        fraction = (variance + 1) / 2
        log_variance = fraction * np.log(self.betas[t]) + (1 - fraction) * self.log_variance[t]
        if t == 0:
            nats = discretised_nll(x_0, mean, log_variance / 2)
        else:
            difference = self.mean(x_0, x_t, t) - mean
            true = self.log_variance[t]
            nats = 0.5 * (
                -1 + log_variance - true + np.exp(true - log_variance) + difference**2 * np.exp(-log_variance)
            )
        vb = float(np.mean(nats) / np.log(2))
        return self.weight(t) * mse + vb, mse, vb


def discretised_nll(x: Array, mean: Array, log_std: Array) -> Array:
    def cdf(value: Array) -> Array:
        return np.asarray(0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (value + 0.044715 * value**3))))

    upper = np.where(x > 0.999, 1.0, cdf((x - mean + 1 / 255) / np.exp(log_std)))
    lower = np.where(x < -0.999, 0.0, cdf((x - mean - 1 / 255) / np.exp(log_std)))
    return np.asarray(-np.log(np.maximum(upper - lower, 1e-12)))


def draws(channels: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """latents, noise and output, [6, 4, 8, 8] and [6, channels, 8, 8]. Latents reach past both ends of [-1, 1]."""
    generator = torch.Generator().manual_seed(0)
    latents, noise = (scale * torch.randn(6, 4, 8, 8, generator=generator) for scale in (0.6, 1.0))
    return latents, noise, torch.randn(6, channels, 8, 8, generator=generator)


def array(tensor: torch.Tensor) -> Array:
    return np.asarray(tensor.detach().double().numpy())


@pytest.mark.parametrize("config", DIFFUSIONS)
def test_diffusion_is_that_of_the_formulas_number_for_number(config: ObjectiveConfig) -> None:
    objective, reference = make_objective(config), Reference(config)
    latents, noise, output = draws(8)
    timesteps = torch.tensor(TIMESTEPS)
    # Near the target, or the tails of the discretised likelihood at t = 0 would be all that is compared.
    output[:, :4] = 0.1 * output[:, :4] + objective.target(latents, noise, timesteps)
    noised = objective.add_noise(latents, noise, timesteps)
    target, weights = objective.target(latents, noise, timesteps), objective.weights(timesteps)
    terms = objective.loss(output, latents, noise, timesteps)
    for b, t in enumerate(TIMESTEPS):
        x_0, epsilon = array(latents[b]), array(noise[b])
        np.testing.assert_allclose(array(noised[b]), reference.noised(x_0, epsilon, t), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(array(target[b]), reference.target(x_0, epsilon, t), rtol=1e-5, atol=1e-6)
        total, mse, vb = reference.terms(array(output[b]), x_0, epsilon, t)
        assert weights[b].item() == pytest.approx(reference.weight(t), rel=1e-5)
        assert terms.mse[b].item() == pytest.approx(mse, rel=1e-5)
        assert terms.vb[b].item() == pytest.approx(vb, rel=1e-4), t
        assert terms.total[b].item() == pytest.approx(total, rel=1e-4), t


@pytest.mark.parametrize("config", DIFFUSIONS)
def test_without_variance_channels_the_loss_is_the_weighted_squared_error(config: ObjectiveConfig) -> None:
    objective, reference = make_objective(config), Reference(config)
    latents, noise, output = draws(4)
    terms = objective.loss(output, latents, noise, torch.tensor(TIMESTEPS))
    for b, t in enumerate(TIMESTEPS):
        mse = np.mean((reference.target(array(latents[b]), array(noise[b]), t) - array(output[b])) ** 2)
        assert terms.total[b].item() == pytest.approx(reference.weight(t) * mse, rel=1e-5)
        assert terms.mse[b].item() == pytest.approx(mse, rel=1e-5)
    assert not terms.vb.any()


def test_the_bound_of_the_v_prediction_trains_only_the_variance() -> None:
    objective = make_objective(ObjectiveConfig(prediction="v", zero_terminal_snr=True))
    latents, noise, output = draws(8)
    vb = objective.loss(output.requires_grad_(), latents, noise, torch.tensor(TIMESTEPS)).vb.sum()
    (gradient,) = torch.autograd.grad(vb, output)
    assert gradient.isfinite().all()
    assert not gradient[:, :4].any()
    assert gradient[:, 4:].abs().amax(dim=(1, 2, 3)).min() > 0


def test_min_snr_leaves_noisy_timesteps_of_epsilon_alone_and_holds_down_clean_ones() -> None:
    weights = make_objective(ObjectiveConfig(min_snr_gamma=5.0)).weights(torch.arange(1000))
    cumprod = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    noisy = torch.from_numpy(cumprod / (1 - cumprod) <= 5)
    assert weights[noisy].eq(1).all()
    assert weights[~noisy].lt(1).all()
    assert weights[0].item() == pytest.approx(5 * 1e-4 / (1 - 1e-4), rel=1e-5)


def test_timesteps_of_diffusion_are_the_whole_numbers_that_the_loader_draws() -> None:
    """Bit for bit those of (word * T) >> 32, for words of 32 random bits."""
    words = torch.randint(0, 1 << 32, (100_000,), generator=torch.Generator().manual_seed(0))
    timesteps = make_objective(ObjectiveConfig()).timesteps(words.double() * 2.0**-32)
    assert torch.equal(timesteps, (words * 1000) >> 32)


@pytest.mark.parametrize("density", ["uniform", "logit-normal"])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_matching_is_that_of_the_formulas_number_for_number(density: str, shift: float) -> None:
    normal = {"time_mean": -0.3, "time_std": 1.4} if density == "logit-normal" else {}
    config = ObjectiveConfig(prediction="flow", time_density=density, time_shift=shift, **normal)
    objective = make_objective(config)
    latents, noise, output = draws(4)
    uniform = [0.0, 1e-9, 0.2, 0.5, 0.9, 1 - 2.0**-32]
    timesteps = objective.timesteps(torch.tensor(uniform, dtype=torch.float64))
    assert timesteps.dtype == torch.float32
    noised = objective.add_noise(latents, noise, timesteps)
    terms = objective.loss(output, latents, noise, timesteps)
    for b, u in enumerate(uniform):
        s = u
        if density == "logit-normal":
            s = 1 / (1 + math.exp(-(-0.3 + 1.4 * NormalDist().inv_cdf(u)))) if u else 0.0
        s = shift * s / (1 + (shift - 1) * s)
        x_0, epsilon = array(latents[b]), array(noise[b])
        assert timesteps[b].item() == pytest.approx(1000 * s, rel=1e-6)
        np.testing.assert_allclose(array(noised[b]), (1 - s) * x_0 + s * epsilon, rtol=1e-5, atol=1e-6)
        mse = np.mean((epsilon - x_0 - array(output[b])) ** 2)
        assert terms.total[b].item() == terms.mse[b].item() == pytest.approx(mse, rel=1e-5)
    assert objective.weights(timesteps).eq(1).all()
    assert not terms.vb.any()


def test_the_share_of_noise_has_the_density_asked_for() -> None:
    """The logit of the share is normal of the mean and std given; a shift by a adds log a to it."""
    config = ObjectiveConfig(prediction="flow", time_density="logit-normal", time_mean=0.4, time_std=0.8, time_shift=2)
    uniform = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    share = make_objective(config).timesteps(uniform).double() / 1000
    logits = (share / (1 - share)).log()
    assert logits.mean().item() == pytest.approx(0.4 + math.log(2), abs=1e-3)
    assert logits.std().item() == pytest.approx(0.8, abs=1e-3)


def test_flow_matching_refuses_variance_channels() -> None:
    latents, noise, output = draws(8)
    with pytest.raises(ValueError, match=r"predicts \(6, 4, 8, 8\), but the output is \(6, 8, 8, 8\)"):
        make_objective(ObjectiveConfig(prediction="flow")).loss(output, latents, noise, torch.ones(6))


@pytest.mark.parametrize("config", [*DIFFUSIONS, ObjectiveConfig(prediction="flow")])
def test_half_precision_outputs_give_a_float32_loss_and_finite_gradients(config: ObjectiveConfig) -> None:
    latents, noise, output = draws(4 if config.prediction == "flow" else 8)
    objective = make_objective(config)
    timesteps = objective.timesteps(torch.linspace(0, 0.9999, 6, dtype=torch.float64))
    wild = (30 * output).bfloat16().requires_grad_()
    terms = objective.loss(wild, latents, noise, timesteps)
    terms.total.sum().backward()
    assert terms.total.dtype == torch.float32
    assert terms.total.isfinite().all()
    assert wild.grad is not None
    assert wild.grad.isfinite().all()

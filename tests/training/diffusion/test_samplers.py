"""Every sampler on data from N(mu, spread^2), for which the best prediction and the flow are known in closed form."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from schemas.errors import UserError
from training.diffusion.config import ObjectiveConfig
from training.diffusion.objective import make_objective
from training.diffusion.samplers import DEFAULT_STEPS, Solver, check_sampler, make_solver
from training.diffusion.schedule import Schedule

CPU = torch.device("cpu")
MEAN, SPREAD = 1.5, 0.7

EPSILON, VELOCITY = ObjectiveConfig(), ObjectiveConfig(prediction="v")
ZERO_TERMINAL = ObjectiveConfig(prediction="v", zero_terminal_snr=True)
FLOW, SHIFTED = ObjectiveConfig(prediction="flow"), ObjectiveConfig(prediction="flow", time_shift=3.0)

DETERMINISTIC = [
    *((sampler, objective) for sampler in ("dpm", "ddim") for objective in (EPSILON, VELOCITY, ZERO_TERMINAL)),
    *((sampler, objective) for sampler in ("dpm", "euler") for objective in (FLOW, SHIFTED)),
]
ALL = [*DETERMINISTIC, *(("ancestral", objective) for objective in (EPSILON, VELOCITY, ZERO_TERMINAL))]


class Gaussian:
    """The exact predictor, with the exact variance of x_(t-1) given x_t where the chain takes the steps `times`."""

    def __init__(self, objective: ObjectiveConfig, times: Tensor) -> None:
        self.objective = objective
        self.cumprod = Schedule(zero_terminal_snr=objective.zero_terminal_snr).tables.alphas_cumprod
        self.times = times.tolist()

    def mixture(self, time: float) -> tuple[float, float]:
        """How much picture and how much noise x holds at `time`."""
        if self.objective.prediction == "flow":
            return 1 - time / 1000, time / 1000
        return math.sqrt(self.cumprod[int(time)]), math.sqrt(1 - self.cumprod[int(time)])

    def __call__(self, x: Tensor, time: float) -> Tensor:
        a, b = self.mixture(time)
        centred = (x - a * MEAN) / (a**2 * SPREAD**2 + b**2)
        epsilon, clean = b * centred, MEAN + a * SPREAD**2 * centred
        prediction = self.objective.prediction
        first = (
            epsilon if prediction == "epsilon" else a * epsilon - b * clean if prediction == "v" else epsilon - clean
        )
        return torch.cat([first, torch.full_like(first, self.fraction(time))], dim=1)

    def fraction(self, time: float) -> float:
        """What the variance channels say: -1 for the posterior's variance, 1 for beta, geometrically between."""
        index = self.times.index(time)
        if self.objective.prediction == "flow" or index + 1 == len(self.times):
            return math.nan  # not looked at
        abar, previous = (float(self.cumprod[int(self.times[i])]) for i in (index, index + 1))
        beta = 1 - abar / previous
        lower = beta * (1 - previous) / (1 - abar)
        of_clean = SPREAD**2 * (1 - abar) / (abar * SPREAD**2 + 1 - abar)
        variance = lower + previous * beta**2 / (1 - abar) ** 2 * of_clean
        return 2 * math.log(variance / lower) / math.log(beta / lower) - 1


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def solve(sampler: str, objective: ObjectiveConfig, steps: int, side: int = 64) -> tuple[Tensor, Tensor, Gaussian]:
    """Starting noise and end, [2, 4, side, side], and the model."""
    solver, chance = make_solver(sampler, objective, True, steps, CPU), generators(2)
    model = Gaussian(objective, solver.times)
    noise = torch.stack([torch.randn(4, side, side, generator=generator) for generator in chance])
    x = noise
    for index, time in enumerate(solver.times.tolist()):
        x = solver.step(index, model(x, time), x, chance)
    return noise, x, model


@pytest.mark.parametrize(("sampler", "objective"), ALL)
def test_every_sampler_recovers_the_mean_and_the_spread_of_the_data(sampler: str, objective: ObjectiveConfig) -> None:
    for picture in solve(sampler, objective, DEFAULT_STEPS[sampler])[1]:
        assert picture.mean().item() == pytest.approx(MEAN, abs=0.03)
        assert picture.std().item() == pytest.approx(SPREAD, rel=0.05)  # first-order samplers end 4 % narrow


@pytest.mark.parametrize(("sampler", "objective"), DETERMINISTIC)
def test_without_chance_each_picture_follows_the_exact_flow_from_its_noise(
    sampler: str, objective: ObjectiveConfig
) -> None:
    """The flow of a Gaussian keeps (x - a mu) / std(x) as it is, so the end is known."""
    errors = []
    for steps in (10, 250):
        noise, end, model = solve(sampler, objective, steps, side=8)
        a, b = model.mixture(model.times[0])
        exact = MEAN + SPREAD * (noise - a * MEAN) / math.sqrt(a**2 * SPREAD**2 + b**2)
        errors.append((end - exact).abs().max().item())
    assert errors[1] < min(0.03, errors[0] / 3)


@pytest.mark.parametrize("steps", [7, 40, 250])
def test_the_ancestral_sampler_is_exact_in_any_number_of_steps_because_it_uses_the_learned_variance(steps: int) -> None:
    end = solve("ancestral", EPSILON, steps)[1]
    assert end.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert end.std().item() == pytest.approx(SPREAD, rel=0.02)


def test_the_ancestral_step_has_the_mean_and_variance_of_the_formulas() -> None:
    """One step of ten against Nichol & Dhariwal's respaced chain in numpy."""
    solver = make_solver("ancestral", EPSILON, True, 10, CPU)
    cumprod = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[[int(t) for t in solver.times.flip(0)]]
    abar, previous = cumprod[6], cumprod[5]
    beta = 1 - abar / previous
    x, epsilon = torch.full((1, 4, 64, 64), 0.8), torch.full((1, 4, 64, 64), 0.3)
    after = solver.step(3, torch.cat([epsilon, torch.full_like(x, 0.4)], dim=1), x, generators(1))
    clean = (0.8 - math.sqrt(1 - abar) * 0.3) / math.sqrt(abar)
    mean = math.sqrt(previous) * beta / (1 - abar) * clean + math.sqrt(1 - beta) * (1 - previous) / (1 - abar) * 0.8
    variance = beta**0.7 * (beta * (1 - previous) / (1 - abar)) ** 0.3
    draw = torch.randn(1, 4, 64, 64, generator=generators(1)[0])
    torch.testing.assert_close(after, mean + math.sqrt(variance) * draw, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("sampler", "objective"), ALL)
def test_a_perfect_prediction_leads_to_the_picture_itself(sampler: str, objective: ObjectiveConfig) -> None:
    """What the objective calls its target is what the scheduler reads as such."""
    clean = torch.rand(1, 4, 4, 4, generator=torch.Generator().manual_seed(3)) * 2 - 1
    solver, chance = make_solver(sampler, objective, True, 5, CPU), generators(1)
    trained = make_objective(objective)
    x = trained.add_noise(clean, torch.randn(1, 4, 4, 4, generator=chance[0]), solver.times[:1])
    for index in range(5):
        time = solver.times[index : index + 1]
        zero, one = torch.zeros_like(x), torch.ones_like(x)
        share = trained.add_noise(zero, one, time)
        noise = (x - trained.add_noise(clean, zero, time)) / share
        target = trained.target(clean, noise, time)
        x = solver.step(index, torch.cat([target, -one], dim=1), x, chance)
    torch.testing.assert_close(x, clean, rtol=0, atol=2e-4)


@pytest.mark.parametrize("steps", [1, 7, 20])
@pytest.mark.parametrize(("sampler", "objective"), ALL)
def test_the_model_is_told_falling_times_from_the_noisiest_on(
    sampler: str, objective: ObjectiveConfig, steps: int
) -> None:
    times = make_solver(sampler, objective, True, steps, CPU).times
    assert len(times) == steps
    assert (times.diff() < 0).all()
    flow = objective.prediction == "flow"
    assert times.dtype == (torch.float32 if flow else torch.int64)
    assert times[0].item() == (1000 if sampler == "euler" else pytest.approx(999, abs=0.7))
    assert times[-1] >= 0


def test_the_shift_moves_steps_of_a_flow_towards_noise() -> None:
    plain, moved = (make_solver("euler", objective, False, 4, CPU).times / 1000 for objective in (FLOW, SHIFTED))
    assert plain.tolist() == pytest.approx([1, 0.75, 0.5, 0.25])
    torch.testing.assert_close(moved, 3 * plain / (1 + 2 * plain))


@pytest.mark.parametrize(
    ("sampler", "objective", "learn_sigma", "steps", "message"),
    [
        ("heun", EPSILON, True, 20, "'heun' is unknown. Use one of dpm, ddim, ancestral, euler"),
        ("dpm", EPSILON, True, 0, "0 sampling steps"),
        ("dpm", EPSILON, True, 1000, "Use 1 to 999"),
        ("euler", EPSILON, True, 20, "predicts epsilon. Use dpm or ddim or ancestral"),
        ("euler", VELOCITY, True, 20, "predicts v"),
        ("ddim", FLOW, False, 20, "predicts flow. Use dpm or euler"),
        ("ancestral", FLOW, False, 20, "predicts flow"),
        ("ancestral", EPSILON, False, 20, "learned the variance"),
    ],
)
def test_a_sampler_that_does_not_fit_is_refused_in_one_line(
    sampler: str, objective: ObjectiveConfig, learn_sigma: bool, steps: int, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        check_sampler(sampler, objective, learn_sigma, steps)
    assert "\n" not in str(caught.value)


def test_each_picture_s_noise_is_its_own_generator_s() -> None:
    def after(solver: Solver, chance: list[torch.Generator]) -> Tensor:
        x = torch.zeros(len(chance), 4, 4, 4)
        return solver.step(0, torch.zeros(len(chance), 8, 4, 4), x, chance)

    together = after(make_solver("ancestral", EPSILON, True, 10, CPU), generators(3))
    for b in range(3):
        alone = after(make_solver("ancestral", EPSILON, True, 10, CPU), generators(3)[b : b + 1])
        assert torch.equal(alone[0], together[b])

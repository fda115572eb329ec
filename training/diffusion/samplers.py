"""The samplers: diffusers' schedulers, set up for an objective and asked in one way.

dpm        DPM-Solver++, second-order multistep (Lu et al. 2022); for every objective
ddim       DDIM without noise (Song et al. 2020); epsilon and v
ancestral  DDPM's own chain with the learned variance (Nichol & Dhariwal 2021); epsilon and v
euler      Euler's method on the flow; flow matching
"""

from collections.abc import Sequence
from typing import Any, Final

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from schemas.errors import UserError
from training.diffusion.config import EPSILON, FLOW, VELOCITY, ObjectiveConfig
from training.diffusion.objective import FLOW_TIME
from training.diffusion.schedule import BETA_END, BETA_START, TIMESTEPS, Schedule, respaced

DPM: Final = "dpm"
DDIM: Final = "ddim"
ANCESTRAL: Final = "ancestral"
EULER: Final = "euler"

DEFAULT_STEPS: Final = {DPM: 20, DDIM: 50, ANCESTRAL: 100, EULER: 50}
"""Each sampler and how many steps it should have if nobody says."""

_PREDICTION_TYPES: Final = {EPSILON: "epsilon", VELOCITY: "v_prediction", FLOW: "flow_prediction"}


class Solver:
    """The steps from noise to latents. Made for one batch, and of use only once.

    `times` [steps] is what the model is told at each step: int64, or float32 under flow matching.
    """

    def __init__(self, scheduler: Any, times: Tensor, with_variance: bool) -> None:
        self.scheduler, self.times = scheduler, times
        self._with_variance = with_variance

    def step(self, index: int, output: Tensor, latents: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """The latents [B, C, H, W] after step `index`, from the model's `output` [B, C or 2C, H, W] for those before.

        generators: one a picture; only the ancestral sampler draws from them.
        """
        if not self._with_variance:
            output = output[:, : latents.shape[1]]
        # Timesteps on the host: schedulers look at them.
        options = {"generator": list(generators)} if self._with_variance else {}
        stepped = self.scheduler.step(output, self.scheduler.timesteps[index], latents, return_dict=False, **options)
        following: Tensor = stepped[0]
        return following


def make_solver(
    sampler: str, objective: ObjectiveConfig, learn_sigma: bool, steps: int, device: torch.device
) -> Solver:
    """`steps` steps of `sampler` for a model trained by `objective`, with variance channels if `learn_sigma`.

    Raises `UserError` as `check_sampler` does.
    """
    check_sampler(sampler, objective, learn_sigma, steps)
    if sampler == EULER:
        return _euler(objective, steps, device)
    if sampler == DPM:
        return _dpm(objective, steps, device)
    return _respaced(sampler, objective, steps, device)


def check_sampler(sampler: str, objective: ObjectiveConfig, learn_sigma: bool, steps: int) -> None:
    """Raise `UserError` if such a model cannot be sampled from by `sampler` in so many steps."""
    if sampler not in DEFAULT_STEPS:
        raise UserError(f"sampler {sampler!r} is unknown. Use one of {', '.join(DEFAULT_STEPS)}.")
    if not 1 <= steps < TIMESTEPS:
        raise UserError(f"{steps} sampling steps: the schedule cannot be cut so. Use 1 to {TIMESTEPS - 1}.")
    flow = objective.prediction == FLOW
    if sampler != DPM and flow != (sampler == EULER):
        fitting = (DPM, EULER) if flow else (DPM, DDIM, ANCESTRAL)
        raise UserError(
            f"sampler {sampler} is not for a model that predicts {objective.prediction}. Use {' or '.join(fitting)}."
        )
    if sampler == ANCESTRAL and not learn_sigma:
        raise UserError("sampler ancestral needs a model that learned the variance, and this has not. Use dpm or ddim.")


def dpm_scheduler(objective: ObjectiveConfig) -> DPMSolverMultistepScheduler:
    """The default sampler's scheduler, as it also goes into a pipeline's directory."""
    options: dict[str, Any] = {}
    if objective.prediction == FLOW:
        options = {"use_flow_sigmas": True, "flow_shift": objective.time_shift}
    if objective.zero_terminal_snr:
        options = {"rescale_betas_zero_snr": True}
    return DPMSolverMultistepScheduler(
        num_train_timesteps=TIMESTEPS,
        beta_start=BETA_START,
        beta_end=BETA_END,
        beta_schedule="linear",
        prediction_type=_PREDICTION_TYPES[objective.prediction],
        algorithm_type="dpmsolver++",
        solver_order=2,
        **options,
    )


def _dpm(objective: ObjectiveConfig, steps: int, device: torch.device) -> Solver:
    scheduler = dpm_scheduler(objective)
    scheduler.set_timesteps(steps)
    scheduler.set_begin_index(0)
    # The scheduler's own timesteps of a flow are cut to whole numbers.
    times = scheduler.sigmas[:-1] * FLOW_TIME if objective.prediction == FLOW else scheduler.timesteps
    return Solver(scheduler, times.to(device), with_variance=False)


def _euler(objective: ObjectiveConfig, steps: int, device: torch.device) -> Solver:
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=TIMESTEPS, shift=objective.time_shift)
    # Even steps before the shift. Left to itself, the scheduler shifts the last one twice.
    scheduler.set_timesteps(sigmas=[1 - index / steps for index in range(steps)])
    scheduler.set_begin_index(0)
    return Solver(scheduler, scheduler.timesteps.to(device), with_variance=False)


def _respaced(sampler: str, objective: ObjectiveConfig, steps: int, device: torch.device) -> Solver:
    """DDIM or the ancestral chain on a schedule of as many timesteps as there are steps, evenly from the last to 0.

    A scheduler that skips timesteps of the long schedule by itself takes each step by a fixed stride, which misses the
    next timestep where `steps` is no divisor, and never begins at the last, where all sampling begins.
    """
    schedule = Schedule(zero_terminal_snr=objective.zero_terminal_snr)
    kept = torch.linspace(TIMESTEPS - 1, 0, steps, dtype=torch.float64).round().long()
    options: dict[str, Any] = {
        "num_train_timesteps": steps,
        "trained_betas": respaced(schedule, kept.flip(0)).tolist(),
        "prediction_type": _PREDICTION_TYPES[objective.prediction],
        "clip_sample": False,
    }
    ancestral = sampler == ANCESTRAL
    scheduler = DDPMScheduler(**options, variance_type="learned_range") if ancestral else DDIMScheduler(**options)
    scheduler.set_timesteps(steps)
    return Solver(scheduler, kept.to(device), with_variance=ancestral)

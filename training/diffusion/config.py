"""What a model is trained to predict, as it is saved with the run and inside its weights."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from schemas.errors import UserError
from schemas.record import canonical_json, from_json

EPSILON: Final = "epsilon"
VELOCITY: Final = "v"
FLOW: Final = "flow"
PREDICTIONS: Final = (EPSILON, VELOCITY, FLOW)

UNIFORM: Final = "uniform"
LOGIT_NORMAL: Final = "logit-normal"
TIME_DENSITIES: Final = (UNIFORM, LOGIT_NORMAL)

METADATA_KEY: Final = "objective"


@dataclass(frozen=True, slots=True)
class ObjectiveConfig:
    """The paper's objective by default: epsilon, and a variance if the model has channels for one.

    Raises `UserError` for values that cannot be, or that do not go together.
    """

    prediction: str = EPSILON  # epsilon; v = sqrt(abar) epsilon - sqrt(1 - abar) x_0; flow = epsilon - x_0
    min_snr_gamma: float = 0.0  # epsilon and v: largest signal-to-noise ratio that counts (5 in its paper); 0 for none
    zero_terminal_snr: bool = False  # v: the last timestep is noise and nothing else
    time_density: str = UNIFORM  # flow: how the share of noise is drawn
    time_mean: float = 0.0  # flow, logit-normal: of logit(share of noise); above 0 means more noise
    time_std: float = 1.0  # flow, logit-normal: of the same
    time_shift: float = 1.0  # flow: see `objective.shifted`; above 1 means more noise, as larger pictures need

    def __post_init__(self) -> None:
        flow, zero = self.prediction == FLOW, self.zero_terminal_snr
        for holds, mistake in (
            (
                self.prediction in PREDICTIONS,
                f"prediction {self.prediction!r} is unknown. Use one of {', '.join(PREDICTIONS)}.",
            ),
            (
                self.time_density in TIME_DENSITIES,
                f"time density {self.time_density!r} is unknown. Use one of {', '.join(TIME_DENSITIES)}.",
            ),
            (0 <= self.min_snr_gamma < math.inf, f"min-SNR gamma {self.min_snr_gamma}: use a number from 0 up."),
            (0 < self.time_std < math.inf, f"time std {self.time_std}: use a number above 0."),
            (math.isfinite(self.time_mean), f"time mean {self.time_mean}: use a finite number."),
            (0 < self.time_shift < math.inf, f"time shift {self.time_shift}: use a number above 0."),
            (
                not zero or self.prediction == VELOCITY,
                "zero terminal SNR needs the v prediction: from pure noise, epsilon tells nothing of the picture, and "
                "flow matching ends in pure noise already. Use v, or leave it off.",
            ),
            (
                not (zero and self.min_snr_gamma),
                "min-SNR gives the last timestep of a zero-terminal-SNR schedule no weight at all, so sampling would "
                "start from an untrained step. Use one of the two.",
            ),
            (not (flow and self.min_snr_gamma), "min-SNR is no weight of flow matching. Use a time density instead."),
            (
                flow or (self.time_density, self.time_shift) == (UNIFORM, 1.0),
                "time density and time shift belong to flow matching. Leave them off, or use flow.",
            ),
            (
                self.time_density == LOGIT_NORMAL or (self.time_mean, self.time_std) == (0.0, 1.0),
                "time mean and time std are those of the logit-normal density. Leave them off, or choose it.",
            ),
        ):
            if not holds:
                raise UserError(f"objective: {mistake}")

    def check_model(self, learn_sigma: bool) -> None:
        """Raise `UserError` if a model with (or without) variance channels cannot be trained by it."""
        if self.prediction == FLOW and learn_sigma:
            raise UserError("objective: flow matching has no variance to learn. Use a model without it.")


def to_metadata(config: ObjectiveConfig) -> dict[str, str]:
    """What a weights file says about the objective that its model was trained by."""
    return {METADATA_KEY: canonical_json(dataclasses.asdict(config))}


def from_metadata(metadata: Mapping[str, str], where: str) -> ObjectiveConfig:
    """The objective of a weights file named by `where`; one that says nothing was trained on plain epsilon.

    Raises `SchemaError` if it says something else than an objective.
    """
    if METADATA_KEY not in metadata:
        return ObjectiveConfig()
    return from_json(ObjectiveConfig, metadata[METADATA_KEY], f"{where}: objective")

"""The whole configuration of a run, as it is saved in `run/config.json` and in each checkpoint.

`Recipe` is what decides the weights; a run is never resumed under another one. The rest of `RunConfig` (paths, batch
per device, cadence) may change from one start to the next.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Final

from schemas.errors import UserError
from training.data.mixture import Source
from training.data.policy import Policy
from training.diffusion.config import ObjectiveConfig
from training.models.config import DitConfig, PixArtConfig
from training.models.reading import Reading

PRECISIONS: Final = ("bf16", "fp32")
ON_CORRUPT: Final = ("stop", "skip")
POWER_WIDTHS: Final = (0.05, 0.10)  # the pair of EDM2 from which others are put together well
WIDEST_POWER_EMA: Final = math.sqrt(1 / 12)  # relative width of a plain mean over the whole run

CONSTANT: Final = "constant"
SQRT: Final = "sqrt"
LR_RULES: Final = (CONSTANT, SQRT)
"""The paper's rate for every batch size; or the released code's, which grows with its root (`scaled_rate`)."""

_REFERENCE_BATCH: Final = 256  # samples, for which the rates of the released configurations are meant


def scaled_rate(lr: float, rule: str, global_batch: int) -> float:
    """The learning rate that `rule` makes of `lr` at a global batch: itself, or lr * sqrt(global batch / 256).

    Raises `UserError` for an unknown rule, and for the root of a batch that has no fixed size (0).
    """
    if rule not in LR_RULES:
        raise UserError(f"--lr-rule {rule} is unknown. Use one of {', '.join(LR_RULES)}.")
    if rule == CONSTANT:
        return lr
    if not global_batch:
        raise UserError("--lr-rule sqrt needs a batch of one size. Give --global-batch in place of --tokens-per-batch.")
    return lr * math.sqrt(global_batch / _REFERENCE_BATCH)


@dataclass(frozen=True, slots=True)
class OptimiserConfig:
    """AdamW at a constant rate after a linear warm-up, as the released PixArt-α stage configurations have it.

    Weight decay applies to every parameter, biases and tables included, as there. `muon_lr` is the effective rate of
    Muon for the matrices of the blocks, by the same rule and warm-up; at 0 they are AdamW's, too.
    """

    lr: float = 2e-5  # the effective one, which `lr_rule` has made of the one that was asked for
    weight_decay: float = 0.03
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-10
    warmup_steps: int = 1000  # optimiser steps; 0 for none
    clip: float = 0.01  # global L2 norm of the gradient
    lr_rule: str = CONSTANT
    muon_lr: float = 0.0


@dataclass(frozen=True, slots=True)
class EmaConfig:
    """Exponential moving average of the weights. With warm-up the decay of step n is at most (1 + n) / (10 + n)."""

    decay: float = 0.9999
    warmup: bool = True
    power: tuple[float, ...] = ()  # relative widths of power-function averages beside it, see training.ema.PowerEma


@dataclass(frozen=True, slots=True)
class Recipe:
    """What decides the weights, and nothing else."""

    manifest_digest: str
    model: PixArtConfig | DitConfig
    init_digest: str  # xxh3_128 of the weights file that training starts from; empty where drawn at random
    seed: int
    policy: Policy
    precision: str  # bf16: autocast over float32 weights; fp32
    optimiser: OptimiserConfig
    ema: EmaConfig
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    stage: str = ""  # of training.stages, empty for none
    held_out: float = 0.0  # share of samples kept out of training, see training.data.held_out
    reading: Reading | None = None  # how a DiT becomes the PixArt that training starts from; None where none does

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UserError(f"precision {self.precision!r} is unknown. Use one of {', '.join(PRECISIONS)}.")
        learn, ema = self.optimiser, self.ema
        for holds, mistake in (
            (
                all(0 < std <= WIDEST_POWER_EMA for std in ema.power) and len({*ema.power}) == len(ema.power),
                f"--power-ema {' '.join(map(str, ema.power))}: use different widths above 0, at most 0.28.",
            ),
            (0 <= ema.decay <= 1, f"--ema-decay {ema.decay} is no share. Use a number from 0 to 1."),
            (0 < learn.lr < math.inf, f"--lr {learn.lr} is no learning rate. Use a number above 0."),
            (0 <= learn.muon_lr < math.inf, f"--muon-lr {learn.muon_lr}: use a rate above 0, or 0 for AdamW alone."),
            (learn.clip > 0, f"--clip {learn.clip} is no norm. Use a number above 0, or inf."),
            (0 <= learn.weight_decay < math.inf, f"--weight-decay {learn.weight_decay}: use a number from 0 up."),
            (learn.warmup_steps >= 0, f"--warmup {learn.warmup_steps} is negative. Use 0 for none."),
            (0 <= self.held_out < 1, f"--held-out {self.held_out} is no share. Use 0 for none, and less than 1."),
            (0 <= self.seed < 2**64, f"--seed {self.seed} does not fit. Use a whole number from 0 to 2**64 - 1."),
        ):
            if not holds:
                raise UserError(mistake)
        self.objective.check_model(self.model.learn_sigma)

    def differences(self, other: "Recipe") -> list[str]:
        """One phrase for each value that `other` has otherwise, empty if none."""
        mine, theirs = _flat(dataclasses.asdict(self)), _flat(dataclasses.asdict(other))
        names = [*mine, *(name for name in theirs if name not in mine)]
        changed = [name for name in names if mine.get(name) != theirs.get(name)]
        return [f"{name} was {mine.get(name)}, now {theirs.get(name)}" for name in changed]


@dataclass(frozen=True, slots=True)
class RunConfig:
    """One start of a run."""

    recipe: Recipe
    sources: tuple[Source, ...]
    out: str
    max_unmatched: float  # share of samples that may lack latents or text
    manifest_cache: str  # local directory for the joined data sets, shared by the ranks of a machine
    init_from: str  # weights file; empty for none
    steps: int
    micro_batch: int  # most samples a rank takes at a time
    device: str
    threads: int  # that read samples, per rank
    prefetch: int  # whole micro-batches read ahead, per rank
    log_every: int  # steps
    save_every: int  # steps
    keep_checkpoints: int
    max_skipped: int  # stop after as many steps in a row with a non-finite gradient
    on_corrupt: str = "stop"  # what to do about damaged samples: stop, or skip them
    max_corrupt: int = 100  # stop after more than so many skipped samples
    background: bool = True  # save while training goes on
    power_ema_every: int = 5000  # steps between snapshots that are kept of power-function averages
    cache: str = ""  # local directory for what is read from URLs, shared by the ranks of a machine; empty for none
    cache_gb: float = 100.0  # most that it may hold, in 10^9 bytes
    attention: str = "sdpa"  # back-end of cross-attention, see training.models.attention
    compile: bool = False  # the blocks, by torch.compile
    checkpoint_activations: bool = False  # the backward pass computes each block anew
    shard: bool = False  # split weights, averages and optimiser over the ranks
    deterministic: bool = False  # the same bits from the same start on CUDA too, see training.determinism
    validate_every: int = 0  # steps between looks at the held-out loss, 0 for none
    validate_samples: int = 256  # most held-out samples that are looked at
    grid_every: int = 0  # steps between pictures, 0 for none
    grid_prompts: str = ""  # file of pipelines.prompts
    grid_classes: tuple[int, ...] = ()  # in place of it, of a model of classes
    grid_vae: str = ""  # directory of the VAE that decodes them
    profile: tuple[int, ...] = ()  # first step to trace, and the one after the last; empty for none
    about: tuple[str, ...] = ()  # what the settings come to, in lines for people

    def __post_init__(self) -> None:
        if "://" in self.out:
            raise UserError(f"--out {self.out} is a URL; checkpoints need a local directory. Copy them afterwards.")
        if self.on_corrupt not in ON_CORRUPT:
            raise UserError(f"--on-corrupt {self.on_corrupt} is unknown. Use one of {', '.join(ON_CORRUPT)}.")
        if self.threads < 0 or self.max_corrupt < 0:
            raise UserError("--threads and --max-corrupt cannot be negative. Use 0 for none.")
        if not self.cache_gb > 0:
            raise UserError(f"--cache-gb {self.cache_gb} holds nothing. Use more, or leave out --cache.")
        self._check_watching()
        counts = ("steps", "micro_batch", "prefetch", "log_every", "save_every", "keep_checkpoints")
        for name in (*counts, "max_skipped", "power_ema_every"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} {getattr(self, name)} is too small. Use at least 1.")

    def _check_watching(self) -> None:
        classes, span = isinstance(self.recipe.model, DitConfig), self.profile
        for holds, mistake in (
            (self.validate_every >= 0 and self.grid_every >= 0, "--validate-every and --grid-every: use 0 for never."),
            (self.validate_samples >= 1, f"--validate-samples {self.validate_samples} is too small. Use at least 1."),
            (
                not self.validate_every or self.recipe.held_out > 0,
                "--validate-every needs samples that are not trained on. Hold some out, such as --held-out 0.01.",
            ),
            (
                not self.grid_every or (self.grid_vae and (self.grid_classes if classes else self.grid_prompts)),
                f"--grid-every needs --grid-vae and {'--grid-classes' if classes else '--grid-prompts'}. Give both.",
            ),
            (
                not span or (len(span) == 2 and 1 <= span[0] < span[1]),
                f"--profile {':'.join(map(str, span))}: give the first step and the one after the last, such as 20:25.",
            ),
        ):
            if not holds:
                raise UserError(mistake)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, tuple) and any(isinstance(item, dict) for item in value):
            value = {str(number): item for number, item in enumerate(value)}
        out |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return out

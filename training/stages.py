"""The paper's stages as data: what each trains on, from what, and with which numbers (PixArt-α, table 4).

Flags override single values; `Stage.describe` says which.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

from schemas.errors import UserError
from training.config import CONSTANT

PIXEL: Final = "pixel"

CLASSES: Final = "classes"
TEXT: Final = "text"

_BASES: Final = (256, 512, 1024, 2048)  # of the aspect-bucket tables; a bucket has 0.9 to 1 times their area


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of training. Batches and rates are the paper's, the rest is from the released stage configurations."""

    name: str
    about: str  # for people
    conditions: str  # CLASSES trains a DiT, TEXT a PixArt
    starts_from: tuple[str, ...]  # stages whose weights it may start from; always its own too
    resolution_px: int  # 0: whatever the data has
    multi_scale: bool  # aspect buckets are allowed, not squares alone
    steps: int
    global_batch: int
    micro_batch: int  # samples that a GPU takes at a time
    lr: float = 2e-5
    lr_rule: str = CONSTANT
    warmup_steps: int = 1000  # optimiser steps, whatever the number of ranks
    clip: float = 0.01
    micro_conditions: bool = False
    position_scale: float = 0.0  # divides the positions' coordinates; 0: 1 up to 512 px, 2 at 1024 px

    def describe(self, defaults: "Stage") -> str:
        """The values in one line; those that differ from `defaults` say so."""
        shown = [field.name for field in fields(self) if field.name not in _UNSHOWN]
        said = []
        for name in shown:
            value, usual = getattr(self, name), getattr(defaults, name)
            if name == "position_scale" and value == usual == 0:
                continue
            said.append(f"{_LABELS[name]} {_shown(value)}" + (f" (not {_shown(usual)})" if value != usual else ""))
        head = f"stage {self.name} ({self.about})" if self.name else "no stage"
        return f"{head}: {', '.join(said)}"

    def check_buckets(self, buckets: Sequence[tuple[int, int]]) -> None:
        """Raise `UserError` unless pictures of these heights and widths in pixels belong into the stage."""
        found = resolution(buckets)
        if self.resolution_px < 0:
            raise UserError(f"--resolution {self.resolution_px} is no number of pixels. The data has {found} px.")
        if self.resolution_px and found != self.resolution_px:
            raise UserError(
                f"stage {self.name} trains at {self.resolution_px} px, and the data has {found} px. Make latents with "
                f"pipelines.latents --size {self.resolution_px}, or ask for --resolution {found}."
            )
        odd = [f"{height}x{width}" for height, width in buckets if height != width]
        if odd and not self.multi_scale:
            raise UserError(
                f"stage {self.name} trains on squares, and the data has {len(odd)} aspect buckets such as {odd[0]} px. "
                f"Make latents with pipelines.latents --buckets square, or ask for --multi-scale."
            )

    def check_start(self, source: str, where: str) -> None:
        """Raise `UserError` if weights of the stage `source`, from the file `where`, are not to start from."""
        if self.name and source and source not in (self.name, *self.starts_from):
            wanted = " or ".join((*self.starts_from, self.name))
            raise UserError(
                f"{where}: weights of stage {source}, and stage {self.name} starts from {wanted}. Use such weights, or "
                f"leave out --stage."
            )


FREE: Final = Stage("", "any data", TEXT, (), 0, True, steps=150_000, global_batch=256, micro_batch=32)
"""What holds where no stage is asked for."""

STAGES: Final[dict[str, Stage]] = {
    stage.name: stage
    for stage in (
        Stage(PIXEL, "pixel dependency", CLASSES, (), 256, False, 300_000, 1024, 128),
        Stage("align", "text-image alignment", TEXT, (PIXEL,), 256, False, 150_000, 11_392, 178),
        Stage("aesthetic-256", "high aesthetics", TEXT, ("align",), 256, False, 90_000, 11_392, 178),
        Stage("aesthetic-512", "high aesthetics", TEXT, ("align", "aesthetic-256"), 512, True, 100_000, 2_560, 40),
        Stage(
            "aesthetic-1024",
            "high aesthetics",
            TEXT,
            ("aesthetic-512",),
            1024,
            True,
            16_000,
            384,
            12,
            micro_conditions=True,
            position_scale=2.0,
        ),
    )
}

_LABELS: Final = {
    "conditions": "conditioned on",
    "resolution_px": "px",
    "multi_scale": "aspect buckets",
    "steps": "steps",
    "global_batch": "global batch",
    "micro_batch": "a rank at a time",
    "lr": "lr",
    "lr_rule": "lr rule",
    "warmup_steps": "warm-up",
    "clip": "clip",
    "micro_conditions": "micro-conditions",
    "position_scale": "position scale",
}
_UNSHOWN: Final = ("name", "about", "starts_from")


def resolution(buckets: Sequence[tuple[int, int]]) -> int:
    """The base resolution in pixels of the largest bucket: that of its table, else the root of its area."""
    area = max(height * width for height, width in buckets)
    tabled = [base for base in _BASES if 0.89 * base**2 <= area <= base**2]
    return tabled[0] if tabled else round(area**0.5)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)

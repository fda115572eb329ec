"""The ways to read the paper on how a PixArt starts from a DiT; what each means stands in `reparameterise`."""

from dataclasses import dataclass
from typing import Final

from schemas.errors import UserError

SHARED: Final = ("first-block", "fresh")
"""(W, b) is the adaLN of DiT's block 0, whose modulation is then exact at every t if "without class" is zero; or drawn
anew with standard deviation 0.02."""

WITHOUT_CLASS: Final = ("zero", "null-class")
"""The class embedding is left out of DiT's condition; or it is that of the null class."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read the paper."""

    shared: str = "first-block"  # one of SHARED
    without_class: str = "zero"  # one of WITHOUT_CLASS
    timestep: int = 500

    def __post_init__(self) -> None:
        if self.shared not in SHARED:
            raise UserError(f"shared block {self.shared!r} is unknown. Use one of {', '.join(SHARED)}.")
        if self.without_class not in WITHOUT_CLASS:
            raise UserError(f"without class {self.without_class!r} is unknown. Use one of {', '.join(WITHOUT_CLASS)}.")
        if not 0 <= self.timestep < 1000:
            raise UserError(f"timestep {self.timestep} is none of the schedule. Use 0 to 999.")

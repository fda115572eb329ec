"""The datasets of a mixture: where each lies, and how it is used."""

import math
from dataclasses import dataclass
from fractions import Fraction

from schemas.errors import UserError


@dataclass(frozen=True, slots=True)
class Source:
    """One dataset of a mixture, as the user names it: directories or URLs, and a selection file, empty for none."""

    name: str
    latents: str
    text: tuple[str, ...]  # one a caption variant; none where classes are trained on
    flipped: str = ""  # latents of the same pictures, mirrored
    select: str = ""


@dataclass(frozen=True, slots=True)
class Share:
    """How one dataset of a mixture is used.

    `weight` is how often each of its samples is used an epoch: 1 once, 0.25 in every fourth epoch, 3 three times.
    `captions` are the weights of its caption variants, one a text dataset; they need not add up to 1, and there are
    none where classes are trained on. `flipped` is the share of uses that take the flipped latents, 0 where there are
    none.
    """

    name: str = ""
    weight: float = 1.0
    captions: tuple[float, ...] = (1.0,)
    flipped: float = 0.0

    def __post_init__(self) -> None:
        where = f"dataset {self.name}: " if self.name else ""
        for holds, mistake in (
            (0 < self.weight < math.inf, f"{where}weight {self.weight} must be above 0. Leave out what is not used."),
            (
                all(0 < weight < math.inf for weight in self.captions),
                f"{where}the weights of captions {list(self.captions)} must be above 0. Leave out what is not used.",
            ),
            (0 <= self.flipped <= 1, f"{where}flip {self.flipped} is no share. Use a number from 0 to 1."),
        ):
            if not holds:
                raise UserError(mistake)

    @property
    def exact_weight(self) -> Fraction:
        """The weight as the decimal number that was written, so that 0.1 is a tenth."""
        return Fraction(repr(self.weight))

"""How far each stream has been read by when: all weights of a mixture, as arithmetic on whole numbers."""

from fractions import Fraction
from typing import Final

from training.data.policy import Policy
from training.data.population import Population, Stratum

_BLOCK: Final = 1 << 16  # uses a block where the data is shuffled as a whole
_SMALLEST_BLOCK: Final = 1 << 12


class Clock:
    """Time in blocks. Epochs are cut into equally many, in each of which all streams go on by the same share.

    A dataset of weight w puts w times its samples into an epoch, taken on from where its stream stands: by the end of
    epoch e each of its strata of n samples has given floor(e w n) uses, at a weight of 0.5 half of its samples in turn.
    """

    def __init__(self, population: Population, policy: Policy) -> None:
        self._weights = [share.exact_weight for share in policy.datasets]
        self.strata: dict[int, list[Stratum]] = {}
        for stratum in sorted(population.strata, key=lambda s: (s.bucket, s.dataset)):
            self.strata.setdefault(stratum.bucket, []).append(stratum)
        uses = sum(self._weights[stratum.dataset] * stratum.size for stratum in population.strata)
        block = max(policy.shuffle_window, _SMALLEST_BLOCK) if policy.shuffle_window else _BLOCK
        self.blocks = max(1, round(uses / block))  # of an epoch

    def weight(self, stratum: Stratum) -> Fraction:
        """How often each sample of the stratum is used an epoch."""
        return self._weights[stratum.dataset]

    def uses(self, stratum: Stratum, block: int) -> int:
        """How many places of the stratum's stream come before `block`."""
        weight = self._weights[stratum.dataset]
        return block * weight.numerator * stratum.size // (weight.denominator * self.blocks)

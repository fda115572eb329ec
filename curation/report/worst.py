"""The worst samples: those that cannot be used, the most repetitive, and those the model was least sure of."""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow.compute as pc

from curation.report.chosen import ChosenSample, MeasuredSample, Nearest
from curation.report.edges import measured
from curation.report.samples import SampleIds
from schemas.status import USABLE_STATUSES

_OF_EACH: Final = 8
_OF_EACH_STATUS: Final = 3


@dataclass(frozen=True, slots=True)
class Worst:
    """The worst first. `unusable` has a few of each status; the others are over all rows that have the measure."""

    unusable: dict[str, tuple[ChosenSample, ...]]
    repetition: tuple[MeasuredSample, ...]
    compression: tuple[MeasuredSample, ...]
    logprob: tuple[MeasuredSample, ...]

    def samples(self) -> tuple[ChosenSample, ...]:
        """All of them."""
        by_status = [sample for few in self.unusable.values() for sample in few]
        return (*by_status, *(one.sample for one in (*self.repetition, *self.compression, *self.logprob)))


@dataclass(slots=True)
class WorstPass:
    """Gathers the worst samples while tables go by."""

    _unusable: dict[str, Nearest] = field(default_factory=dict)
    _repetition: Nearest = field(default_factory=lambda: Nearest(_OF_EACH))
    _compression: Nearest = field(default_factory=lambda: Nearest(_OF_EACH))
    _logprob: Nearest = field(default_factory=lambda: Nearest(_OF_EACH))

    def add(self, ids: SampleIds, table: Any) -> None:
        """Look at the captions of one unit."""
        statuses = table["status"]
        for status in pc.unique(statuses).to_pylist():
            if status not in USABLE_STATUSES:
                of_status = pc.equal(statuses, status).to_numpy()
                nearest = self._unusable.setdefault(status, Nearest(_OF_EACH_STATUS))
                nearest.add(np.where(of_status, 0.0, np.nan), ids, table)
        for name, nearest, sign in (
            ("repeated_4grams", self._repetition, -1),
            ("compression", self._compression, -1),
            ("mean_logprob", self._logprob, 1),
        ):
            values = measured(name, table)
            nearest.add(sign * values, ids, table, values)

    def worst(self) -> Worst:
        """What was gathered so far."""
        unusable = {status: nearest.samples() for status, nearest in sorted(self._unusable.items())}
        return Worst(unusable, self._repetition.kept(), self._compression.kept(), self._logprob.kept())

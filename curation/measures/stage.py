"""The measure stage: pictures of a shard in, one row of measures a readable picture out; no model."""

import dataclasses
import math
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final

from curation.execution.clock import PhaseClock
from curation.execution.stage import StageSpec, Unit
from curation.images.decode import DecodePolicy
from curation.images.reading import DecodedSample, RefusedRow, prepared_samples
from curation.measures.picture import MEASURED_SIDE, measure_picture
from curation.shards.target import Target
from curation.shards.unit_writer import UnitWriter
from curation.sources.base import JSON, Source
from schemas.dataset import table_path
from schemas.errors import UserError
from schemas.tables import MEASURES

_STAGE_VERSION: Final = 1
_AHEAD: Final = 16
_AT_LEAST: Final = (2 * MEASURED_SIDE, 2 * MEASURED_SIDE)


@dataclass(frozen=True, slots=True)
class MeasureStage:
    """Measures `source`'s pictures, and keeps the numbers that the source has of them."""

    target: Target
    source: Source
    policy: DecodePolicy = field(default_factory=DecodePolicy)
    decode_threads: int = 2

    def __post_init__(self) -> None:
        if self.decode_threads < 0:
            raise UserError("--decode-threads must not be negative.")
        if self.policy.min_side < 3:
            raise UserError(f"--min-side {self.policy.min_side}: sharpness needs at least 3 pixels.")

    @property
    def spec(self) -> StageSpec:
        """Who this stage is."""
        policy = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self.policy).items()}
        return StageSpec(
            name="measure",
            version=_STAGE_VERSION,
            schema=MEASURES,
            config={"source": {"name": self.source.name, "version": self.source.version}, "decode": policy},
        )

    def open(self) -> "MeasureWorker":
        """Nothing to load."""
        return MeasureWorker(self)


class MeasureWorker:
    """Measures in the threads that decode."""

    def __init__(self, stage: MeasureStage) -> None:
        self._stage = stage

    def process(self, unit: Unit, writer: UnitWriter, clock: PhaseClock) -> None:
        """Measure the unit."""
        stage = self._stage
        sink = writer.table(table_path(unit.name), MEASURES)
        rows = prepared_samples(
            stage.target,
            unit,
            stage.source,
            stage.policy,
            _row,
            at_least=_AT_LEAST,
            threads=stage.decode_threads,
            ahead=_AHEAD,
            clock=clock,
        )
        with closing(rows):
            for row in rows:
                if isinstance(row, RefusedRow):
                    writer.reject(row.key, row.reason, row.detail)
                else:
                    with clock.phase("write"):
                        sink.write([row | {"shard": unit.planned.shard}])
                    writer.keep(row["key"])

    def close(self) -> None:
        """Nothing to give back."""


def numbers_of(extra: Mapping[str, JSON]) -> dict[str, float]:
    """The numbers in a source's metadata, by name in order; what is nested, infinite or no number is left out."""
    numbers = {name: value for name, value in extra.items() if isinstance(value, int | float)}
    found = {name: _float(value) for name, value in sorted(numbers.items()) if not isinstance(value, bool)}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # JSON's integers have no limit
        return math.inf


def _row(read: DecodedSample) -> dict[str, Any]:
    return {
        "key": read.key,
        "width": read.decoded.original_width,
        "height": read.decoded.original_height,
        **dataclasses.asdict(measure_picture(read.decoded.image)),
        "extra": list(numbers_of(read.sample.extra).items()),
    }

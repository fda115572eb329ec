"""Run units one after the other in this process."""

from collections.abc import Iterable, Iterator

from curation.execution.run_unit import UnitDone, UnitFailed, run_unit
from curation.execution.stage import Stage, Unit, Worker
from curation.shards.target import Target
from curation.shards.unit_writer import UnitWriter


class InlineExecutor:
    """The executor for tests, debugging and laptops: no second process."""

    def __init__(self, attempts: int) -> None:
        self._attempts = attempts
        self._writer: UnitWriter | None = None

    @property
    def rows_in_flight(self) -> int:
        """Rows done in the unit under way."""
        writer = self._writer  # asked from the progress thread, while this one sets it to None
        return writer.rows_done if writer else 0

    def run(self, stage: Stage, target: Target, units: Iterable[Unit]) -> Iterator[UnitDone | UnitFailed]:
        """The outcome of each unit, in order. The model is loaded when the first unit comes."""
        worker: Worker | None = None
        try:
            for unit in units:
                worker = worker or stage.open()
                yield self._until_settled(stage, worker, target, unit)
        finally:
            if worker is not None:
                worker.close()

    def _until_settled(self, stage: Stage, worker: Worker, target: Target, unit: Unit) -> UnitDone | UnitFailed:
        attempt = 1
        while True:
            outcome = run_unit(stage, worker, target, unit, attempt, self._watch)
            self._writer = None
            if isinstance(outcome, UnitDone) or outcome.fatal is not None or attempt >= self._attempts:
                return outcome
            attempt += 1

    def _watch(self, writer: UnitWriter) -> None:
        self._writer = writer

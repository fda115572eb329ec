"""What a stage is: a description that is cheap to build and to send, and a worker that holds the model.

stage = CaptionStage(...)          # in the driver; no model loaded
worker = stage.open()              # once in each worker; loads the model
worker.process(unit, writer, clock)   # for each unit: every row is kept or refused in `writer`
"""

from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from curation.execution.clock import PhaseClock
from curation.shards.fingerprint import digest_of
from curation.shards.unit_writer import UnitWriter
from schemas.dataset import InputIdentity, PlannedUnit
from schemas.table import TableSchema

LEFT_OUT: Final = "the selection leaves it out"
"""The detail of every row that is refused as not_selected."""


@dataclass(frozen=True, slots=True)
class StageSpec:
    """Who a stage is and all that changes its output.

    `version` is raised by hand whenever the code of the stage changes what it writes. `config` holds every parameter
    that does (prompt, model id and weights digest, thresholds); never worker counts, batch sizes, paths or log levels.
    `facts` goes to dataset.json for readers; it must follow from `config`.
    """

    name: str
    version: int
    schema: TableSchema
    config: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """The digest of all that changes the output."""
        return digest_of(
            {
                "stage": self.name,
                "stage_version": self.version,
                "kind": self.schema.kind,
                "schema_version": self.schema.version,
                "config": self.config,
            }
        )


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit of work: rows [start, stop) of the input at `url`.

    `selected` are the keys of its shard that a selection took; the other rows are refused as not_selected, unread. None
    takes all. `again` says why it is due although it is whole and current, if it is.
    """

    planned: PlannedUnit
    url: str
    inputs: tuple[InputIdentity, ...]
    selected: frozenset[str] | None = None
    again: str = ""

    @property
    def name(self) -> str:
        """The unit's name: the base name of each of its outputs."""
        return self.planned.name

    def leaves_out(self, key: str) -> bool:
        """Whether a selection leaves out the row of `key`."""
        return self.selected is not None and key not in self.selected


class Worker(Protocol):
    """A stage with its model loaded. Lives in one process, works on one unit at a time."""

    def process(self, unit: Unit, writer: UnitWriter, clock: PhaseClock) -> None:
        """Read the unit's rows, and for each call `writer.keep` or `writer.reject` once.

        A bad row is a reject. An exception means that the unit as a whole failed and will be tried again.
        """

    def close(self) -> None:
        """Give back what is held."""


class Stage(Protocol):
    """Describes the work. Must be picklable."""

    @property
    def spec(self) -> StageSpec:
        """Who this stage is."""

    def open(self) -> Worker:
        """Load what the work needs. Raises `UserError` for what the user can mend."""

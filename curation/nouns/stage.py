"""The noun stage: captions of a unit in, its counts out, which add up."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from curation.execution.clock import PhaseClock
from curation.execution.stage import StageSpec, Unit
from curation.nouns.counting import CountingRules, NounCounter, count_texts
from curation.nouns.inputs import CaptionRow, caption_rows
from curation.nouns.per_image import per_image_table
from curation.nouns.tagger import Normalisation, Tagger, TaggerInfo, load_tagger
from curation.shards.sinks import TableSink
from curation.shards.unit_writer import UnitWriter
from schemas.dataset import table_path
from schemas.errors import UserError
from schemas.status import RejectReason
from schemas.tables import NOUN_TOTALS, NOUNS, NOUNS_PER_IMAGE

TOTALS_DIR: Final = "totals"
PER_IMAGE_DIR: Final = "per_image"

_STAGE_VERSION: Final = 1
_ROWS_AT_ONCE: Final = 2048


@dataclass(frozen=True, slots=True)
class NounStage:
    """Counts the nouns of `columns`. `tagger` is what `load_tagger` takes; `rules` what it turned out to be.

    With `per_image` the units are those of a captions dataset, and each also writes its rows of `NOUNS_PER_IMAGE`.
    """

    columns: tuple[str, ...]
    tagger: str | None
    rules: CountingRules
    per_image: bool = False

    @property
    def spec(self) -> StageSpec:
        """Who this stage is."""
        return StageSpec(
            name="nouns",
            version=_STAGE_VERSION,
            schema=NOUNS,
            config={
                "columns": list(self.columns),
                "tagger": dataclasses.asdict(self.rules.tagger),
                "normalisation": self.rules.normalisation.value,
                "counted": "tokens tagged NOUN or PROPN that have a letter",
                "per_image": self.per_image,
            },
        )

    def open(self) -> "NounWorker":
        """Load the tagger. Raises `UserError` if it is not the one that the job was planned with."""
        tagger = load_tagger(self.tagger, self.rules.normalisation)
        if tagger.info != self.rules.tagger:
            raise UserError(
                f"tagger {self.rules.tagger.name}: this worker has {tagger.info}, the job was planned with "
                f"{self.rules.tagger}. Install the same spaCy and pipeline everywhere."
            )
        return NounWorker(self, tagger)


class NounWorker:
    """A loaded tagger."""

    def __init__(self, stage: NounStage, tagger: Tagger) -> None:
        self._stage, self._tagger = stage, tagger

    def process(self, unit: Unit, writer: UnitWriter, clock: PhaseClock) -> None:
        """Count the unit's rows. A row that cannot be read is refused; a row without a caption counts as empty."""
        counter = NounCounter(self._stage.rules)
        for column in self._stage.columns:
            counter.add_empty(column, rows=0)
        sink = self._per_image_sink(unit, writer)
        rows = enumerate(caption_rows(unit.url, self._stage.columns, of_images=self._stage.per_image))
        while batch := self._read(rows, writer, clock):
            with clock.phase("model"):
                tagged = {
                    column: count_texts(
                        counter, column, [c for row in batch for c in row.captions[column]], self._tagger
                    )
                    for column in self._stage.columns
                }
            if sink is not None:
                with clock.phase("write"):
                    sink.write_table(per_image_table(batch, tagged))
        counts = counter.counts()
        with clock.phase("write"):
            writer.table(table_path(unit.name), NOUNS, row_per_key=False).write_table(counts.nouns)
            totals = writer.table(f"{TOTALS_DIR}/{table_path(unit.name)}", NOUN_TOTALS, row_per_key=False)
            totals.write_table(counts.totals)
        for name in ("captions", "empty", "nouns", "propns"):
            writer.count(name, sum(counts.total(column, name) for column in self._stage.columns))

    def close(self) -> None:
        """Nothing to give back."""

    def _per_image_sink(self, unit: Unit, writer: UnitWriter) -> TableSink | None:
        if not self._stage.per_image:
            return None
        return writer.table(f"{PER_IMAGE_DIR}/{table_path(unit.name)}", NOUNS_PER_IMAGE, row_per_key=False)

    def _read(self, rows: Any, writer: UnitWriter, clock: PhaseClock) -> list[CaptionRow]:
        """The next rows that can be read; empty at the end of the unit."""
        batch: list[CaptionRow] = []
        with clock.phase("read"):
            for number, row in rows:
                if row.fault:
                    writer.reject(str(number), RejectReason.BAD_METADATA, row.fault)
                    continue
                writer.keep(str(number))
                batch.append(row)
                if len(batch) == _ROWS_AT_ONCE:
                    break
        return batch


def rules_of(config: Mapping[str, Any]) -> CountingRules:
    """The counting rules in the `config` of a nouns dataset."""
    return CountingRules(TaggerInfo(**config["tagger"]), Normalisation(config["normalisation"]))

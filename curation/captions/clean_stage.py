"""Cleaning as a stage of its own: rows of a captions dataset in, the same rows judged by today's rules out.

`generated` and all that the engine said stay as they are; caption, status, flags, token count, measures and
rules_version are new. So rules can change without captioning again, and the output is a captions dataset like others.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from curation.captions.clean_duplicates import Hashes, is_repeated, load_repeated, read_rows
from curation.captions.quality import RULES, RULES_VERSION, Cleaned, gather, judge, measure
from curation.captions.quality_thresholds import Thresholds
from curation.captions.t5_counter import t5_counter
from curation.checkpoints import Checkpoint
from curation.execution.clock import PhaseClock
from curation.execution.stage import StageSpec, Unit
from curation.shards.target import Target
from curation.shards.unit_writer import UnitWriter
from schemas.dataset import table_path
from schemas.tables import CAPTIONS

STATUS_BEFORE: Final = "was"
STATUS_AFTER: Final = "status"
FLAG: Final = "flag"
"""The tallies of a ledger entry are these words, a space, and the status or flag."""

_STAGE_VERSION: Final = 1
_ROWS_AT_ONCE: Final = 1024
_RULE_NAMES: Final = frozenset(rule.name for rule in RULES)


@dataclass(frozen=True, slots=True)
class CleanStage:
    """Judges captions. `prompt` is the template that they answered, empty if unknown; `source` the configuration of the
    dataset that they come from, for readers."""

    target: Target
    thresholds: Thresholds
    prompt: str
    t5_tokenizer: Checkpoint | None
    source: Mapping[str, Any]

    @property
    def spec(self) -> StageSpec:
        """Who this stage is."""
        return StageSpec(
            name="clean",
            version=_STAGE_VERSION,
            schema=CAPTIONS,
            config={
                "rules_version": RULES_VERSION,
                "thresholds": dataclasses.asdict(self.thresholds),
                "prompt": self.prompt,
                "t5_tokenizer": self.t5_tokenizer.identity if self.t5_tokenizer else None,
            },
            facts={"captions": dict(self.source)},
        )

    def open(self) -> "CleanWorker":
        """Load the tokenizer, if there is one, and the repeated texts."""
        repeated = load_repeated(self.target) if self.thresholds.duplicate_rows else np.empty(0, np.uint64)
        return CleanWorker(self, t5_counter(self.t5_tokenizer), repeated)


class CleanWorker:
    """Judges units."""

    def __init__(self, stage: CleanStage, t5_tokens: Callable[[str], int] | None, repeated: Hashes) -> None:
        self._stage, self._t5_tokens, self._repeated = stage, t5_tokens, repeated

    def process(self, unit: Unit, writer: UnitWriter, clock: PhaseClock) -> None:
        """Judge the unit's rows, in order."""
        sink = writer.table(table_path(unit.name), CAPTIONS)
        with clock.phase("read"):
            table = read_rows(unit.url)
        for start in range(0, table.num_rows, _ROWS_AT_ONCE):
            with clock.phase("read"):
                rows = table.slice(start, _ROWS_AT_ONCE).to_pylist()
            with clock.phase("rules"):
                repeated = is_repeated([row["generated"] for row in rows], self._repeated)
                cleaned = [self._clean(row, again) for row, again in zip(rows, repeated, strict=True)]
            with clock.phase("write"):
                for row, verdict in zip(rows, cleaned, strict=True):
                    self._write(row, verdict, writer)
                    sink.write([row | _columns(row, verdict)])

    def close(self) -> None:
        """Nothing to give back."""

    def _clean(self, row: Mapping[str, Any], is_duplicate: bool) -> Cleaned:
        stage = self._stage
        seen = gather(
            row["generated"],
            row["finish_reason"],
            stage.thresholds,
            prompt=stage.prompt,
            mean_logprob=row["mean_logprob"],
        )
        known: int | None = row["n_t5_tokens"] if row["caption"] == seen.text else None
        tokens = known if self._t5_tokens is None else self._t5_tokens(seen.text)
        return judge(dataclasses.replace(seen, n_t5_tokens=tokens, is_duplicate=is_duplicate), stage.thresholds)

    def _write(self, row: Mapping[str, Any], verdict: Cleaned, writer: UnitWriter) -> None:
        writer.keep(row["key"])
        writer.count(f"{STATUS_BEFORE} {row['status']}")
        writer.count(f"{STATUS_AFTER} {verdict.status.value}")
        for flag in verdict.flags:
            writer.count(f"{FLAG} {flag}")


def _columns(row: Mapping[str, Any], verdict: Cleaned) -> dict[str, Any]:
    """The columns of `row` that judging it sets. Flags that are not the rules' stay."""
    others = {flag for flag in row["flags"] if flag not in _RULE_NAMES}
    return {
        "caption": verdict.text,
        "status": verdict.status.value,
        "flags": sorted(others | set(verdict.flags)),
        "n_t5_tokens": verdict.n_t5_tokens,
        **dataclasses.asdict(measure(row["generated"])),
        "rules_version": RULES_VERSION,
    }

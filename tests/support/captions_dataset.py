"""Captions datasets made of texts, as the captioning job would have written them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from curation.captions.quality import RULES_VERSION, clean, measure
from curation.shards.target import Target
from curation.shards.unit_writer import UnitWriter
from schemas.dataset import DATASET_FILE, PLAN_FILE, DatasetInfo, InputIdentity, PlannedUnit, PlanRecord, RunFacts
from schemas.dataset import table_path as path_of
from schemas.record import to_json
from schemas.tables import CAPTIONS

PROMPT = "Describe this image and its style in a very detailed manner"


def write_captions(folder: Path, shards: Mapping[str, Sequence[str]], unit_rows: int = 0, **of_row: Any) -> Path:
    """A captions dataset in `folder`: a row a text, `unit_rows` rows a unit (0: whole shards)."""
    target = Target(str(folder))
    config = {"prompt": PROMPT, "model": "files:abc"}
    info = DatasetInfo("captions", CAPTIONS.version, "caption", config, "f" * 32, "webdataset", "c0ffee", unit_rows)
    units = [unit for shard, texts in shards.items() for unit in _units(shard, len(texts), unit_rows)]
    target.write_text(DATASET_FILE, to_json(info))
    target.write_text(PLAN_FILE, to_json(PlanRecord(tuple(sorted(shards)), tuple(units))))
    for unit in units:
        with UnitWriter(target, unit, "caption") as writer:
            sink = writer.table(path_of(unit.name), CAPTIONS)
            for number in range(unit.start, unit.stop):
                row = caption_row(f"{number:03}", unit.shard, shards[unit.shard][number]) | of_row
                sink.write([row])
                writer.keep(row["key"])
            identity = InputIdentity(f"{unit.shard}.tar", 1, "0" * 32, "")
            writer.commit(info.fingerprint, (identity,), RunFacts(0.0, {}, 1, "", {}))
    return folder


def caption_row(key: str, shard: str, text: str) -> dict[str, Any]:
    """One row of the captions table whose generated text is `text`."""
    cleaned, measured = clean(text, "stop"), measure(text)
    return dict.fromkeys(CAPTIONS.arrow.names) | {
        "key": key,
        "shard": shard,
        "width": 640,
        "height": 480,
        "generated": text,
        "caption": cleaned.text,
        "status": cleaned.status.value,
        "flags": list(cleaned.flags),
        "finish_reason": "stop",
        "n_prompt_tokens": 600,
        "n_tokens": 10,
        "n_words": measured.n_words,
        "repeated_4grams": measured.repeated_4grams,
        "compression": measured.compression,
        "prompt_id": "p",
        "rules_version": RULES_VERSION,
        "seed": -1,
    }


def _units(shard: str, rows: int, unit_rows: int) -> list[PlannedUnit]:
    if not unit_rows:
        return [PlannedUnit(shard, shard, 0, rows)]
    starts = range(0, rows, unit_rows)
    return [PlannedUnit(f"{shard}-{n:05d}", shard, s, min(s + unit_rows, rows)) for n, s in enumerate(starts)]

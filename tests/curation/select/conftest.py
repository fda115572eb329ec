"""Small tables: a dataset written by the schemas, and plain Parquet files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.shards.target import Target
from curation.shards.unit_writer import UnitWriter
from schemas.dataset import DATASET_FILE, PLAN_FILE, DatasetInfo, PlannedUnit, PlanRecord, RunFacts, table_path
from schemas.record import to_json
from schemas.tables import MEASURES, NOUNS_PER_IMAGE

Rows = Sequence[dict[str, Any]]


@pytest.fixture
def write_measures(tmp_path: Path) -> Callable[..., str]:
    """`write_measures({"s0": [{"key": "a", "width": 3}, ...]})`: a measures dataset of a unit a shard."""

    def write(shards: dict[str, Rows], name: str = "measures", planned: Sequence[str] = ()) -> str:
        defaults = {"width": 640, "height": 480, "phash": None, "luma_mean": 1.0, "luma_std": 1.0, "sharpness": 1.0}
        target, schema = Target(str(tmp_path / name)), MEASURES
        tables = {
            shard: pa.Table.from_pylist(
                [{"shard": shard, "extra": [], **defaults, **row} for row in rows], schema.arrow
            )
            for shard, rows in shards.items()
        }
        _write(target, schema.kind, {}, tables, "", planned)
        return target.url

    return write


@pytest.fixture
def write_nouns(tmp_path: Path) -> Callable[..., str]:
    """`write_nouns({"s0": {"a": ["barn", "river"], ...}})`: a nouns dataset, the nouns being of the caption column."""

    def write(shards: dict[str, dict[str, list[str]]], name: str = "nouns") -> str:
        counts = {"propns": 0, "tokens": 9}
        tables = {
            shard: pa.Table.from_pylist(
                [
                    {"shard": shard, "key": key, "column": column, "nouns": len(words), "distinct": words, **counts}
                    for key, nouns in rows.items()
                    for column, words in (("raw_caption", ["photo"]), ("caption", nouns))
                ],
                NOUNS_PER_IMAGE.arrow,
            )
            for shard, rows in shards.items()
        }
        target = Target(str(tmp_path / name))
        _write(target, "nouns", {"columns": ["raw_caption", "caption"]}, tables, "per_image/", ())
        return target.url

    return write


@pytest.fixture
def write_file(tmp_path: Path) -> Callable[..., str]:
    """`write_file({"key": [...], ...}, row_group_size=2)`: a user's Parquet file."""

    def write(columns: dict[str, Any], name: str = "scores", **options: Any) -> str:
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table(columns), path, **options)
        return str(path)

    return write


def _write(
    target: Target, kind: str, config: dict[str, Any], tables: dict[str, pa.Table], folder: str, planned: Sequence[str]
) -> None:
    units = [PlannedUnit(shard, shard, 0, table.num_rows) for shard, table in tables.items()]
    later = [PlannedUnit(shard, shard, 0, 1) for shard in planned]
    info = DatasetInfo(kind, 1, kind, config, "f" * 32, "webdataset", "c0ffee", 0)
    target.write_text(DATASET_FILE, to_json(info))
    target.write_text(PLAN_FILE, to_json(PlanRecord(tuple(sorted(tables)), (*units, *later))))
    for unit, table in zip(units, tables.values(), strict=True):
        with UnitWriter(target, unit, kind) as writer:
            schema = NOUNS_PER_IMAGE if folder else MEASURES
            writer.table(folder + table_path(unit.name), schema, row_per_key=False).write_table(table)
            for row in range(table.num_rows):
                writer.keep(str(row))
            writer.commit(info.fingerprint, (), RunFacts(0.0, {}, 1, "", {}))

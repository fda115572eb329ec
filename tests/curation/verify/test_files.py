"""What a ledger says against what is there, of datasets that are one table."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curation.shards.target import Target
from curation.shards.unit_writer import UnitWriter
from curation.verify.dataset import check_dataset, open_any
from curation.verify.findings import Findings
from schemas.dataset import DATASET_FILE, DatasetInfo, PlannedUnit, RunFacts, ledger_path, table_path
from schemas.record import to_json
from schemas.tables import MEASURES

UNITS = {"s-00000": 0, "s-00001": 4}


@pytest.fixture
def measures(tmp_path: Path) -> Path:
    """Two units of four rows of one shard."""
    target, numbers = Target(str(tmp_path)), {"luma_mean": 1.0, "luma_std": 1.0, "sharpness": 1.0}
    target.write_text(DATASET_FILE, to_json(DatasetInfo("measures", 1, "measure", {}, "f", "webdataset", "m", 4)))
    for name, start in UNITS.items():
        with UnitWriter(target, PlannedUnit(name, "s", start, start + 4), "measure") as writer:
            sink = writer.table(table_path(name), MEASURES)
            for row in range(start, start + 4):
                size = {"width": 9, "height": 9, "phash": None, "extra": []}
                sink.write([{"key": str(row), "shard": "s", **size, **numbers}])
                writer.keep(str(row))
            writer.commit("f", [], RunFacts(1.0, {}, 1, "host", {}))
    return tmp_path


def found(root: Path) -> list[str]:
    """What a check says."""
    findings = Findings(lambda line: None)
    check_dataset(open_any(str(root)), findings, lambda done, total: None)
    return [finding.what for finding in findings.kept]


def test_a_whole_dataset_of_measures_is_clean(measures: Path) -> None:
    assert found(measures) == []


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (lambda e: e.update(start=2, stop=6), "units s-00000 and s-00001 overlap"),
        (lambda e: e.update(rows_in=5, rows_kept=5, stop=9), "4 rows in s-00001.parquet, expected 5"),
    ],
)
def test_a_ledger_of_measures_that_says_otherwise_is_wrong(
    measures: Path, edit: Callable[[dict[str, Any]], None], what: str
) -> None:
    path = measures / ledger_path("s-00001")
    entry = json.loads(path.read_text())
    edit(entry)
    path.write_text(json.dumps(entry))
    assert found(measures) == [what]

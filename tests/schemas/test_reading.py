import json
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.dataset import (
    DATASET_FILE,
    PLAN_FILE,
    DatasetInfo,
    LedgerEntry,
    OutputFile,
    PlannedUnit,
    PlanRecord,
    RunFacts,
    ledger_path,
)
from schemas.errors import DatasetError, SchemaError, UserError
from schemas.reading import open_dataset, read_info, read_ledger, read_plan
from schemas.record import to_json
from schemas.table import Column, TableSchema

TABLE = TableSchema("things", 1, (Column("key", pa.string(), "name"),))
UNITS = ("a-00000", "a-00001", "b-00000")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A whole data set of three units of two rows."""
    root = tmp_path / "things"
    (root / "ledger").mkdir(parents=True)
    info = DatasetInfo("things", 1, "copy", {"a": 1}, "f1", "test", "id", 2)
    (root / DATASET_FILE).write_text(to_json(info))
    planned = tuple(PlannedUnit(unit, unit[0], 0, 2) for unit in UNITS)
    (root / PLAN_FILE).write_text(to_json(PlanRecord(("a", "b"), planned)))
    for unit in planned:
        rows = [{"key": f"{unit.name}/{i}"} for i in range(2)]
        pq.write_table(pa.Table.from_pylist(rows, schema=TABLE.arrow), root / f"{unit.name}.parquet")
        size = (root / f"{unit.name}.parquet").stat().st_size
        output = OutputFile(f"{unit.name}.parquet", size, "", 2)
        facts = RunFacts(0.0, {}, 1, "", {})
        entry = LedgerEntry(unit.name, unit.shard, 0, 2, "f1", (), 2, 2, {}, {}, (output,), facts)
        (root / ledger_path(unit.name)).write_text(to_json(entry))
    return root


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def faults(root: Path) -> tuple[str, ...]:
    found = open_dataset(str(root), "things")
    if found.faults:
        with pytest.raises(DatasetError, match=r"Run pipelines.copy again to renew them"):
            found.require_whole()
    return found.faults


def test_a_whole_dataset_is_read_in_order_of_unit(dataset: Path) -> None:
    found = open_dataset(str(dataset), "things").require_whole()
    assert [entry.unit for entry in found.entries] == list(UNITS)
    keys = [key for table in found.tables(TABLE) for key in table["key"].to_pylist()]
    assert keys == [f"{unit}/{i}" for unit in UNITS for i in range(2)]


def test_units_come_in_order_of_their_names_and_not_of_their_file_names(dataset: Path) -> None:
    edit(dataset / "ledger/a-00000.json", unit="a")
    (dataset / "ledger/a-00000.json").rename(dataset / "ledger/a.json")
    assert [entry.unit for entry in read_ledger(str(dataset)).entries] == ["a", "a-00001", "b-00000"]


def test_a_unit_without_a_ledger_entry_does_not_exist(dataset: Path) -> None:
    (dataset / ledger_path("a-00001")).unlink()
    assert faults(dataset) == ("a-00001: not made yet",)
    assert [entry.unit for entry in open_dataset(str(dataset), "things").entries] == ["a-00000", "b-00000"]


def test_a_unit_made_under_other_settings_is_stale(dataset: Path) -> None:
    edit(dataset / ledger_path("a-00000"), fingerprint="f0")
    assert faults(dataset) == ("a-00000: made under other settings",)


def test_a_table_that_was_damaged_in_place_is_told_in_one_line(dataset: Path) -> None:
    path = dataset / "a-00001.parquet"
    content = bytearray(path.read_bytes())
    content[4:60] = bytes(byte ^ 0x5A for byte in content[4:60])
    path.write_bytes(content)
    found = open_dataset(str(dataset), "things").require_whole()
    with pytest.raises(DatasetError, match=r"a-00001\.parquet: cannot be read \([^\n]*run pipelines\.copy again\.$"):
        list(found.tables(TABLE))


def test_a_missing_and_a_resized_output_are_reported(dataset: Path) -> None:
    (dataset / "a-00000.parquet").unlink()
    path = dataset / "b-00000.parquet"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    assert faults(dataset) == (
        "a-00000: a-00000.parquet is missing",
        f"b-00000: b-00000.parquet has {size - 1} bytes, expected {size}",
    )


@pytest.mark.parametrize("content", [b"", b"{", bytes(100), b"\xff\xff", b"[]", b'{"unit": "a-00000"}'])
def test_a_damaged_ledger_entry_costs_its_unit_and_no_other(dataset: Path, content: bytes) -> None:
    (dataset / ledger_path("a-00000")).write_bytes(content)
    assert faults(dataset) == ("a-00000: its ledger entry is damaged",)
    assert len(open_dataset(str(dataset), "things").entries) == 2


def test_shards_that_were_never_read_are_reported(dataset: Path) -> None:
    edit(dataset / PLAN_FILE, shards=["a", "b", "c"])
    assert faults(dataset) == ("c: not read yet",)


def test_many_faults_are_summed_up_in_one_line(dataset: Path) -> None:
    for unit in UNITS:
        (dataset / ledger_path(unit)).unlink()
    edit(dataset / PLAN_FILE, shards=["a", "b", "c", "d"])
    with pytest.raises(DatasetError, match=r"5 units are not usable: .*; .*; .* \(and 2 more\)\. Run") as error:
        open_dataset(str(dataset), "things").require_whole()
    assert "\n" not in str(error.value)


def test_a_dataset_without_any_unit_is_not_whole(dataset: Path) -> None:
    for unit in UNITS:
        (dataset / ledger_path(unit)).unlink()
    (dataset / PLAN_FILE).unlink()
    with pytest.raises(DatasetError, match=r"no finished unit. Run pipelines.copy first"):
        open_dataset(str(dataset), "things").require_whole()


def test_temporary_files_and_strangers_in_the_ledger_are_no_entries(dataset: Path) -> None:
    for name in (".a-00009.json.tmp-host-1-2-ab", "notes.txt", ".hidden.json"):
        (dataset / "ledger" / name).write_text("x")
    assert faults(dataset) == ()


def test_another_kind_is_named(dataset: Path) -> None:
    with pytest.raises(DatasetError, match=r"a things dataset, expected captions. Point at the right directory"):
        open_dataset(str(dataset), "captions")


def test_a_directory_that_is_no_dataset_is_said_to_be_none(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DatasetError, match=r"no latentmill dataset. Check the path"):
            open_dataset(str(path), "things")
    assert read_info(str(tmp_path)) is None
    assert read_plan(str(tmp_path)) == PlanRecord((), ())


def test_another_layout_is_told_even_where_its_keys_are_unknown(dataset: Path) -> None:
    edit(dataset / DATASET_FILE, layout_version=2, colour="blue")
    with pytest.raises(DatasetError, match=r"dataset layout v2, this latentmill reads v1"):
        open_dataset(str(dataset), "things")


def test_an_unknown_key_of_this_layout_is_an_error(dataset: Path) -> None:
    edit(dataset / DATASET_FILE, colour="blue")
    with pytest.raises(SchemaError, match=r"unknown keys colour"):
        open_dataset(str(dataset), "things")


@pytest.mark.parametrize("content", [b"", b"{", bytes(10), b"\xff"])
def test_a_damaged_dataset_file_is_told_in_one_line(dataset: Path, content: bytes) -> None:
    (dataset / DATASET_FILE).write_bytes(content)
    with pytest.raises(DatasetError, match=r"dataset.json: damaged, not valid JSON"):
        open_dataset(str(dataset), "things")


def test_a_table_that_drifted_is_refused_when_its_unit_is_read(dataset: Path) -> None:
    path = dataset / "a-00001.parquet"
    drifted = pa.table({"key": pa.nulls(2)}).replace_schema_metadata(TABLE.arrow.metadata)
    pq.write_table(drifted, path)
    edit(
        dataset / ledger_path("a-00001"),
        outputs=[{"path": path.name, "bytes": path.stat().st_size, "digest": "", "rows": 2}],
    )
    tables = open_dataset(str(dataset), "things").tables(TABLE)
    next(tables)
    with pytest.raises(SchemaError, match=r"a-00001.parquet: columns differ.*key: null, expected string"):
        next(tables)


def test_a_dataset_behind_a_url_is_read_alike(dataset: Path) -> None:
    fs = fsspec.filesystem("memory")
    fs.put(str(dataset), "/reading/things", recursive=True)
    try:
        found = open_dataset("memory://reading/things", "things").require_whole()
        assert sum(table.num_rows for table in found.tables(TABLE)) == 6
    finally:
        fs.rm("/reading", recursive=True)


@pytest.mark.parametrize("url", ["nonsense://a/b", "hdfs-of-yore://x"])
def test_an_unknown_protocol_is_told_in_one_line(url: str) -> None:
    with pytest.raises(UserError, match=r"Protocol not known.*Use a local path, or install"):
        open_dataset(url, "things")

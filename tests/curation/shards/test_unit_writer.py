import gc
import json
import os
import resource
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.shards.sinks import ConservationError
from curation.shards.tar_scan import scan_tar
from curation.shards.target import Target
from curation.shards.unit_writer import UnitWriter
from schemas.dataset import InputIdentity, LedgerEntry, PlannedUnit, RunFacts
from schemas.errors import StorageError
from schemas.record import from_json
from schemas.status import RejectReason
from schemas.table import Column, TableSchema
from schemas.tables import REJECTS

TABLE = TableSchema("things", 1, (Column("key", pa.string(), "name"), Column("size", pa.int32(), "bytes")))
UNIT = PlannedUnit("a-00000", "a", 0, 4)
INPUTS = (InputIdentity("a", 100, "d", "1"),)
FACTS = RunFacts(0.5, {"decode": 0.1}, 1, "host", {})


def write_unit(target: Target, rejected: int = 0, unit: PlannedUnit = UNIT) -> LedgerEntry:
    """A unit whose last `rejected` rows are refused."""
    with UnitWriter(target, unit, "copy") as writer:
        table, tar = writer.table(f"{unit.name}.parquet", TABLE), writer.tar(f"{unit.name}.tar")
        for row in range(unit.start, unit.stop):
            if row >= unit.stop - rejected:
                writer.reject(f"k{row}", RejectReason.CORRUPT, "why")
                continue
            table.write([{"key": f"k{row}", "size": row}])
            tar.add(f"k{row}", "npy", bytes(row))
            writer.keep(f"k{row}")
            writer.count("even", row % 2 == 0)
        return writer.commit("f1", INPUTS, FACTS)


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_a_unit_is_its_outputs_its_rejects_and_its_ledger_entry(tmp_path: Path) -> None:
    entry = write_unit(Target(str(tmp_path)), rejected=1)
    assert files(tmp_path) == ["a-00000.parquet", "a-00000.tar", "ledger/a-00000.json", "rejects/a-00000.parquet"]
    assert from_json(LedgerEntry, (tmp_path / "ledger/a-00000.json").read_bytes(), "x") == entry
    assert (entry.rows_in, entry.rows_kept, entry.rejected, entry.counts) == (4, 3, {"corrupt": 1}, {"even": 2})
    assert [(o.path, o.rows) for o in entry.outputs] == [
        ("a-00000.parquet", 3),
        ("a-00000.tar", 3),
        ("rejects/a-00000.parquet", 1),
    ]
    assert all((tmp_path / o.path).stat().st_size == o.bytes for o in entry.outputs)
    rejects = pq.read_table(tmp_path / "rejects/a-00000.parquet")
    REJECTS.check(rejects.schema, "rejects")
    assert rejects.to_pylist() == [
        {"key": "k3", "shard": "a", "stage": "copy", "reason": "corrupt", "detail": "why"},
    ]


def test_measures_are_in_the_entry_and_an_entry_from_before_there_were_any_has_none(tmp_path: Path) -> None:
    target, path = Target(str(tmp_path)), tmp_path / "ledger/a-00000.json"
    with UnitWriter(target, PlannedUnit("a-00000", "a", 0, 0), "copy") as writer:
        writer.measure("codec_relative_l2", 0.0059)
        entry = writer.commit("f1", INPUTS, FACTS)
    assert from_json(LedgerEntry, path.read_bytes(), "x").measures == entry.measures == {"codec_relative_l2": 0.0059}
    old = json.loads(path.read_text())
    del old["measures"]
    assert from_json(LedgerEntry, json.dumps(old), "x").measures == {}


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    first = write_unit(Target(str(tmp_path / "one")), rejected=2)
    assert write_unit(Target(str(tmp_path / "two")), rejected=2) == first
    for name in files(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def spoilt(target: Target, spoil: str) -> None:
    with UnitWriter(target, UNIT, "copy") as writer:
        table, tar = writer.table("a-00000.parquet", TABLE), writer.tar("a-00000.tar")
        for row in range(4):
            if spoil == "lost row" and row == 2:
                continue
            writer.keep(f"k{row}")
            if spoil != "lost in table" or row != 2:
                table.write([{"key": f"k{row}", "size": row}])
            if spoil != "lost in tar" or row != 2:
                tar.add(f"k{row}", "npy", b"x")
        if spoil == "one too many":
            writer.reject("k9", RejectReason.CORRUPT, "")
        if spoil == "kept twice":
            writer.keep("k1")
        if spoil == "kept and refused":
            writer.reject("k1", RejectReason.CORRUPT, "")
        if spoil == "undeclared column":
            table.write([{"key": "k", "size": 1, "colour": 2}])
        if spoil == "lacking column":
            table.write([{"key": "k"}])
        if spoil == "output twice":
            writer.table("a-00000.parquet", TABLE)
        writer.commit("f1", INPUTS, FACTS)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("lost row", "4 rows in, but 3 kept + 0 rejected"),
        ("one too many", "4 rows in, but 4 kept + 1 rejected"),
        ("kept twice", "key 'k1' was counted twice"),
        ("kept and refused", "key 'k1' was counted twice"),
        ("lost in table", "4 rows kept, but 3 in a-00000.parquet"),
        ("lost in tar", "4 rows kept, but 3 in a-00000.tar"),
        ("undeclared column", "row has columns ['colour', 'key', 'size'], not ['key', 'size']"),
        ("lacking column", "row has columns ['key'], not ['key', 'size']"),
        ("output twice", "output a-00000.parquet was opened twice"),
    ],
)
def test_rows_that_do_not_add_up_are_never_published(tmp_path: Path, spoil: str, message: str) -> None:
    with pytest.raises(ConservationError) as error:
        spoilt(Target(str(tmp_path)), spoil)
    assert message in str(error.value)
    assert files(tmp_path) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_nothing_is_left_after_an_exception(tmp_path: Path, error: type[BaseException]) -> None:
    def fail() -> None:
        with UnitWriter(Target(str(tmp_path)), UNIT, "copy") as writer:
            writer.table("a-00000.parquet", TABLE).write([{"key": str(i), "size": i} for i in range(5000)])
            writer.tar("a-00000.tar").add("k", "npy", b"x" * 100_000)
            raise error

    with pytest.raises(error):
        fail()
    gc.collect()  # a Parquet writer that is collected writes its last words
    assert files(tmp_path) == []


def test_no_file_stays_open(tmp_path: Path) -> None:
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("open files cannot be counted here")
    before = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        write_unit(Target(str(tmp_path / str(number))))
        with pytest.raises(ConservationError):
            spoilt(Target(str(tmp_path / "spoilt")), "lost row")
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_the_rejects_of_an_earlier_attempt_go_when_a_redo_has_none(tmp_path: Path) -> None:
    write_unit(Target(str(tmp_path)), rejected=2)
    write_unit(Target(str(tmp_path)))
    assert files(tmp_path) == ["a-00000.parquet", "a-00000.tar", "ledger/a-00000.json"]


def test_the_ledger_entry_goes_first_and_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    publish, remove = Target.publish, Target.remove

    def seen_publish(self: Target, temporary: str, relative: str) -> None:
        events.append(f"put {relative}")
        publish(self, temporary, relative)

    def seen_remove(self: Target, relative: str) -> None:
        events.append(f"take {relative}")
        remove(self, relative)

    monkeypatch.setattr(Target, "publish", seen_publish)
    monkeypatch.setattr(Target, "remove", seen_remove)
    write_unit(Target(str(tmp_path)), rejected=1)
    assert events == [
        "take ledger/a-00000.json",
        "put a-00000.parquet",
        "put a-00000.tar",
        "put rejects/a-00000.parquet",
        "put ledger/a-00000.json",
    ]


@pytest.mark.parametrize(
    "dies_at", ["a-00000.parquet", "a-00000.tar", "rejects/a-00000.parquet", "ledger/a-00000.json"]
)
def test_a_redo_that_ends_between_two_files_leaves_no_valid_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    target = Target(str(tmp_path))
    write_unit(target, rejected=1)
    publish = Target.publish

    def die(self: Target, temporary: str, relative: str) -> None:
        if relative == dies_at:
            raise KeyboardInterrupt
        publish(self, temporary, relative)

    monkeypatch.setattr(Target, "publish", die)
    with pytest.raises(KeyboardInterrupt):
        write_unit(target, rejected=2)
    assert "ledger/a-00000.json" not in files(tmp_path)
    assert not [name for name in files(tmp_path) if ".tmp-" in name]
    monkeypatch.setattr(Target, "publish", publish)
    assert write_unit(target, rejected=2).rows_kept == 2
    assert pq.read_metadata(tmp_path / "a-00000.parquet").num_rows == 2


def test_a_unit_without_rows_is_whole(tmp_path: Path) -> None:
    entry = write_unit(Target(str(tmp_path)), unit=PlannedUnit("e", "e", 0, 0))
    assert (entry.rows_in, entry.rows_kept, [o.rows for o in entry.outputs]) == (0, 0, [0, 0])
    assert (tmp_path / "e.tar").read_bytes() == bytes(1024)


def test_a_detail_is_one_line_that_can_be_stored_whatever_it_holds(tmp_path: Path) -> None:
    with UnitWriter(Target(str(tmp_path)), PlannedUnit("a", "a", 0, 1), "copy") as writer:
        writer.table("a.parquet", TABLE)
        writer.reject("k", RejectReason.CORRUPT, "two\nlines\t and caf\udce9")
        writer.commit("f1", INPUTS, FACTS)
    assert pq.read_table(tmp_path / "rejects/a.parquet")["detail"].to_pylist() == ["two lines and caf\\udce9"]


def test_a_table_may_have_other_rows_than_keys_where_it_says_so(tmp_path: Path) -> None:
    with UnitWriter(Target(str(tmp_path)), PlannedUnit("a", "a", 0, 1), "copy") as writer:
        table = writer.table("a.parquet", TABLE, row_per_key=False)
        table.write([{"key": str(i), "size": i} for i in range(2500)])
        table.write_table(pa.table({"key": ["z"], "size": pa.array([1], pa.int32())}))
        writer.keep("k")
        entry = writer.commit("f1", INPUTS, FACTS)
    assert entry.outputs[0].rows == 2501
    found = pq.ParquetFile(tmp_path / "a.parquet")
    TABLE.check(found.schema_arrow, "a")
    assert [found.metadata.row_group(i).num_rows for i in range(4)] == [1024, 1024, 452, 1]


def test_a_key_with_dots_is_found_again_through_its_offset(tmp_path: Path) -> None:
    with UnitWriter(Target(str(tmp_path)), PlannedUnit("a", "a", 0, 2), "copy") as writer:
        tar = writer.tar("a.tar")
        places = [tar.add(key, "latent.npy", key.encode()) for key in ("d/v1.5", "d/v1")]
        for key in ("d/v1.5", "d/v1"):
            writer.keep(key)
        writer.commit("f1", INPUTS, FACTS)
    data = (tmp_path / "a.tar").read_bytes()
    assert [data[o : o + n] for o, n in places] == [b"d/v1.5", b"d/v1"]
    with (tmp_path / "a.tar").open("rb") as file:
        assert [m.name for m in scan_tar(file, "a").members] == ["d/v1%2E5.latent.npy", "d/v1.latent.npy"]


def write_much(target: Target, bytes_a_member: int = 60_000) -> None:
    with UnitWriter(target, UNIT, "copy") as writer:
        table, tar = writer.table("a-00000.parquet", TABLE), writer.tar("a-00000.tar")
        for row in range(4):
            table.write([{"key": os.urandom(20_000).hex(), "size": row}])
            tar.add(f"k{row}", "npy", os.urandom(bytes_a_member))
            writer.keep(f"k{row}")
        writer.commit("f1", INPUTS, FACTS)


def test_a_disk_that_fills_up_ends_in_one_line_and_without_a_trace(small_disk: Path) -> None:
    target = Target(str(small_disk))
    with pytest.raises(StorageError, match=r"the disk is full"):
        write_much(target)
    gc.collect()
    assert files(small_disk) == []
    write_unit(target)


def test_a_disk_that_fills_up_before_the_ledger_entry_leaves_none(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, write_text = Target(str(small_disk)), Target.write_text

    def on_a_full_disk(self: Target, relative: str, text: str) -> None:
        with suppress(OSError), (small_disk / "full").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        write_text(self, relative, text)

    monkeypatch.setattr(Target, "write_text", on_a_full_disk)
    with pytest.raises(StorageError, match=r"ledger/a-00000.json: the disk is full"):
        write_unit(target)
    assert files(small_disk) == ["a-00000.parquet", "a-00000.tar", "full"]
    monkeypatch.undo()
    (small_disk / "full").unlink()
    write_unit(target)
    assert files(small_disk) == ["a-00000.parquet", "a-00000.tar", "ledger/a-00000.json"]


@pytest.mark.parametrize("limit", [1, 2000, 60_000, 140_000])
def test_a_limit_on_file_size_ends_in_one_line_and_without_a_trace(tmp_path: Path, limit: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(StorageError, match=r"larger than this process may write"):
            write_much(Target(str(tmp_path)))
        gc.collect()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(tmp_path) == []


def test_another_file_system_gets_the_same_files(
    tmp_path: Path, memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    write_unit(Target(memory_url), rejected=2)
    write_unit(Target(memory_url), rejected=1)
    write_unit(Target(str(tmp_path / "local")), rejected=1)
    fs, target = fsspec.filesystem("memory"), Target(memory_url)
    found: dict[str, Any] = {p.removeprefix(target.root + "/"): fs.cat_file(p) for p in fs.find(memory_url)}
    local = tmp_path / "local"
    assert found == {name: (local / name).read_bytes() for name in files(local)}
    assert json.loads(found["ledger/a-00000.json"])["rows_kept"] == 3
    write_unit(Target(memory_url))
    assert not fs.exists(target.path("rejects/a-00000.parquet"))
    with pytest.raises(ConservationError):
        spoilt(Target(memory_url), "lost row")
    assert files(tmp_path / "temporary") == []


def go_on(target: Target, before: LedgerEntry, carried: int) -> LedgerEntry:
    """The unit again, with the first `carried` outputs of `before` as they are and k3 new, which was refused."""
    with UnitWriter(target, UNIT, "copy") as writer:
        writer.go_on([o for o in before.outputs if "rejects" not in o.path][:carried])
        table, tar = writer.table("a-00000-more.parquet", TABLE), writer.tar("a-00000-more.tar")
        for row in range(3):
            writer.keep(f"k{row}")
        table.write([{"key": "k3", "size": 3}])
        tar.add("k3", "npy", b"3")
        writer.keep("k3")
        return writer.commit("f1", INPUTS, FACTS)


def test_a_unit_that_goes_on_names_its_old_outputs_beside_the_new_ones(tmp_path: Path) -> None:
    target = Target(str(tmp_path))
    before = write_unit(target, rejected=1)
    old = {path: (tmp_path / path).read_bytes() for path in ("a-00000.tar", "a-00000.parquet")}
    entry = go_on(target, before, carried=2)
    assert [(o.path, o.rows) for o in entry.outputs] == [
        ("a-00000-more.parquet", 1),
        ("a-00000-more.tar", 1),
        ("a-00000.parquet", 3),
        ("a-00000.tar", 3),
    ]
    assert (entry.rows_kept, entry.rejected) == (4, {})
    assert not (tmp_path / "rejects/a-00000.parquet").exists()
    assert all((tmp_path / path).read_bytes() == content for path, content in old.items())


def test_rows_that_are_neither_carried_on_nor_new_are_noticed(tmp_path: Path) -> None:
    target = Target(str(tmp_path))
    before = write_unit(target, rejected=1)
    with pytest.raises(ConservationError, match=r"4 rows kept, but 1 in a-00000-more\.parquet and 0 carried on"):
        go_on(target, before, carried=0)
    assert from_json(LedgerEntry, (tmp_path / "ledger/a-00000.json").read_bytes(), "x") == before


def test_a_sample_of_several_members_is_one_row(tmp_path: Path) -> None:
    with UnitWriter(Target(str(tmp_path)), PlannedUnit("a", "a", 0, 1), "copy") as writer:
        writer.tar("a.tar").add_sample("v1.5", {"jpg": b"picture", "txt": b"text"})
        writer.keep("v1.5")
        (output,) = writer.commit("f1", INPUTS, FACTS).outputs
    assert output.rows == 1
    with (tmp_path / "a.tar").open("rb") as file:
        assert [member.name for member in scan_tar(file, "a").members] == ["v1%2E5.jpg", "v1%2E5.txt"]

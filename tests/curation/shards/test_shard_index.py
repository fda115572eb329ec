import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curation.shards import shard_index
from curation.shards.grouping import Sample
from curation.shards.shard_index import ensure_index, find_samples, read_samples, stored_index
from curation.shards.tar_writer import TarWriter
from curation.shards.target import Target
from schemas.status import RejectReason
from schemas.tables import SHARD_INDEX


def write_tar(path: Path, *names: str, end: bool = True) -> None:
    with path.open("wb") as file:
        writer = TarWriter(file)
        for name in names:
            writer.add(name, name.encode())
        if end:
            writer.finish()


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "a.tar"
    write_tar(path, "x.jpg", "x.json", "y.jpg", "y.jpg", "z")
    return path


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The shards that were read through."""
    found: list[str] = []
    scan = shard_index.index_container

    def count(url: str, *arguments: object) -> object:
        found.append(url)
        return scan(url, *arguments)

    monkeypatch.setattr(shard_index, "index_container", count)
    return found


def test_a_shard_is_read_through_once_and_its_index_used_from_then_on(
    shard: Path, tmp_path: Path, scans: list[str]
) -> None:
    target = Target(str(tmp_path / "out"))
    assert stored_index(target, str(shard), "tar") is None
    first = ensure_index(target, str(shard), "tar")
    assert first.rows == 3
    assert ensure_index(target, str(shard), "tar") == stored_index(target, str(shard), "tar") == first
    assert scans == [str(shard)]
    SHARD_INDEX.check(pq.read_schema(tmp_path / "out/inputs/a.parquet"), "index")


def test_rows_come_back_as_they_were_grouped(shard: Path, tmp_path: Path) -> None:
    target = Target(str(tmp_path / "out"))
    ensure_index(target, str(shard), "tar")
    x, y, z = read_samples(target, str(shard), 0, 3)
    assert x == Sample("x", ("jpg", "json"), (512, 1536), (5, 6))
    assert (y.refused, z.refused) == (RejectReason.DUPLICATE_KEY, RejectReason.BAD_KEY)
    assert y.detail
    assert read_samples(target, str(shard), 1, 2) == [y]
    assert read_samples(target, str(shard), 2, 9) == [z]
    assert find_samples(target, str(shard), {z.key, x.key, "elsewhere"}) == [x, z]
    assert find_samples(target, str(shard), ()) == []


def test_the_index_is_renewed_when_the_shard_changes(shard: Path, tmp_path: Path, scans: list[str]) -> None:
    target = Target(str(tmp_path / "out"))
    first = ensure_index(target, str(shard), "tar")
    write_tar(shard, "x.jpg")
    second = ensure_index(target, str(shard), "tar")
    assert (second.rows, len(scans)) == (1, 2)
    assert second.identity.digest != first.identity.digest


def test_a_shard_that_was_only_touched_keeps_its_digest(shard: Path, tmp_path: Path, scans: list[str]) -> None:
    target = Target(str(tmp_path / "out"))
    first = ensure_index(target, str(shard), "tar")
    os.utime(shard, (1, 1))
    second = ensure_index(target, str(shard), "tar")
    assert (second.identity.digest, second.rows, len(scans)) == (first.identity.digest, first.rows, 2)


@pytest.mark.parametrize("damage", ["cut", "empty", "noise", "foreign"])
def test_a_damaged_index_is_made_again_from_the_shard(shard: Path, tmp_path: Path, damage: str) -> None:
    target = Target(str(tmp_path / "out"))
    first = ensure_index(target, str(shard), "tar")
    path = tmp_path / "out/inputs/a.parquet"
    if damage == "foreign":
        pq.write_table(pq.read_table(path).replace_schema_metadata({}), path)
    else:
        whole = path.read_bytes()
        path.write_bytes(
            {"cut": whole[:-20], "empty": b"", "noise": b"PAR1" + whole[4:-40] + bytes(36) + b"PAR1"}[damage]
        )
    assert ensure_index(target, str(shard), "tar") == first
    assert len(read_samples(target, str(shard), 0, 9)) == 3


def test_the_fault_of_a_damaged_tar_is_a_row(tmp_path: Path) -> None:
    shard, target = tmp_path / "a.tar", Target(str(tmp_path / "out"))
    write_tar(shard, "x.jpg", end=False)
    assert ensure_index(target, str(shard), "tar").rows == 2
    fault = read_samples(target, str(shard), 1, 2)[0]
    assert (fault.key, fault.refused) == ("(archive)", RejectReason.TRUNCATED_MEMBER)
    assert "no end marker" in fault.detail

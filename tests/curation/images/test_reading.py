import dataclasses
import io
import os
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from curation.execution.clock import PhaseClock
from curation.execution.plan import plan_images
from curation.execution.stage import Unit
from curation.images.decode import DecodePolicy
from curation.images.reading import DecodedSample, RefusedRow, decoded_samples, prepared_samples
from curation.shards.shard_index import read_samples
from curation.shards.target import Target
from curation.sources.table import source_named
from schemas.status import RejectReason


def picture(height: int = 48, width: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (height % 256, width % 256, 7)).save(buffer, "JPEG")
    return buffer.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> str:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return str(path)


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target(str(tmp_path / "out"))


MIXED = {
    "a.jpg": picture(40, 50),
    "a.txt": b"a barn",
    "b.jpg": picture()[:300],
    "c.txt": b"no picture here",
    "d.jpg": picture(60, 70),
    "e.jpg": b"",
}


def units_of(target: Target, url: str, unit_rows: int = 0) -> list[Unit]:
    return [unit for plan in plan_images(target, [url], "tar", unit_rows) for unit in plan.units]


def read(target: Target, unit: Unit, threads: int) -> list[DecodedSample | RefusedRow]:
    source = source_named("webdataset")
    return list(decoded_samples(target, unit, source, DecodePolicy(), threads=threads, ahead=2, clock=PhaseClock()))


@pytest.mark.parametrize("threads", [0, 3])
def test_every_row_comes_once_and_in_order_decoded_or_refused(target: Target, tmp_path: Path, threads: int) -> None:
    (unit,) = units_of(target, write_tar(tmp_path / "s.tar", MIXED))
    rows = read(target, unit, threads)
    assert [row.key for row in rows] == ["a", "b", "c", "d", "e"]
    kept = [row for row in rows if isinstance(row, DecodedSample)]
    assert [(row.key, row.sample.caption, row.decoded.image.size) for row in kept] == [
        ("a", "a barn", (50, 40)),
        ("d", None, (70, 60)),
    ]
    reasons = [row.reason for row in rows if isinstance(row, RefusedRow)]
    assert reasons == [RejectReason.CORRUPT, RejectReason.NO_IMAGE, RejectReason.EMPTY_FILE]


def test_a_unit_reads_its_own_slice_of_the_shard(target: Target, tmp_path: Path) -> None:
    units = units_of(target, write_tar(tmp_path / "s.tar", MIXED), unit_rows=2)
    assert [[row.key for row in read(target, unit, 2)] for unit in units] == [["a", "b"], ["c", "d"], ["e"]]


def test_rows_refused_when_the_shard_was_indexed_keep_their_reason(target: Target, tmp_path: Path) -> None:
    url = write_tar(tmp_path / "s.tar", {"a.jpg": picture(), "b.jpg": picture(), "a.txt": b"far from its picture"})
    (unit,) = units_of(target, url)
    refused, decoded = read(target, unit, 0)
    assert isinstance(refused, RefusedRow)
    assert refused.reason == RejectReason.INTERLEAVED_KEY
    assert decoded.key == "b"


def test_a_shard_cut_short_after_it_was_indexed_fails_the_unit(target: Target, tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    (unit,) = units_of(target, write_tar(path, {"a.jpg": picture()}))
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(OSError, match="changed while it was read"):
        read(target, unit, 1)


@pytest.mark.parametrize("moment", ["before", "within"])
def test_a_shard_that_became_another_of_the_same_layout_fails_the_unit(
    target: Target, tmp_path: Path, moment: str
) -> None:
    path = tmp_path / "s.tar"
    (unit,) = units_of(target, write_tar(path, {"a.jpg": picture(), "a.txt": b"a barn", "b.jpg": picture()}))
    other = path.read_bytes().replace(b"a barn", b"a ship")
    if moment == "before":
        path.write_bytes(other)
    rows = decoded_samples(
        target, unit, source_named("webdataset"), DecodePolicy(), threads=0, ahead=2, clock=PhaseClock()
    )

    def look() -> None:
        for row in rows:
            assert row.sample.caption != "a ship"
            path.write_bytes(other)

    with pytest.raises(OSError, match="changed while it was read"):
        look()


def test_a_shard_that_another_driver_has_indexed_anew_fails_the_unit(target: Target, tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    (unit,) = units_of(target, write_tar(path, {"a.jpg": picture(), "a.txt": b"a barn"}))
    write_tar(path, {"a.jpg": picture(), "a.txt": b"a ship"})
    units_of(target, str(path))
    with pytest.raises(OSError, match="changed while it was read"):
        read(target, unit, 1)


def test_leaving_early_ends_the_threads_and_closes_the_shard(target: Target, tmp_path: Path) -> None:
    members = {f"{i:03}.jpg": picture() for i in range(50)}
    (unit,) = units_of(target, write_tar(tmp_path / "s.tar", members))
    rows = decoded_samples(
        target, unit, source_named("webdataset"), DecodePolicy(), threads=2, ahead=4, clock=PhaseClock()
    )
    assert next(rows).key == "000"
    rows.close()
    assert next(rows, None) is None


def test_waiting_for_pictures_counts_to_the_phase_decode(target: Target, tmp_path: Path) -> None:
    (unit,) = units_of(target, write_tar(tmp_path / "s.tar", MIXED))
    clock = PhaseClock()
    list(decoded_samples(target, unit, source_named("webdataset"), DecodePolicy(), threads=1, ahead=2, clock=clock))
    assert set(clock.phases()) == {"decode"}


def test_pictures_are_prepared_and_refused_rows_pass_by(target: Target, tmp_path: Path) -> None:
    (unit,) = units_of(target, write_tar(tmp_path / "s.tar", MIXED))
    sizes = prepared_samples(
        target,
        unit,
        source_named("webdataset"),
        DecodePolicy(),
        lambda made: made.decoded.image.size,
        threads=2,
        ahead=2,
        clock=PhaseClock(),
    )
    assert [made for made in sizes if not isinstance(made, RefusedRow)] == [(50, 40), (70, 60)]


def test_what_a_selection_leaves_out_is_neither_read_nor_decoded(target: Target, tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    (unit,) = units_of(target, write_tar(path, MIXED))
    row = read_samples(target, str(path), 3, 4)[0]
    time = path.stat().st_mtime_ns
    path.write_bytes(bytes(row.offsets[0]) + path.read_bytes()[row.offsets[0] :])  # nothing before d can be read
    os.utime(path, ns=(time, time))
    rows = read(target, dataclasses.replace(unit, selected=frozenset({"d", "e"})), 2)
    assert [row.key for row in rows] == ["a", "b", "c", "d", "e"]
    assert isinstance(rows[3], DecodedSample)
    reasons = [row.reason for row in rows if isinstance(row, RefusedRow)]
    assert reasons == [*[RejectReason.NOT_SELECTED] * 3, RejectReason.EMPTY_FILE]

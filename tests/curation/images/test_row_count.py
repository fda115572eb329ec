from pathlib import Path

import pytest

from curation.images.row_count import estimate_rows, size_text
from curation.shards.shard_index import ensure_index
from curation.shards.tar_writer import TarWriter
from curation.shards.target import Target
from curation.sources.webdataset import WebdatasetSource


@pytest.fixture
def shards(tmp_path: Path) -> list[str]:
    """Twelve shards of 3 to 14 samples alike."""
    made = []
    for number in range(12):
        path = tmp_path / f"s{number:02d}.tar"
        with open(path, "wb") as file:
            writer = TarWriter(file)
            for row in range(3 + number):
                writer.add(f"{row:03d}.jpg", b"x" * 5000)
            writer.finish()
        made.append(str(path))
    return made


def test_few_shards_are_counted(tmp_path: Path, shards: list[str]) -> None:
    found = estimate_rows(Target(str(tmp_path / "out")), WebdatasetSource(), shards[:3])
    assert (found.rows, found.low, found.high) == (12, 12, 12)


def test_many_shards_are_guessed_with_an_interval_that_holds_the_truth(tmp_path: Path, shards: list[str]) -> None:
    found = estimate_rows(Target(str(tmp_path / "out")), WebdatasetSource(), shards)
    truth = sum(3 + number for number in range(12))
    assert found.low <= truth <= found.high
    assert abs(found.rows - truth) < 0.15 * truth
    assert "headers of 4 read now" in found.basis


def test_shards_that_were_indexed_are_known(tmp_path: Path, shards: list[str]) -> None:
    target = Target(str(tmp_path / "out"))
    for url in shards:
        ensure_index(target, url, "tar")
    found = estimate_rows(target, WebdatasetSource(), shards)
    assert found.low == found.rows == found.high == sum(3 + number for number in range(12))


def test_sizes_are_told_with_a_unit() -> None:
    assert [size_text(n) for n in (12, 1500, 2.5e6, 3e9, 4.2e12)] == ["12 B", "1.5 kB", "2.5 MB", "3 GB", "4.2 TB"]

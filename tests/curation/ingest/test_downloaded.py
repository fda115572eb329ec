"""What img2dataset wrote is told from its files, not from what it says of them."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from standin_img2dataset import set_defects

from curation.ingest.downloaded import Downloaded, read_downloaded
from curation.ingest.downloader import Downloader
from curation.ingest.metadata_plan import DownloadRow
from curation.refusal import Refusal
from schemas.status import RejectReason

NUMBERS = [0, 1, 2, 3, 4, 5]
Run = Callable[..., tuple[Downloaded, list[DownloadRow]]]


@pytest.fixture
def run(standin: str, pictures: Path, tmp_path: Path) -> Run:
    """Download six rows, of which the third fails, with these defects."""

    def go(**defects: object) -> tuple[Downloaded, list[DownloadRow]]:
        set_defects(pictures, **defects)
        urls = [f"http://standin/{n}.jpg" for n in NUMBERS]
        urls[2] = "http://standin/fail/timed%20out"
        rows = [DownloadRow(f"row-{n}", url, None, {}) for n, url in enumerate(urls)]
        folder = tmp_path / "work"
        folder.mkdir()
        Downloader(standin, stall=3.0 if "hang" in defects else 600.0).download(rows, folder)
        return read_downloaded(folder, rows), rows

    return go


def reasons(downloaded: Downloaded, rows: list[DownloadRow]) -> list[str]:
    found = [downloaded.of(row) for row in rows]
    return [f.reason.value if isinstance(f, Refusal) else "found" for f in found]


def check_pictures(downloaded: Downloaded, rows: list[DownloadRow], pictures: Path) -> None:
    for number, row in enumerate(rows):
        data = downloaded.of(row)
        assert isinstance(data, Refusal) or data == (pictures / f"{number}.jpg").read_bytes()


@pytest.mark.parametrize("defects", [{}, {"interleave": True}], ids=["in disorder", "members apart"])
def test_each_row_gets_its_own_picture_or_its_own_failure(run: Run, pictures: Path, defects: dict[str, bool]) -> None:
    downloaded, rows = run(**defects)
    assert reasons(downloaded, rows) == ["found", "found", "timeout", "found", "found", "found"]
    check_pictures(downloaded, rows, pictures)
    assert not downloaded.torn
    assert not downloaded.miscounted


def test_a_tar_that_was_cut_short_loses_its_last_rows_and_nothing_else(run: Run, pictures: Path) -> None:
    downloaded, rows = run(cut=14_000)
    found = reasons(downloaded, rows)
    assert downloaded.torn
    assert downloaded.miscounted  # the statistics still count what the tar has lost
    assert 0 < found.count("lost") < 5
    assert found.count("lost") + found.count("found") == 5
    check_pictures(downloaded, rows, pictures)


def test_a_picture_that_came_beside_another_one_s_json_is_given_to_nobody(run: Run) -> None:
    downloaded, rows = run(swap=True)
    assert reasons(downloaded, rows) == ["lost", "lost", "timeout", "lost", "lost", "lost"]
    refused = downloaded.of(rows[0])
    assert isinstance(refused, Refusal)
    assert "SHA-256" in refused.detail


def test_a_json_that_names_another_url_than_the_row_was_planned_with_is_not_believed(run: Run, tmp_path: Path) -> None:
    _, rows = run()
    moved = [DownloadRow(row.key, row.url + "?v=2", None, {}) for row in rows]
    assert set(reasons(read_downloaded(tmp_path / "work", moved), moved)) == {"lost", "timeout"}


def test_failures_without_their_parquet_file_are_lost(run: Run) -> None:
    downloaded, rows = run(no_parquet=True)
    assert reasons(downloaded, rows) == ["found", "found", "lost", "found", "found", "found"]


def test_a_row_that_is_in_no_file_is_lost(run: Run) -> None:
    downloaded, rows = run(lose="row-4")
    assert reasons(downloaded, rows)[4] == RejectReason.LOST.value


def test_statistics_that_are_wrong_are_noticed(run: Run) -> None:
    downloaded, _ = run(wrong_stats=True)
    assert downloaded.miscounted
    assert not downloaded.torn


def test_what_a_stopped_process_had_written_counts(run: Run, pictures: Path) -> None:
    downloaded, rows = run(hang=600)
    found = reasons(downloaded, rows)
    assert found.count("found") in {2, 3}
    assert found.count("lost") == 6 - found.count("found")
    check_pictures(downloaded, rows, pictures)


def test_a_file_that_is_no_tar_at_all_gives_nothing(run: Run, tmp_path: Path) -> None:
    _, rows = run()
    (tmp_path / "work/out/00000.tar").write_bytes(b"<html>" * 200)
    downloaded = read_downloaded(tmp_path / "work", rows)
    assert downloaded.torn
    assert reasons(downloaded, rows).count("lost") == 5


def test_a_sample_with_two_pictures_is_not_guessed_at(run: Run, tmp_path: Path) -> None:
    _, rows = run()
    path = tmp_path / "work/out/00000.tar"
    with tarfile.open(path) as tar:
        names = [member.name for member in tar if member.name.endswith(".jpg")]
    with tarfile.open(path, "a") as tar:
        tar.addfile(tarfile.TarInfo(names[0]))
    assert reasons(read_downloaded(tmp_path / "work", rows), rows).count("lost") == 1

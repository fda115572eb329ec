"""`pipelines.ingest` on metadata files: what is on disk after one run and after more. The downloader is a stand-in."""

import json
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_files import data_of
from PIL import Image
from standin_img2dataset import asked, make_standin, set_defects

from curation.ingest.alone import alone
from curation.shards.target import Target
from curation.sources.table import SOURCES
from pipelines.ingest import main
from pipelines.verify import main as verify
from schemas.dataset import DATASET_FILE, DatasetInfo
from schemas.errors import DatasetError, UserError
from schemas.reading import Dataset, open_dataset
from schemas.record import to_json
from schemas.tables import IMAGES, REJECTS

Ingest = Callable[..., int]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twelve pictures of 96x64 px and a page of HTML, for the stand-in to serve."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(12):
        Image.new("RGB", (96, 64), (20 * number, 100, 200)).save(folder / f"{number}.jpg")
    (folder / "page.jpg").write_text("<!doctype html>")
    whole = (folder / "0.jpg").read_bytes()
    (folder / "half.jpg").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (40, 40)).save(folder / "small.jpg")
    Image.new("RGBA", (96, 64), (1, 2, 3, 4)).save(folder / "alpha.jpg", "PNG")
    return folder


@pytest.fixture
def metadata(tmp_path: Path) -> Path:
    """Eleven rows: seven pictures, four failures."""
    names = ["0", "1", "fail/HTTP Error 404: Not Found", "2", "page", "3", "half", "4", "fail/timed out", "alpha", "5"]
    return write_metadata(tmp_path / "part-0.parquet", names)


def write_metadata(path: Path, names: Sequence[str]) -> Path:
    urls = [f"http://standin/{name}" + ("" if name.startswith("fail/") else ".jpg") for name in names]
    rows = {"URL": urls, "TEXT": [f"text {n}" for n in range(len(urls))], "AESTHETIC_SCORE": [5.5] * len(urls)}
    pq.write_table(pa.table(rows), path)
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture
def ingest(tmp_path: Path, pictures: Path, metadata: Path, out: Path) -> Ingest:
    """Run the command on `metadata`: `ingest(*more) -> exit code`."""
    python = make_standin(tmp_path / "standin", pictures)

    def run(*more: str, files: Sequence[Path] = (metadata,)) -> int:
        return main(["--metadata", *map(str, files), "--out", str(out), "--img2dataset", python, *more])

    return run


def opened(out: Path) -> Dataset:
    return open_dataset(str(out), "images").require_whole()


def table_of(dataset: Dataset) -> list[dict[str, Any]]:
    return [row for table in dataset.tables(IMAGES) for row in table.to_pylist()]


def rejects_of(dataset: Dataset) -> dict[str, str]:
    rows = [row for table in dataset.tables(REJECTS, folder="rejects") for row in table.to_pylist()]
    return {row["key"]: row["reason"] for row in rows}


def members_of(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def test_each_row_is_a_whole_sample_or_a_reject_with_its_reason(ingest: Ingest, out: Path) -> None:
    assert ingest() == 0
    dataset = opened(out)
    kept, rejected = [row["key"] for row in table_of(dataset)], rejects_of(dataset)
    assert kept == [f"{n:09d}" for n in (0, 1, 3, 5, 7, 9, 10)]
    assert rejected == {"000000002": "http_404", "000000004": "not_an_image", "000000006": "corrupt"} | {
        "000000008": "timeout"
    }
    assert sum(entry.rows_in for entry in dataset.entries) == len(kept) + len(rejected) == 11


def test_samples_lie_in_the_order_of_the_metadata_as_img2dataset_lays_them_out(
    ingest: Ingest, out: Path, pictures: Path
) -> None:
    ingest()
    members = members_of(out / "part-0-00000.tar")
    kinds = {9: "png"}
    assert list(members) == [
        f"{key:09d}.{kind}" for key in (0, 1, 3, 5, 7, 9, 10) for kind in (kinds.get(key, "jpg"), "txt", "json")
    ]
    assert members["000000003.jpg"] == (pictures / "2.jpg").read_bytes()
    assert members["000000003.txt"] == b"text 3"
    told = json.loads(members["000000003.json"])
    assert told.pop("sha256")
    assert told == {"url": "http://standin/2.jpg", "caption": "text 3", "aesthetic": 5.5}


def test_a_picture_is_named_by_what_it_is_and_kept_to_the_byte(ingest: Ingest, out: Path, pictures: Path) -> None:
    ingest()
    members = members_of(out / "part-0-00000.tar")
    assert members["000000009.png"] == (pictures / "alpha.jpg").read_bytes()


def test_the_webdataset_source_reads_the_shards_as_they_are(ingest: Ingest, out: Path) -> None:
    ingest()
    members = members_of(out / "part-0-00000.tar")
    sample = SOURCES["webdataset"].sample(
        "000000001", {kind: members[f"000000001.{kind}"] for kind in ("jpg", "txt", "json")}
    )
    assert sample.caption == "text 1"
    assert sample.extra["aesthetic"] == 5.5


def test_a_second_run_tries_again_only_what_failed_and_leaves_what_is_there(
    ingest: Ingest, out: Path, pictures: Path
) -> None:
    ingest()
    before, _ = data_of(out), asked(pictures)
    (pictures / "page.jpg").write_bytes((pictures / "6.jpg").read_bytes())
    assert ingest() == 0
    assert sorted(asked(pictures)) == ["/fail/HTTP Error 404: Not Found", "/fail/timed out", "/half.jpg", "/page.jpg"]
    dataset, after = opened(out), data_of(out)
    assert all(after[name] == data for name, data in before.items() if name.endswith(".tar"))
    assert next(iter(members_of(out / "part-0-00000-retry1.tar"))) == "000000004.jpg"
    assert rejects_of(dataset) == {"000000002": "http_404", "000000006": "corrupt", "000000008": "timeout"}
    assert Counter(row["shard"] for row in table_of(dataset))["part-0-00000-retry1"] == 1
    assert sum(entry.rows_in for entry in dataset.entries) == 11


def test_when_nothing_failed_a_second_run_does_nothing_and_says_so(
    ingest: Ingest, out: Path, tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = write_metadata(tmp_path / "whole.parquet", ["0", "1", "2"])
    ingest(files=[whole])
    before, _ = data_of(out), (asked(pictures), capsys.readouterr())
    assert ingest(files=[whole]) == 0
    assert "nothing to do: all 1 are whole and current" in capsys.readouterr().err
    assert asked(pictures) == []
    assert data_of(out) == before


@pytest.mark.parametrize(
    ("retry", "expected"), [("none", []), ("transient", ["/fail/timed out", "/half.jpg"]), ("all", 4)]
)
def test_what_is_tried_again_can_be_chosen(
    ingest: Ingest, pictures: Path, retry: str, expected: list[str] | int
) -> None:
    ingest()
    asked(pictures)
    ingest("--retry", retry)
    tried = sorted(asked(pictures))
    assert (tried if isinstance(expected, list) else len(tried)) == expected


def test_third_tries_go_into_tars_of_their_own(ingest: Ingest, out: Path, tmp_path: Path, pictures: Path) -> None:
    files = [write_metadata(tmp_path / "part-0.parquet", ["0", "page", "half", "1"])]
    ingest(files=files)
    for name, number in (("page", 6), ("half", 7)):
        (pictures / f"{name}.jpg").write_bytes((pictures / f"{number}.jpg").read_bytes())
        ingest(files=files)
    names = sorted(path.name for path in out.glob("*.tar"))
    assert names == ["part-0-00000-retry1.tar", "part-0-00000-retry2.tar", "part-0-00000.tar"]
    (entry,) = opened(out).entries
    assert (entry.rows_kept, entry.rejected) == (4, {})
    assert (entry.counts["rows tried again"], entry.counts["rows recovered"]) == (3, 2)
    assert not (out / "rejects/part-0-00000.parquet").exists()


def test_a_lost_tar_is_downloaded_again_and_its_neighbours_are_not(ingest: Ingest, out: Path, pictures: Path) -> None:
    ingest("--unit-rows", "6")
    asked(pictures)
    (out / "part-0-00001.tar").unlink()
    assert ingest("--retry", "none") == 0
    assert sorted(asked(pictures)) == ["/4.jpg", "/5.jpg", "/alpha.jpg"]
    assert len(table_of(opened(out))) == 7


@pytest.mark.parametrize(
    ("defects", "count"),
    [
        ({"cut": 14_000}, "tars of img2dataset that were not whole"),
        ({"wrong_stats": True}, "statistics of img2dataset"),
    ],
)
def test_what_img2dataset_loses_is_a_reject_that_the_next_run_mends(
    ingest: Ingest, out: Path, pictures: Path, defects: dict[str, Any], count: str
) -> None:
    set_defects(pictures, **defects)
    ingest()
    dataset = opened(out)
    assert any(name.startswith(count) for entry in dataset.entries for name in entry.counts)
    assert ("lost" in rejects_of(dataset).values()) == ("cut" in defects)
    set_defects(pictures)
    ingest()
    assert [row["key"] for row in sorted(table_of(opened(out)), key=lambda row: row["key"])] == [
        f"{n:09d}" for n in (0, 1, 3, 5, 7, 9, 10)
    ]


def test_a_picture_that_is_smaller_than_its_metadata_said_is_rejected(
    ingest: Ingest, out: Path, tmp_path: Path
) -> None:
    path = write_metadata(tmp_path / "sizes.parquet", ["0", "small"])
    ingest("--min-width", "50", "--column", "source_width=", files=[path])
    assert rejects_of(opened(out)) == {"000000001": "too_small"}


def test_the_pre_filter_is_counted_and_reported(
    ingest: Ingest, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_metadata(tmp_path / "twice.parquet", ["0", "1", "0", "1", "2"])
    summary = tmp_path / "summary.json"
    ingest("--min-aesthetic", "5", "--summary-json", str(summary), files=[path])
    assert re.search(r"dropped: url_seen_before +2 ", capsys.readouterr().err)
    assert json.loads(summary.read_text())["counts"] == {"metadata rows": 5, "dropped: url_seen_before": 2}
    assert sum(entry.rows_in for entry in opened(out).entries) == 3


def test_a_url_that_an_earlier_file_had_is_not_downloaded_again(
    ingest: Ingest, metadata: Path, tmp_path: Path, pictures: Path
) -> None:
    ingest()
    asked(pictures)
    ingest("--retry", "none", files=[metadata, write_metadata(tmp_path / "part-1.parquet", ["0", "11"])])
    assert asked(pictures) == ["/11.jpg"]


def test_other_settings_on_what_is_there_are_refused_before_anything_is_lost(ingest: Ingest, out: Path) -> None:
    ingest()
    before = data_of(out)
    with pytest.raises(DatasetError, match=r"other settings \(prefilter\.min_aesthetic\).*use pipelines\.select"):
        ingest("--min-aesthetic", "5")
    assert data_of(out) == before


def test_a_mistake_that_the_first_run_told_of_can_be_mended_in_place(ingest: Ingest, out: Path) -> None:
    assert ingest("--column", "caption=nowhere") == 2
    assert ingest("--column", "caption=TEXT", "--min-aesthetic", "5") == 0
    assert len(table_of(opened(out))) == 7


def test_a_directory_of_another_kind_is_left_as_it_is(ingest: Ingest, out: Path) -> None:
    info = DatasetInfo("captions", 2, "caption", {}, "f" * 32, "webdataset", "c0ffee", 10_000)
    out.mkdir()
    (out / DATASET_FILE).write_text(to_json(info))
    with pytest.raises(DatasetError, match="holds captions"):
        ingest()
    assert [path.name for path in out.rglob("*")] == [DATASET_FILE]


def test_a_dry_run_says_what_would_be_tried_again_and_asks_nobody(
    ingest: Ingest, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ingest()
    asked(pictures)
    capsys.readouterr()
    assert ingest("--dry-run") == 0
    assert "part-0-00000: due, failed rows are tried again (11 rows)" in capsys.readouterr().err
    assert asked(pictures) == []


def test_a_second_ingest_into_the_same_directory_is_refused(ingest: Ingest, out: Path) -> None:
    with alone(Target(str(out))), pytest.raises(DatasetError, match=r"writes here\. Wait for its end"):
        ingest()


def test_a_missing_column_is_told_before_anything_is_downloaded(ingest: Ingest, pictures: Path) -> None:
    assert ingest("--max-punsafe", "0.5") == 2
    assert asked(pictures) == []


def test_a_downloader_that_fails_sets_the_unit_aside_with_its_last_words(
    ingest: Ingest, out: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_defects(pictures, exit=3)
    assert ingest("--attempts", "1") == 1
    assert "img2dataset failed with status 3: something went wrong inside" in capsys.readouterr().err
    assert not list(out.glob("*.tar"))


def test_verify_finds_the_dataset_clean_and_a_changed_tar_wrong(ingest: Ingest, out: Path) -> None:
    ingest()
    ingest()
    assert verify([str(out)]) == 0
    tar = out / "part-0-00000.tar"
    tar.write_bytes(tar.read_bytes().replace(b"text 3", b"text 4"))
    assert verify([str(out)]) == 1


def test_nothing_of_the_work_is_left(ingest: Ingest, out: Path) -> None:
    ingest()
    assert {path.name for path in out.iterdir() if path.name.startswith(".")} == set()


@pytest.mark.slow
def test_two_workers_write_what_one_does(ingest: Ingest, out: Path, tmp_path: Path) -> None:
    ingest("--unit-rows", "6")
    one = data_of(out)
    out.rename(tmp_path / "one")
    ingest("--unit-rows", "6", "--workers", "2")
    assert data_of(out) == one


def test_without_out_or_annotations_the_command_says_what_is_missing() -> None:
    with pytest.raises(UserError, match="--out DIR is missing"):
        main(["--metadata", "x.parquet"])
    with pytest.raises(UserError, match="--annotations FILE is missing"):
        main(["--journeydb", "x.tgz", "--out", "y"])

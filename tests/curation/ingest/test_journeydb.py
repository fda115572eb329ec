"""JourneyDB's archives, unpacked and annotated."""

import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from curation.refusal import Refusal
from curation.sources.base import ImageSample
from curation.sources.journeydb import JourneyDBSource
from pipelines.ingest import main
from schemas.errors import UserError
from schemas.reading import open_dataset
from schemas.tables import REJECTS

ANNOTATIONS = [
    {"img_path": "./000/a.jpg", "prompt": "a red fox --ar 16:9 --v 4", "Task2": {"Caption": "A fox."}},
    {"img_path": "./000/b.jpg", "prompt": "--v 4", "Task2": {}},
    {"img_path": "./001/d.jpg", "prompt": "a boat"},
]


def write_tgz(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def journeydb(tmp_path: Path, picture: Callable[..., bytes]) -> Path:
    """Two archives and their annotations; the second archive leaves out the folder of its members."""
    members = {f"./000/{name}.jpg": picture(number) for number, name in enumerate("abc")}
    write_tgz(tmp_path / "000.tgz", members | {"./000/page.jpg": b"<html>"})
    write_tgz(tmp_path / "001.tgz", {"./d.jpg": picture(3)})
    lines = "\n".join(map(json.dumps, ANNOTATIONS)).encode()
    write_tgz(tmp_path / "train_anno_realease_repath.jsonl.tgz", {"train_anno_realease_repath.jsonl": lines})
    return tmp_path


def ingest(folder: Path, *more: str) -> int:
    annotations = str(folder / "train_anno_realease_repath.jsonl.tgz")
    given = ["--journeydb", str(folder / "00*.tgz"), "--annotations", annotations, "--out", str(folder / "images")]
    return main([*given, *more])


def samples_of(path: Path) -> dict[str, ImageSample]:
    members: dict[str, dict[str, bytes]] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            key, _, extension = member.name.partition(".")
            members.setdefault(key, {})[extension] = tar.extractfile(member).read()
    source, found = JourneyDBSource(), {}
    for key, files in members.items():
        wanted = source.members(tuple(files))
        assert not isinstance(wanted, Refusal)
        found[key] = source.sample(key, {name: files[name] for name in wanted})
    return found


def test_each_picture_gets_its_own_annotation_and_a_plain_prompt(
    journeydb: Path, picture: Callable[..., bytes]
) -> None:
    assert ingest(journeydb) == 0
    found = samples_of(journeydb / "images/000.tar")
    assert list(found) == ["000/a", "000/b", "000/c"]
    assert [sample.caption for sample in found.values()] == ["a red fox", None, None]
    assert found["000/a"].extra["prompt"] == "a red fox --ar 16:9 --v 4"
    assert found["000/a"].extra["Task2"] == {"Caption": "A fox."}
    assert [sample.image for sample in found.values()] == [picture(n) for n in range(3)]
    assert samples_of(journeydb / "images/001.tar")["d"].caption == "a boat"


def test_rows_add_up_and_what_has_no_annotation_is_counted(journeydb: Path) -> None:
    ingest(journeydb)
    dataset = open_dataset(str(journeydb / "images"), "images").require_whole()
    (rejects,) = [table.to_pylist() for table in dataset.tables(REJECTS, folder="rejects")]
    assert [(row["key"], row["reason"]) for row in rejects] == [("000/page", "not_an_image")]
    assert [(e.rows_in, e.rows_kept, e.counts) for e in dataset.entries] == [
        (4, 3, {"pictures without annotation": 1}),
        (1, 1, {}),
    ]


def test_an_archive_that_was_cut_short_gives_what_is_whole_and_says_what_is_missing(
    journeydb: Path, picture: Callable[..., bytes]
) -> None:
    pictures = {f"./000/{n}.jpg": picture(n, 640, 480) for n in range(6)}
    whole = write_tgz(journeydb / "000.tgz", pictures).read_bytes()
    (journeydb / "000.tgz").write_bytes(whole[: len(whole) // 2])
    assert ingest(journeydb) == 0
    dataset = open_dataset(str(journeydb / "images"), "images").require_whole()
    assert 0 < dataset.entries[0].rows_kept < 6
    assert set(dataset.entries[0].rejected) == {"truncated_member"}


def test_two_different_annotations_of_one_picture_are_not_chosen_from(journeydb: Path) -> None:
    lines = "\n".join(json.dumps(row) for row in [*ANNOTATIONS, ANNOTATIONS[0] | {"prompt": "another"}]).encode()
    write_tgz(journeydb / "train_anno_realease_repath.jsonl.tgz", {"anno.jsonl": lines})
    ingest(journeydb)
    rejects: list[dict[str, Any]] = pq.read_table(journeydb / "images/rejects/000.parquet").to_pylist()
    assert ("000/a", "bad_metadata") in {(row["key"], row["reason"]) for row in rejects}


def test_a_second_run_does_nothing_and_other_annotations_make_all_of_it_due(
    journeydb: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ingest(journeydb)
    capsys.readouterr()
    assert ingest(journeydb) == 0
    assert "nothing to do: all 2 are whole and current" in capsys.readouterr().err
    lines = json.dumps(ANNOTATIONS[0] | {"prompt": "a blue fox"}).encode()
    write_tgz(journeydb / "train_anno_realease_repath.jsonl.tgz", {"anno.jsonl": lines})
    assert ingest(journeydb) == 0
    assert samples_of(journeydb / "images/000.tar")["000/a"].caption == "a blue fox"


def test_a_plain_tar_is_no_archive_of_journeydb(journeydb: Path) -> None:
    (journeydb / "002.tgz").write_bytes(bytes(10240))
    with pytest.raises(UserError, match=r"002\.tgz|not a gzip file"):
        main(["--journeydb", str(journeydb / "002.tgz"), "--annotations", str(journeydb), "--out", "x"])

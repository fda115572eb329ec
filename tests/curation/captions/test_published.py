"""Published captions joined to pictures by key."""

import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_files import data_of
from PIL import Image

from pipelines.published import main
from schemas.errors import UserError
from schemas.reading import open_dataset
from schemas.selection import make_selection, write_selection
from schemas.tables import CAPTIONS, UNMATCHED

LONG = "A red fox stands in deep snow beside a wooden fence and looks at the camera."
Publish = Callable[..., int]


def jpeg(width: int = 96, height: int = 64, orientation: int = 1, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (width, height), (200, 10, 10)).save(buffer, kind, exif=exif)
    return buffer.getvalue()


def write_shard(path: Path, members: Mapping[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def write_captions(path: Path, captions: Mapping[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for key, text in captions.items():
            member = tarfile.TarInfo(f"SA1B_caption/{key}.txt")
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return path


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two shards of SA-1B: sa_1 to sa_4; of sa_4 the picture is HTML."""
    write_shard(
        tmp_path / "sa_000000.tar", {"./sa_1.jpg": jpeg(), "./sa_1.json": b"{}", "./sa_2.jpg": jpeg(64, 128, 6)}
    )
    write_shard(tmp_path / "sa_000001.tar", {"./sa_3.jpg": jpeg(), "./sa_4.jpg": b"<html>"})
    return tmp_path


@pytest.fixture
def publish(shards: Path) -> Publish:
    """Run the command: `publish(captions, *more) -> exit code`."""

    def run(captions: Path | str, *more: str, source: str = "sam", match: str = "name") -> int:
        given = ["--shards", str(shards / "sa_*.tar"), "--source", source, "--captions", str(captions)]
        return main([*given, "--model", "LLaVA", "--match", match, "--out", str(shards / "captions"), *more])

    return run


def rows_of(folder: Path) -> list[dict[str, Any]]:
    dataset = open_dataset(str(folder / "captions"), "captions").require_whole()
    return [row for table in dataset.tables(CAPTIONS) for row in table.to_pylist()]


def rejects_of(folder: Path) -> dict[str, str]:
    files = sorted((folder / "captions/rejects").glob("*.parquet"))
    return {row["key"]: row["reason"] for file in files for row in pq.read_table(file).to_pylist()}


def unmatched_of(folder: Path) -> list[str]:
    table = pq.read_table(folder / "captions/unmatched.parquet")
    UNMATCHED.check(table.schema, "unmatched.parquet")
    return table["key"].to_pylist()


def test_captions_meet_their_pictures_and_both_sides_say_what_is_missing(
    publish: Publish, shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = {"sa_1": LONG, "sa_2": "Too short.", "sa_4": LONG, "sa_9": LONG, "sa_8": LONG}
    summary = shards / "summary.json"
    assert publish(write_captions(shards / "c.tar.gz", texts), "--summary-json", str(summary)) == 0
    assert [(row["shard"], row["key"], row["status"]) for row in rows_of(shards)] == [
        ("sa_000000", "sa_1", "ok"),
        ("sa_000000", "sa_2", "too_short"),
    ]
    assert rejects_of(shards) == {"sa_3": "no_caption", "sa_4": "not_an_image"}
    assert unmatched_of(shards) == ["sa_8", "sa_9"]
    assert json.loads(summary.read_text())["counts"]["captions without a picture"] == 2
    assert "captions without a picture: 2, listed in" in capsys.readouterr().err


def test_the_text_is_kept_as_published_and_judged_by_the_rules(publish: Publish, shards: Path) -> None:
    text = f"  {LONG}\n"
    publish(write_captions(shards / "c.tar.gz", {"sa_1": text}))
    (row,) = rows_of(shards)
    assert (row["generated"], row["caption"], row["finish_reason"]) == (text, LONG, "stop")
    assert (row["n_words"], row["n_tokens"], row["seed"], row["error"]) == (16, 0, -1, None)


def test_sizes_are_those_after_exif_orientation(publish: Publish, shards: Path) -> None:
    publish(write_captions(shards / "c.tar.gz", {"sa_1": LONG, "sa_2": LONG}))
    assert [(row["width"], row["height"]) for row in rows_of(shards)] == [(96, 64), (128, 64)]


def test_a_header_of_more_than_64_kib_and_a_png_have_their_size_too(publish: Publish, shards: Path) -> None:
    comment = b"\xff\xfe\xff\xff" + bytes(65_533)
    plain = jpeg(80, 40)
    members = {"sa_1.jpg": plain[:2] + comment + plain[2:], "sa_2.png": jpeg(50, 90, kind="PNG")}
    write_shard(shards / "sa_000000.tar", members)
    publish(write_captions(shards / "c.tar.gz", {"sa_1": LONG, "sa_2": LONG}), source="webdataset")
    assert [(row["width"], row["height"]) for row in rows_of(shards)] == [(80, 40), (50, 90)]


def test_what_the_source_says_stands_beside_it(publish: Publish, shards: Path) -> None:
    write_shard(shards / "sa_000000.tar", {"sa_1.jpg": jpeg(), "sa_1.txt": b"fox stock photo"})
    publish(write_captions(shards / "c.tar.gz", {"sa_1": LONG}), source="webdataset")
    assert rows_of(shards)[0]["raw_caption"] == "fox stock photo"


def test_two_captions_of_one_picture_are_not_chosen_from(publish: Publish, shards: Path) -> None:
    rows = [{"key": "sa_1", "caption": LONG}, {"key": "sa_1", "caption": "Another."}, {"key": "sa_2", "caption": LONG}]
    rows.append({"key": "./sa_2.jpg", "caption": LONG})  # the same text twice is one caption
    path = shards / "c.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    publish(path, match="key")
    assert rejects_of(shards) == {"sa_1": "ambiguous_caption", "sa_3": "no_caption", "sa_4": "no_caption"}


def test_one_caption_is_not_given_to_two_pictures_of_one_name(publish: Publish, shards: Path) -> None:
    write_shard(shards / "sa_000000.tar", {"a/sa_1.jpg": jpeg(), "b/sa_1.jpg": jpeg(), "b/sa_2.jpg": jpeg()})
    publish(write_captions(shards / "c.tar.gz", {"sa_1": LONG, "sa_2": LONG}))
    assert [row["key"] for row in rows_of(shards)] == ["b/sa_2"]
    assert rejects_of(shards)["a/sa_1"] == rejects_of(shards)["b/sa_1"] == "ambiguous_caption"


def test_keys_that_repeat_over_shards_are_told_apart_by_a_column(publish: Publish, shards: Path) -> None:
    for shard in ("sa_000000", "sa_000001"):
        write_shard(shards / f"{shard}.tar", {"0001.jpg": jpeg()})
    rows = {"shard": ["sa_000000", "sa_000001", "sa_2"], "key": ["0001"] * 3, "caption": [LONG, f"{LONG} 2", LONG]}
    pq.write_table(pa.table(rows), shards / "c.parquet")
    publish(shards / "c.parquet", "--shard-column", "shard", match="key")
    assert [row["generated"] for row in rows_of(shards)] == [LONG, f"{LONG} 2"]
    unmatched = pq.read_table(shards / "captions/unmatched.parquet").to_pylist()
    assert unmatched == [{"key": "0001", "shard": "sa_2"}]


def test_a_second_run_does_nothing_and_other_captions_make_all_of_it_due(
    publish: Publish, shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = write_captions(shards / "c.tar.gz", {"sa_1": LONG})
    publish(captions)
    before = data_of(shards / "captions")
    capsys.readouterr()
    assert publish(captions) == 0
    assert "nothing to do: all 2 are whole and current" in capsys.readouterr().err
    assert data_of(shards / "captions") == before
    publish(write_captions(captions, {"sa_1": f"{LONG} It is winter."}))
    assert rows_of(shards)[0]["generated"].endswith("winter.")


def test_a_dry_run_writes_nothing(publish: Publish, shards: Path) -> None:
    assert publish(write_captions(shards / "c.tar.gz", {"sa_1": LONG}), "--dry-run") == 0
    assert not (shards / "captions").exists()


def test_captions_of_which_none_fits_are_told_with_what_to_try(
    publish: Publish, shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(write_captions(shards / "c.tar.gz", {"sa_1": LONG}), match="key")
    assert "none of them fits a picture: try --match name" in capsys.readouterr().err


@pytest.mark.parametrize("rows", [[], [{"key": "sa_1", "caption": None}], [{"key": "sa_1", "caption": " "}]])
def test_a_file_without_any_caption_is_an_error(publish: Publish, shards: Path, rows: Sequence[Any]) -> None:
    (shards / "c.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(UserError, match="no text in it"):
        publish(shards / "c.jsonl")


def test_a_selection_is_kept_to(publish: Publish, shards: Path) -> None:
    write_selection(str(shards / "s.parquet"), make_selection(pa.table({"shard": ["sa_000000"], "key": ["sa_2"]})))
    captions = write_captions(shards / "c.tar.gz", {"sa_1": LONG, "sa_2": LONG})
    publish(captions, "--select", str(shards / "s.parquet"))
    assert [row["key"] for row in rows_of(shards)] == ["sa_2"]
    assert rejects_of(shards)["sa_1"] == "not_selected"
    assert unmatched_of(shards) == []

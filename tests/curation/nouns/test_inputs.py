import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.nouns.inputs import FileKind, caption_rows, check_columns, file_kind, plan_caption_files
from schemas.errors import DamagedFileError, UserError


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.parquet", FileKind.PARQUET),
        ("s3://bucket/A.JSONL.GZ", FileKind.JSONL),
        ("a.ndjson", FileKind.JSONL),
        ("a.txt.gz", FileKind.TEXT),
    ],
)
def test_the_extension_tells_the_kind(name: str, kind: FileKind) -> None:
    assert file_kind(name) is kind


def test_a_plan_counts_the_rows_that_will_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"t": "x"}\n\n{"t": "y"}\nbroken\n')
    (tmp_path / "b.txt").write_text("x\n\ny")
    pq.write_table(pa.table({"t": ["x"] * 5}), tmp_path / "c.parquet")
    urls = [str(tmp_path / name) for name in ("a.jsonl", "b.txt", "c.parquet")]
    units = [unit for plan in plan_caption_files(urls) for unit in plan.units]
    assert [(u.name, u.planned.stop) for u in units] == [("a", 3), ("b", 3), ("c", 5)]
    assert [len(list(caption_rows(url, ["t"]))) for url in urls] == [3, 3, 5]


def test_changed_content_changes_the_identity_and_a_touched_file_does_not(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one")
    (before,) = next(plan_caption_files([str(file)])).units
    file.touch()
    assert next(plan_caption_files([str(file)])).units == (before,)
    file.write_text("two")
    assert next(plan_caption_files([str(file)])).units != (before,)


def test_a_cut_off_gzip_file_is_a_users_error(tmp_path: Path) -> None:
    whole = gzip.compress(b"".join(b"line %d\n" % i for i in range(1000)))
    (tmp_path / "a.txt.gz").write_bytes(whole[:-50])
    with pytest.raises(UserError, match="damaged gzip"):
        list(caption_rows(str(tmp_path / "a.txt.gz"), ["t"]))


def test_a_parquet_file_that_is_none_is_a_users_error(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"hello, world")
    with pytest.raises(UserError, match="not a Parquet file"):
        check_columns(str(tmp_path / "a.parquet"), ["t"])


def test_nulls_and_lists_in_parquet_are_captions(tmp_path: Path) -> None:
    pq.write_table(pa.table({"t": [["a", "b"], None, []]}), tmp_path / "a.parquet")
    rows = list(caption_rows(str(tmp_path / "a.parquet"), ["t"]))
    assert [list(row.captions["t"]) for row in rows] == [["a", "b"], [None], []]


def test_a_parquet_file_with_damaged_pages_is_named(tmp_path: Path) -> None:
    path = tmp_path / "captions.parquet"
    pq.write_table(pa.table({"text": ["a red barn"] * 100}), path)
    content = bytearray(path.read_bytes())
    content[4:40] = b"\xff" * 36
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"captions\.parquet: damaged Parquet"):
        list(caption_rows(str(path), ["text"]))

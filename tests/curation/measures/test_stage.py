import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from dataset_files import data_of
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from curation.measures.stage import numbers_of
from pipelines import measure
from pipelines.command import run
from schemas.reading import open_dataset
from schemas.tables import MEASURES


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """Three pictures, a broken one, and the metadata of a LAION-like source."""
    extras = [
        {"aesthetic": 5.5, "similarity": 0.31, "punsafe": None, "NSFW": "UNLIKELY", "width": 800, "exif": {"iso": 100}},
        {},
        {"aesthetic": float("nan"), "pwatermark": 1, "blocked": True, "hash": 10**400},
    ]
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for number, extra in enumerate(extras):
            buffer = io.BytesIO()
            picture = Image.radial_gradient("L").convert("RGB").resize((90 + number, 70))
            picture.rotate(number).save(buffer, "JPEG")
            _add(tar, f"{number}.jpg", buffer.getvalue())
            _add(tar, f"{number}.json", json.dumps(extra).encode())
        _add(tar, "9.jpg", b"\xff\xd8\xff broken")
    return tmp_path / "s.tar"


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def arguments(shard: Path, out: Path, *more: str) -> list[str]:
    return ["--shards", str(shard), "--source", "webdataset", "--out", str(out), *more]


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [row for table in open_dataset(str(out), "measures").tables(MEASURES) for row in table.to_pylist()]


def test_each_readable_picture_has_a_row_with_the_numbers_of_its_source(shard: Path, tmp_path: Path) -> None:
    assert measure.main(arguments(shard, tmp_path / "out")) == 0
    rows = rows_of(tmp_path / "out")
    assert [(row["key"], row["shard"], row["width"], row["height"]) for row in rows] == [
        ("0", "s", 90, 70),
        ("1", "s", 91, 70),
        ("2", "s", 92, 70),
    ]
    assert [dict(row["extra"]) for row in rows] == [
        {"aesthetic": 5.5, "similarity": 0.31, "width": 800.0},
        {},
        {"pwatermark": 1.0},
    ]
    assert all(row["phash"] and row["luma_std"] > 1 and row["sharpness"] > 0 for row in rows)
    (entry,) = open_dataset(str(tmp_path / "out"), "measures").require_whole().entries
    assert (entry.rows_kept, entry.rejected) == (3, {"corrupt": 1})


def test_a_second_run_does_nothing_and_one_elsewhere_writes_the_same_bytes(
    shard: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert measure.main(arguments(shard, tmp_path / "out")) == 0
    assert measure.main(arguments(shard, tmp_path / "out")) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert measure.main(arguments(shard, tmp_path / "again", "--decode-threads", "0")) == 0
    assert data_of(tmp_path / "out") == data_of(tmp_path / "again")


@pytest.mark.parametrize("change", [["--decode-threads", "-1"], ["--min-side", "2"]])
def test_numbers_that_cannot_work_are_one_line(
    shard: Path, tmp_path: Path, change: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        run(measure.main, arguments(shard, tmp_path / "out", *change))
    assert exit_.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {change[0]}")
    assert said.count("\n") == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=5,
)


@given(st.dictionaries(st.text(max_size=3), json_values, max_size=6))
def test_only_finite_numbers_are_kept_in_order_of_name(extra: dict[str, Any]) -> None:
    found = numbers_of(extra)
    assert list(found) == sorted(found)
    for name, value in extra.items():
        number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
        assert (name in found) == number
        assert name not in found or found[name] == float(value)

import os
from pathlib import Path

import pytest

from pipelines.written import write_text
from schemas.errors import StorageError


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    place = tmp_path / "folder" / "result.json"
    for text in ("first\n", "second\n"):
        write_text(place, text)
        assert place.read_text() == text
    assert [path.name for path in place.parent.iterdir()] == ["result.json"]


def test_a_link_is_written_through_and_stays(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_text(tmp_path / "link", "said\n")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "said\n"


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_text(tmp_path / "pipe", "said\n")
    assert os.read(reader, 100) == b"said\n"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("name", ["", "file/result.json"])
def test_a_place_that_cannot_be_written_is_named_and_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError, match="cannot be written"):
        write_text(tmp_path / name, "said\n")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "mine")]

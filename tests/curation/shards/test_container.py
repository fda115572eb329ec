import io
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from curation.shards.container import check_container, index_container, open_container, stamp_of
from schemas.errors import UserError
from schemas.status import RejectReason

CONTENT = {f"k{i:03d}": os.urandom(2000 + i) for i in range(40)}


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as file:
        for key, content in CONTENT.items():
            for extension, data in (("jpg", content), ("txt", key.encode())):
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("where", ["local", "memory"])
def test_members_are_read_at_random_from_many_threads_at_once(tar: Path, where: str) -> None:
    url = str(tar)
    if where == "memory":
        url = "memory://container/a.tar"
        fsspec.filesystem("memory").pipe("/container/a.tar", tar.read_bytes())
    identity, samples = index_container(url, "tar", "a")
    assert (identity.name, identity.bytes) == ("a", tar.stat().st_size)
    container = open_container(url, "tar")
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda s: (s.key, container.read(s, ["jpg", "txt"])), samples * 10))
    finally:
        container.close()
    assert all(members == {"jpg": CONTENT[key], "txt": key.encode()} for key, members in found)


def test_closing_gives_the_file_back(tar: Path) -> None:
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    for _ in range(50):
        open_container(str(tar), "tar").close()
        index_container(str(tar), "tar", "a")
        check_container(str(tar), "tar")
    after = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    assert len(after) <= len(before) + 1


def test_the_same_content_has_the_same_digest_wherever_it_lies(tar: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.tar"
    copy.write_bytes(tar.read_bytes())
    assert index_container(str(tar), "tar", "a")[0].digest == index_container(str(copy), "tar", "a")[0].digest
    changed = bytearray(tar.read_bytes())
    changed[600] ^= 1
    copy.write_bytes(changed)
    assert index_container(str(tar), "tar", "a")[0].digest != index_container(str(copy), "tar", "a")[0].digest


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    for name in ("a.jpg", "a.k.jpg", "a.txt", "d/a.jpg", ".hidden.jpg", ".git/b.jpg", "notes", "d/x.2024.01.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def test_a_folder_groups_by_the_last_dot_wherever_names_sort(pictures: Path) -> None:
    _, samples = index_container(str(pictures), "folder", "p")
    assert {s.key: (s.extensions, s.refused) for s in samples} == {
        "a": (("jpg", "txt"), None),
        "a.k": (("jpg",), None),
        "d/a": (("jpg",), None),
        "d/x.2024.01": (("jpg",), None),
        "notes": (("",), RejectReason.BAD_KEY),
    }
    container = open_container(str(pictures), "folder")
    assert container.read(samples[0], ["jpg", "txt"]) == {"jpg": b"a.jpg", "txt": b"a.txt"}


def test_broken_links_and_devices_in_a_folder_are_refused_and_good_links_are_read(pictures: Path) -> None:
    (pictures / "broken.jpg").symlink_to("nowhere.jpg")
    (pictures / "good.jpg").symlink_to("a.jpg")
    os.mkfifo(pictures / "pipe.jpg")
    samples = {s.key: s for s in index_container(str(pictures), "folder", "p")[1]}
    assert samples["broken"].refused is samples["pipe"].refused is RejectReason.BAD_KEY
    assert samples["broken"].detail == "the member with extension 'jpg' is a link or device, not a regular file"
    assert open_container(str(pictures), "folder").read(samples["good"], ["jpg"]) == {"jpg": b"a.jpg"}


def test_the_stamp_changes_when_a_file_is_added_removed_or_touched(pictures: Path) -> None:
    stamps = [stamp_of(str(pictures), "folder")]
    (pictures / "new.jpg").touch()
    stamps.append(stamp_of(str(pictures), "folder"))
    os.utime(pictures / "new.jpg", (1, 1))
    stamps.append(stamp_of(str(pictures), "folder"))
    (pictures / "new.jpg").unlink()
    assert len({stamp for _, stamp in stamps}) == 3
    assert stamp_of(str(pictures), "folder") == stamps[0]


def test_the_wrong_kind_of_container_is_told_in_one_line(tar: Path, pictures: Path, tmp_path: Path) -> None:
    check_container(str(tar), "tar")
    check_container(str(pictures), "folder")
    with pytest.raises(UserError, match=r"a.tar: not a folder. This source reads folders of pictures"):
        check_container(str(tar), "folder")
    with pytest.raises(UserError, match=r"pictures: a folder, not a tar file"):
        check_container(str(pictures), "tar")
    (tmp_path / "b.tar").write_bytes(b"\xff\xd8" * 400)
    with pytest.raises(UserError, match=r"b.tar: not a tar file. Check the path"):
        check_container(str(tmp_path / "b.tar"), "tar")


def test_a_shard_that_vanished_or_cannot_be_read_is_told_in_one_line(tmp_path: Path) -> None:
    missing, loop = tmp_path / "gone.tar", tmp_path / "loop.tar"
    loop.symlink_to(loop)
    for path in (missing, loop):
        with pytest.raises(UserError, match=r"cannot be read \(.*\). Check that it is there and readable") as error:
            index_container(str(path), "tar", "a")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("where", ["local", "memory", "folder"])
def test_the_head_of_a_member_is_read_alone(tar: Path, pictures: Path, where: str) -> None:
    url, kind, extension = str(tar), "tar", "txt"
    if where == "memory":
        url = "memory://container/b.tar"
        fsspec.filesystem("memory").pipe("/container/b.tar", tar.read_bytes())
    if where == "folder":
        url, kind, extension = str(pictures), "folder", ""
    _, samples = index_container(url, kind, "a")
    sample = next(s for s in samples if s.refused is None)
    extension = extension or sample.extensions[0]
    container = open_container(url, kind)
    try:
        whole = container.read(sample, [extension])[extension]
        assert container.head(sample, extension, 2) == whole[:2]
        assert container.head(sample, extension, 1 << 20) == whole
    finally:
        container.close()


def test_an_empty_member_is_not_asked_of_a_store_which_would_give_the_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cat_file = MemoryFileSystem.cat_file

    def by_range(self: Any, path: str, start: int = 0, end: int | None = None, **named: Any) -> bytes:
        """As S3 does: `bytes=5-4` is no range, and a header that says nothing is passed over."""
        return cat_file(self, path) if end is not None and end <= start else cat_file(self, path, start, end, **named)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", by_range)
    path = tmp_path / "c.tar"
    with tarfile.open(path, "w") as file:
        for name, content in (("a.jpg", b"picture"), ("a.txt", b"")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    fsspec.filesystem("memory").pipe("/container/c.tar", path.read_bytes())
    (sample,) = index_container("memory://container/c.tar", "tar", "c")[1]
    container = open_container("memory://container/c.tar", "tar")
    assert container.read(sample, ["jpg", "txt"]) == {"jpg": b"picture", "txt": b""}
    assert container.head(sample, "txt", 9) == b""


def test_an_empty_folder_is_refused_before_it_makes_an_empty_dataset(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"an empty folder\. Check the path"):
        check_container(str(tmp_path), "folder")
    (tmp_path / "a.jpg").touch()
    check_container(str(tmp_path), "folder")

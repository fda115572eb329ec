import os
from pathlib import Path

import fsspec
import pytest

from curation.shards.urls import expand_shards, shard_name
from schemas.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("s-000.tar", "s-001.tar", "s-002.tar", "t-000.tar"):
        (tmp_path / name).touch()
    return tmp_path


def names(*patterns: object) -> list[str]:
    return [os.path.basename(url) for url in expand_shards([str(pattern) for pattern in patterns])]


def refusal(*patterns: object) -> str:
    with pytest.raises(UserError) as error:
        names(*patterns)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_braces_globs_and_paths_may_be_mixed_and_overlap(folder: Path) -> None:
    assert names(folder / "s-{000..002}.tar") == ["s-000.tar", "s-001.tar", "s-002.tar"]
    assert names(folder / "{t,s}-000.tar", folder / "s-*.tar") == ["s-000.tar", "s-001.tar", "s-002.tar", "t-000.tar"]
    assert names(folder / "s-00[02].tar") == ["s-000.tar", "s-002.tar"]
    assert names(folder / "?-000.tar", folder / "t-000.tar") == ["s-000.tar", "t-000.tar"]


def test_relative_paths_are_the_same_shard_as_absolute_ones(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert expand_shards(["s-000.tar", str(folder / "s-000.tar"), "./s-000.tar"]) == (str(folder / "s-000.tar"),)


def test_a_path_with_brackets_that_exists_is_itself(folder: Path) -> None:
    (folder / "part[1].tar").touch()
    assert names(folder / "part[1].tar") == ["part[1].tar"]


def test_a_missing_shard_in_a_range_is_named(folder: Path) -> None:
    message = refusal(folder / "s-{000..003}.tar")
    assert message == f"{folder}/s-003.tar: no such shard. Check the path or the range in the braces."


def test_a_glob_that_matches_nothing_says_so(folder: Path) -> None:
    assert "u-*.tar: matches nothing. Check the path, and quote the pattern" in refusal(folder / "u-*.tar")


def test_unbalanced_braces_are_explained(folder: Path) -> None:
    assert "unbalanced braces" in refusal(folder / "s-{000..tar")


def test_two_shards_of_one_name_are_refused_with_both_paths(folder: Path) -> None:
    (folder / "other").mkdir()
    (folder / "other/s-000.tar").touch()
    message = refusal(folder / "s-000.tar", folder / "other/s-000.tar")
    assert "two shards named s-000, their outputs would collide" in message
    assert f"{folder}/s-000.tar" in message
    assert f"{folder}/other/s-000.tar" in message


def test_a_shard_whose_name_is_not_utf8_is_refused(folder: Path) -> None:
    try:
        os.close(os.open(os.fsencode(folder) + b"/caf\xe9.tar", os.O_CREAT))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert "the name is not UTF-8. Rename it" in refusal(folder / "*.tar")


def test_an_unknown_protocol_is_told_in_one_line() -> None:
    assert "Protocol not known" in refusal("nonsense://bucket/{000..001}.tar")


def test_urls_keep_their_protocol() -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe({"/urls/a-0.tar": b"", "/urls/a-1.tar": b""})
    try:
        expected = ("memory:///urls/a-0.tar", "memory:///urls/a-1.tar")
        assert expand_shards(["memory://urls/*"]) == expected
        assert expand_shards(["memory:///urls/a-{0..1}.tar"]) == expected
    finally:
        fs.rm("/urls", recursive=True)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("/d/a.tar", "a"),
        ("a.TAR", "a"),
        ("/d/a.b.tar", "a.b"),
        ("/d/photos", "photos"),
        ("/d/photos/", "photos"),
        ("/d/photos.2024", "photos.2024"),
        ("s3://b/c.parquet", "c"),
        (".tar", ".tar"),
    ],
)
def test_a_shard_is_named_by_its_file_without_the_extension(url: str, name: str) -> None:
    assert shard_name(url) == name

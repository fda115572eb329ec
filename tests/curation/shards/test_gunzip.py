"""Tars packed by gzip: listed, read from start to end, and found out where they are damaged."""

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.shards.container import check_container, index_container, read_archive
from curation.shards.gunzip import Gunzip
from schemas.errors import UserError
from schemas.status import RejectReason

FILES = {f"./000/{n}.jpg": os.urandom(700 * n) for n in range(6)}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    with tarfile.open(tmp_path / "000.tgz", "w:gz") as tar:
        for name, content in FILES.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return tmp_path / "000.tgz"


def test_every_member_comes_with_its_content(archive: Path) -> None:
    check_container(str(archive), "tgz")
    assert {member.name: content for member, content in read_archive(str(archive), gunzip=True)} == FILES


def test_it_is_listed_like_a_plain_tar(archive: Path) -> None:
    identity, samples = index_container(str(archive), "tgz", "000")
    assert identity.bytes == archive.stat().st_size
    assert [sample.key for sample in samples] == [f"000/{n}" for n in range(6)]
    assert not any(sample.refused for sample in samples)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_one_that_was_cut_short_lists_what_is_whole_and_that_more_is_missing(archive: Path, share: float) -> None:
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(len(whole) * share)])
    _, samples = index_container(str(archive), "tgz", "000")
    assert samples[-1].refused == RejectReason.TRUNCATED_MEMBER
    with pytest.raises(UserError, match=r"000\.tgz: the archive .* Fetch it again"):
        list(read_archive(str(archive), gunzip=True))


def test_a_plain_tar_is_not_taken_for_one(tmp_path: Path) -> None:
    (tmp_path / "x.tgz").write_bytes(bytes(10240))
    with pytest.raises(UserError, match="not a gzip file"):
        check_container(str(tmp_path / "x.tgz"), "tgz")


def test_a_wrong_checksum_at_the_end_is_noticed_though_every_member_came(archive: Path) -> None:
    whole = archive.read_bytes()
    archive.write_bytes(whole[:-8] + bytes(8))
    _, samples = index_container(str(archive), "tgz", "000")
    assert samples[-1].refused == RejectReason.TRUNCATED_MEMBER
    with pytest.raises(UserError, match="damaged or cut short behind its last member"):
        list(read_archive(str(archive), gunzip=True))


@given(st.binary(max_size=2000), st.integers(1, 200))
def test_a_stream_that_was_cut_gives_a_beginning_of_the_content_and_says_so(content: bytes, cut: int) -> None:
    packed = gzip.compress(content)
    stream = Gunzip(io.BytesIO(packed[: max(1, len(packed) - cut)]))
    read = b""
    while part := stream.read(64):
        read += part
    assert content.startswith(read)
    assert stream.ends_broken()

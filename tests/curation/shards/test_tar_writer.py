import hashlib
import io
import tarfile
from pathlib import Path

import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from curation.shards.tar_scan import scan_tar
from curation.shards.tar_writer import TarWriter, quote_key

PART = st.text(st.characters(codec="utf-8", exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1)
KEYS = st.lists(PART, min_size=1, max_size=3).map("/".join)


def tar_of(*members: tuple[str, bytes]) -> tuple[bytes, list[int]]:
    buffer = io.BytesIO()
    writer = TarWriter(buffer)
    offsets = [writer.add(name, content) for name, content in members]
    writer.finish()
    return buffer.getvalue(), offsets


@given(st.lists(st.tuples(KEYS.map(lambda key: f"{quote_key(key)}.npy"), st.binary(max_size=1200)), max_size=5))
def test_what_is_written_reads_back_at_the_offsets_that_were_given(members: list[tuple[str, bytes]]) -> None:
    data, offsets = tar_of(*members)
    assert tar_of(*members)[0] == data
    assert [data[o : o + len(content)] for o, (_, content) in zip(offsets, members, strict=True)] == [
        content for _, content in members
    ]
    scan = scan_tar(io.BytesIO(data), "x")
    assert [(m.name, m.offset) for m in scan.members] == [(n, o) for (n, _), o in zip(members, offsets, strict=True)]
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8") as tar:
        assert [(m.name, tar.extractfile(m).read()) for m in tar] == members


def test_the_bytes_are_these_for_good() -> None:
    # A change here changes every feature shard that anybody wrote: raise the stage versions with it.
    data, _ = tar_of(("a.npy", b"abc"), ("ü/" + "long" * 40 + ".npy", b""))
    assert len(data) == 512 * 7
    assert hashlib.sha256(data).hexdigest() == "7569c46f6a697a1c5e9ee6f80b93ae1765255d6ebcc076f664c9ec4b692b98c8"


def test_webdataset_reads_every_sample_under_its_key(tmp_path: Path) -> None:
    keys = ["a", "d/b", "folder/" * 30 + "deep", "n" * 150, "ü☃", "v1.5/photo.2024.01", "50%"]
    path = tmp_path / "a.tar"
    path.write_bytes(tar_of(*((f"{quote_key(key)}.latent.npy", key.encode()) for key in keys))[0])
    dataset = webdataset.WebDataset(str(path), shardshuffle=False)
    found = {sample["__key__"]: sample["latent.npy"].decode() for sample in dataset}
    assert list(found.values()) == keys
    assert list(found) == [quote_key(key) for key in keys]


@pytest.mark.parametrize(
    ("key", "quoted"),
    [("a", "a"), ("a.b", "a%2Eb"), ("x.y/a.b", "x.y/a%2Eb"), ("50%", "50%25"), ("a%2Eb", "a%252Eb"), ("..", "%2E%2E")],
)
def test_dots_of_the_base_name_alone_are_escaped(key: str, quoted: str) -> None:
    assert quote_key(key) == quoted


@given(st.sets(KEYS, max_size=20))
def test_different_keys_stay_different(keys: set[str]) -> None:
    assert len({quote_key(key) for key in keys}) == len(keys)

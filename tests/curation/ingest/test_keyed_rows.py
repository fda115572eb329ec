"""Keyed texts from every form in which they are published."""

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.ingest.keyed_rows import KeyedBy, keyed_rows, split_key
from curation.shards import tar_scan
from schemas.errors import UserError

TEXTS = {"captions/sa_1.txt": "A cat.", "captions/sa_2.txt": "\ufeffTwo cats – café.", "captions/README.md": "no"}
EXPECTED = [("captions/sa_1", "A cat."), ("captions/sa_2", "Two cats – café.")]


def write_tar(path: Path, files: Mapping[str, bytes], mode: str) -> str:
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return str(path)


def as_folder(folder: Path) -> str:
    for name, text in TEXTS.items():
        (folder / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "all" / name).write_text(text, encoding="utf-8")
    return str(folder / "all")


def as_tar(folder: Path) -> str:
    return write_tar(folder / "all.tar", {name: text.encode() for name, text in TEXTS.items()}, "w")


def as_tar_gz(folder: Path) -> str:
    return write_tar(folder / "all.tar.gz", {name: text.encode() for name, text in TEXTS.items()}, "w:gz")


def as_zip(folder: Path) -> str:
    with zipfile.ZipFile(folder / "all.zip", "w") as archive:
        for name, text in TEXTS.items():
            archive.writestr(name, text)
    return str(folder / "all.zip")


@pytest.mark.parametrize("write", [as_folder, as_tar, as_tar_gz, as_zip])
def test_txt_files_are_keyed_by_their_path(tmp_path: Path, write: Callable[[Path], str]) -> None:
    assert list(keyed_rows(write(tmp_path), KeyedBy())) == EXPECTED


def test_by_name_only_what_follows_the_last_slash_counts(tmp_path: Path) -> None:
    rows = list(keyed_rows(as_tar(tmp_path), KeyedBy(by_name=True)))
    assert [key for key, _ in rows] == ["sa_1", "sa_2"]


ROWS = [
    {"img_path": "./000/a.jpg", "Task2": {"Caption": "One."}},
    {"img_path": "./000/b.jpg", "Task2": {}},
    {"img_path": "000/c", "Task2": {"Caption": None}},
]


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "jsonl.tgz"])
def test_jsonl_rows_are_keyed_by_a_column_and_texts_may_lie_deeper(tmp_path: Path, form: str) -> None:
    content = "\n".join(map(json.dumps, ROWS)).encode() + b"\n\n"
    path = tmp_path / f"all.{form}"
    if form == "jsonl.tgz":
        write_tar(path, {"anno.jsonl": content}, "w:gz")
    else:
        path.write_bytes(gzip.compress(content) if form.endswith("gz") else content)
    keyed = KeyedBy(key="img_path", text="Task2.Caption")
    assert list(keyed_rows(str(path), keyed)) == [("000/a", "One."), ("000/b", None), ("000/c", None)]
    whole = dict(keyed_rows(str(path), KeyedBy(key="img_path", text=None)))
    assert json.loads(whole["000/b"] or "") == ROWS[1]


def test_parquet_rows_may_name_their_shard_too(tmp_path: Path) -> None:
    path = tmp_path / "all.parquet"
    pq.write_table(pa.table({"shard": ["s0", "s1"], "key": ["a/1", "a/1"], "caption": ["x", None]}), path)
    keyed = KeyedBy(shard="shard")
    rows = list(keyed_rows(str(path), keyed))
    assert rows == [(keyed.of_sample("a/1", "s0"), "x"), (keyed.of_sample("a/1", "s1"), None)]
    assert [split_key(key) for key, _ in rows] == [("a/1", "s0"), ("a/1", "s1")]


@pytest.mark.parametrize(
    ("key", "expected"),
    [("./a/b.jpg", "a/b"), ("a/b.JPEG", "a/b"), ("sa_1.txt", "sa_1"), ("v1.5/x", "v1.5/x"), ("a.b", "a.b"), ("7", "7")],
)
def test_keys_lose_what_is_no_part_of_a_sample_s_key(key: str, expected: str) -> None:
    assert KeyedBy().of(key, None) == expected


def test_half_a_character_counts_as_no_text(tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    path.write_text('{"key": "a", "caption": "\\ud83d"}')
    assert list(keyed_rows(str(path), KeyedBy())) == [("a", None)]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.csv", b"a,b", "texts are read from a folder"),
        ("x.jsonl", b'{"key": 1}\n{oops}', "line 2 is not JSON"),
        ("x.jsonl", b"[1]", "line 1 holds a list"),
        ("x.jsonl", b'{"id": "a"}', "no key; it has id"),
        ("x.jsonl", b'{"key": "a", "caption": 3}', "caption is a int"),
        ("x.jsonl", b'{"key": "\\ud83d", "caption": "c"}', "line 1: .* names no sample"),
        ("x.parquet", b"nonsense", "not readable as Parquet"),
        ("x.zip", b"nonsense", "not a zip file"),
        ("x.tar.gz", b"nonsense", "empty file"),
        ("x.jsonl.gz", gzip.compress(b'{"key": "a", "caption": "b"}' * 999)[:-12], "damaged or cut short"),
        ("x.jsonl.tgz", b"nonsense", "not a gzip file"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words) as told:
        list(keyed_rows(str(tmp_path / name), KeyedBy()))
    assert "\n" not in str(told.value)


def test_parquet_that_is_damaged_within_or_not_utf8_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"key": [str(n) for n in range(99)], "caption": ["a"] * 99}), path)
    content = bytearray(path.read_bytes())
    content[4:60] = bytes(byte ^ 0x5A for byte in content[4:60])
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"not readable as Parquet [^\n]*$"):
        list(keyed_rows(str(path), KeyedBy()))
    latin1 = pa.StringArray.from_buffers(1, *pa.array([b"caf\xe9"], pa.binary()).buffers()[1:])
    pq.write_table(pa.table({"key": ["a"], "caption": latin1}), path)
    with pytest.raises(UserError, match="a text in it is not UTF-8"):
        list(keyed_rows(str(path), KeyedBy()))


def test_an_archive_that_was_cut_short_is_an_error_and_not_fewer_captions(tmp_path: Path) -> None:
    texts = {f"sa_{n}.txt": f"{n * 7919:x} ".encode() * 40 for n in range(200)}
    whole = Path(write_tar(tmp_path / "all.tar.gz", texts, "w:gz")).read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cut\.tar\.gz: the archive"):
        list(keyed_rows(str(tmp_path / "cut.tar.gz"), KeyedBy()))


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda tar: gzip.compress(tar[:1024]), "no end marker"),
        (lambda tar: gzip.compress(tar[:1300]), "no end marker"),
        (lambda tar: gzip.compress(tar[:1600]), "the archive stops at byte 1600, inside ./1.jsonl"),
        (lambda tar: gzip.compress(flipped(tar, 1124)), "damaged header at byte 1024"),
        (lambda tar: gzip.compress(tar)[:-9], "gzip stream is damaged|no end marker"),
        (lambda tar: gzip.compress(tar, 0).replace(b'"0"', b'"9"', 1), "gzip stream is damaged"),
    ],
)
def test_packed_lines_of_a_damaged_archive_are_an_error_and_not_fewer_captions(
    tmp_path: Path, damage: Callable[[bytes], bytes], words: str
) -> None:
    lines = {f"{n}.jsonl": b'{"key": "a", "caption": "%d"}\n' % n * 8 for n in range(2)}
    tar = Path(write_tar(tmp_path / "all.tar", lines, "w")).read_bytes()
    path = tmp_path / "all.jsonl.tgz"
    path.write_bytes(gzip.compress(tar))
    assert len(list(keyed_rows(str(path), KeyedBy()))) == 16
    path.write_bytes(damage(tar))
    with pytest.raises(UserError, match=words):
        list(keyed_rows(str(path), KeyedBy()))


def test_packed_lines_may_lie_across_the_pieces_that_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_scan, "_CHUNK", 7)
    rows = [{"key": f"k{n}", "caption": "é" * n} for n in range(1, 40)]
    content = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    path = write_tar(tmp_path / "all.jsonl.tgz", {"a.jsonl": content, "b.txt": content}, "w:gz")
    assert list(keyed_rows(path, KeyedBy())) == [(row["key"], row["caption"]) for row in rows]


def test_txt_files_cannot_name_a_shard(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leave out --shard-column"):
        list(keyed_rows(as_tar(tmp_path), KeyedBy(shard="shard")))

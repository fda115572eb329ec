import io
import struct
import tarfile
from collections.abc import Callable
from itertools import pairwise

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from curation.shards.tar_scan import Member, TarScan, check_first_block, scan_tar
from schemas.errors import UserError

BLOCK = 512
Entry = tuple[str, bytes]


def tar_of(*entries: Entry, format: int = tarfile.GNU_FORMAT, end: bool = True) -> bytes:
    """A tar as Python writes it, without the padding to 10 KiB."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format, encoding="utf-8", errors="surrogateescape") as tar:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        length = tar.offset
    return buffer.getvalue()[:length] + (bytes(2 * BLOCK) if end else b"")


def header(name: str, type_: bytes = tarfile.REGTYPE, size: int = 0, linkname: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = type_, size, linkname
    return info.tobuf(tarfile.GNU_FORMAT)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % BLOCK)


def scan(data: bytes) -> TarScan:
    found = scan_tar(io.BytesIO(data), "a.tar")
    assert found.bytes == len(data)
    assert found.digest == xxhash.xxh3_128_hexdigest(data)
    return found


def contents(data: bytes, members: tuple[Member, ...]) -> list[Entry]:
    return [(m.name, data[m.offset : m.offset + m.size]) for m in members]


ONE, TWO = ("a.jpg", b"x" * 700), ("b.jpg", b"y" * 1000)

NAMES = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=60),
    st.text("abc./é☃", min_size=1, max_size=300).filter(lambda name: not name.endswith("/")),
)


@given(
    entries=st.lists(st.tuples(NAMES, st.binary(max_size=1500)), max_size=6),
    format=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_a_healthy_tar_reads_as_pythons_tarfile_reads_it(entries: list[Entry], format: int) -> None:
    data = tar_of(*entries, format=format)
    found = scan(data)
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8") as tar:
        expected = [Member(m.name, m.offset_data, m.size) for m in tar if m.isreg()]
    assert list(found.members) == expected
    assert contents(data, found.members) == entries
    assert found.fault == ""


@given(st.data())
def test_damage_anywhere_is_told_or_lies_inside_a_member_or_changes_nothing(data: st.DataObject) -> None:
    healthy = tar_of(ONE, TWO, ("c.jpg", b"z"))
    at = data.draw(st.integers(0, len(healthy) - 1))
    damaged = bytearray(healthy)
    damaged[at] ^= data.draw(st.integers(1, 255))
    try:
        found = scan(bytes(damaged))
    except UserError:
        assert at < BLOCK  # the very first header is what makes it a tar
        return
    where = [(m.offset, m.offset + m.size) for m in scan(healthy).members]
    intact = [(m.offset, m.offset + m.size) for m in found.members if m.whole]
    in_data_or_padding = any(start <= at < stop + (-stop % BLOCK) for start, stop in where)
    harmless = found.members == scan(healthy).members  # such as the byte that ends a checksum
    assert found.fault or in_data_or_padding or harmless
    assert set(intact) <= set(where)


@given(st.integers(0, 8 * BLOCK))
def test_a_tar_cut_off_anywhere_never_loses_a_member_in_silence(length: int) -> None:
    data = tar_of(ONE, TWO)
    cut = data[:length]
    if length < BLOCK:
        with pytest.raises(UserError):
            scan(cut)
        return
    found = scan(cut)
    whole = [m.name for m in found.members if m.whole]
    assert whole == [name for name, stop in (("a.jpg", 512 + 700), ("b.jpg", 2048 + 1000)) if stop <= length]
    assert bool(found.fault) == (length < len(data) - BLOCK)  # one block of zeros is an end marker


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
def test_long_names_and_names_that_are_not_ascii_come_whole(format: int) -> None:
    names = ["d/" * 120 + "long.jpg", "n" * 101, "n" * 100, "n" * 99, "é" * 99 + ".jpg", "☃/" * 60 + "ü.jpg"]
    data = tar_of(*((name, name.encode()[:9]) for name in names), format=format)
    assert contents(data, scan(data).members) == [(name, name.encode()[:9]) for name in names]


def test_a_name_that_is_not_utf8_is_kept_by_its_bytes() -> None:
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    assert [m.name for m in scan(tar_of((name, b"x"))).members] == [name]


def test_a_size_in_a_pax_header_counts_and_not_that_of_the_member() -> None:
    record = b"13 size=1000\n"
    data = header("p", tarfile.XHDTYPE, len(record)) + padded(record) + header("a.jpg", size=0) + padded(b"x" * 1000)
    assert contents(data, scan(data + bytes(1024)).members) == [("a.jpg", b"x" * 1000)]


def test_a_large_size_in_base_256_is_read() -> None:
    block = bytearray(header("a.jpg"))
    block[124:136] = b"\x80" + (700).to_bytes(11, "big")
    found = scan(checksummed(block) + padded(b"x" * 700) + bytes(1024))
    assert [(m.size, m.whole) for m in found.members] == [(700, True)]


def checksummed(block: bytearray) -> bytes:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def test_a_negative_size_is_damage() -> None:
    block = bytearray(header("b.jpg"))
    block[124:136] = b"\xff" + struct.pack(">q", -512).rjust(11, b"\xff")
    found = scan(tar_of(ONE, end=False) + checksummed(block) + bytes(1024))
    assert [m.name for m in found.members] == ["a.jpg"]
    assert "damaged header at byte 1536 (negative size)" in found.fault


@pytest.mark.parametrize(
    "record", [b"0 path=a\n", b"x path=a\n", b"999 path=a\n", b"2 path=a\n", b"-9 path=a", b"9 size=-\n", b"nothing"]
)
def test_a_malformed_pax_header_is_damage_and_never_a_hang(record: bytes) -> None:
    data = tar_of(ONE, end=False) + header("p", tarfile.XHDTYPE, len(record)) + padded(record) + tar_of(TWO)
    found = scan(data)
    assert [m.name for m in found.members] == ["a.jpg"]
    assert found.fault.startswith("damaged pax header at byte 1536")


def test_a_header_that_claims_a_name_of_gigabytes_is_damage() -> None:
    found = scan(tar_of(ONE, end=False) + header("L", tarfile.GNUTYPE_LONGNAME, 5 << 30) + padded(b"x" * 2000))
    assert "damaged header at byte 1536" in found.fault


def test_the_long_name_of_one_member_does_not_pass_to_the_next() -> None:
    data = tar_of(("n" * 200, b"1"), ("short.jpg", b"2"))
    assert [m.name for m in scan(data).members] == ["n" * 200, "short.jpg"]


def test_a_global_header_does_not_part_a_long_name_from_its_member() -> None:
    long, rest = tar_of(("n" * 200, b"1"))[: 2 * BLOCK], tar_of(("n" * 200, b"1"))[2 * BLOCK :]
    comment = header("g", tarfile.XGLTYPE, 12) + padded(b"12 comment=x")
    assert [m.name for m in scan(long + comment + rest).members] == ["n" * 200]


def test_directories_and_devices_are_no_members_and_links_are_odd_ones() -> None:
    parts = [
        header("d/", tarfile.DIRTYPE),
        header("fifo", tarfile.FIFOTYPE),
        header("d/soft.jpg", tarfile.SYMTYPE, linkname="a.jpg"),
        header("d/hard.jpg", tarfile.LNKTYPE, linkname="a.jpg"),
        header("sparse.jpg", tarfile.GNUTYPE_SPARSE, 3) + padded(b"xyz"),
        header("strange.jpg", b"Q", 3) + padded(b"xyz"),
    ]
    found = scan(b"".join(parts) + tar_of(ONE))
    assert found.fault == ""
    assert [(m.name, m.odd) for m in found.members] == [
        ("d/soft.jpg", "a symbolic link"),
        ("d/hard.jpg", "a hard link"),
        ("sparse.jpg", "a sparse file"),
        ("strange.jpg", "of the unknown type b'Q'"),
        ("a.jpg", ""),
    ]


def test_an_empty_tar_has_no_members_and_no_fault() -> None:
    for blocks in (1, 2, 20):
        found = scan(bytes(BLOCK * blocks))
        assert (found.members, found.fault) == ((), "")


@pytest.mark.parametrize(
    ("spoil", "whole", "fault"),
    [
        (lambda d: d[: -2 * BLOCK], ["a.jpg", "b.jpg"], "no end marker: it stops at byte 3072"),
        (lambda d: d[: 2048 + 999], ["a.jpg"], "stops at byte 3047, inside b.jpg"),
        (lambda d: d[: 2048 + 1010], ["a.jpg", "b.jpg"], "stops at byte 3058, inside b.jpg"),
        (lambda d: d[: 1536 + 100], ["a.jpg"], "no end marker: it stops at byte 1636"),
        (lambda d: d[:1536] + b"?" * 512 + d[2048:], ["a.jpg"], "damaged header at byte 1536"),
        (lambda d: d + d, ["a.jpg", "b.jpg"], "more data behind the end marker"),
        (lambda d: d[:-BLOCK] + b"\1" + d[1 - BLOCK :], ["a.jpg", "b.jpg"], "more data behind the end marker"),
    ],
    ids=["no end", "in content", "in padding", "in header", "header damaged", "joined", "trailing byte"],
)
def test_why_members_may_be_missing_is_part_of_the_result(
    spoil: Callable[[bytes], bytes], whole: list[str], fault: str
) -> None:
    found = scan(spoil(tar_of(ONE, TWO)))
    assert [m.name for m in found.members if m.whole] == whole
    assert fault in found.fault


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "an empty file (0 bytes), not a tar"),
        (b"\x1f\x8b\x08" + bytes(600), "a gzip-compressed file. Uncompress it first"),
        (b"\xff\xd8\xff" + bytes(600), "not a tar file"),
        (b"PK\x03\x04" * 200, "not a tar file"),
        (b"<html>", "not a tar file"),
        (bytes(100), "not a tar file"),
    ],
)
def test_what_is_not_a_tar_is_told_in_one_line(data: bytes, message: str) -> None:
    for look in (lambda file: scan_tar(file, "a.tar"), lambda file: check_first_block(file, "a.tar")):
        with pytest.raises(UserError) as error:
            look(io.BytesIO(data))
        assert str(error.value).startswith(f"a.tar: {message}")
        assert "\n" not in str(error.value)


def test_members_never_overlap() -> None:
    members = scan(tar_of(*((f"{i}.jpg", b"x" * i * 100) for i in range(20)))).members
    assert all(left.offset + left.size <= right.offset for left, right in pairwise(members))

import io
import tarfile
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.shards.grouping import ARCHIVE_FAULT_KEY, Sample, group_members, split_at_first_dot, split_at_last_dot
from curation.shards.tar_scan import Member, scan_tar
from schemas.status import RejectReason


def group(*names: str, fault: str = "") -> dict[str, Sample]:
    samples = group_members([Member(name, 512 * i, 10) for i, name in enumerate(names)], fault)
    assert len({sample.key for sample in samples}) == len(samples)
    return {sample.key: sample for sample in samples}


def refusals(*names: str) -> dict[str, RejectReason | None]:
    return {key: sample.refused for key, sample in group(*names).items()}


def test_members_of_a_key_become_one_sample_in_the_order_of_the_tar() -> None:
    samples = group("b.jpg", "b.json", "a.jpg", "a.json")
    assert [(s.key, s.extensions, s.offsets, s.sizes) for s in samples.values()] == [
        ("b", ("jpg", "json"), (0, 512), (10, 10)),
        ("a", ("jpg", "json"), (1024, 1536), (10, 10)),
    ]
    assert all(s.refused is None and s.detail == "" for s in samples.values())


@pytest.mark.parametrize(
    ("name", "key", "extension"),
    [
        ("a.jpg", "a", "jpg"),
        ("a.b.jpg", "a", "b.jpg"),
        ("v1.5/a.jpg", "v1.5/a", "jpg"),
        ("./a.jpg", "a", "jpg"),
        ("././/d/a.jpg", "d/a", "jpg"),
        ("d/./a.jpg", "d/./a", "jpg"),
        ("sa_1.seg.png", "sa_1", "seg.png"),
        ("a b/ü☃.jpg", "a b/ü☃", "jpg"),
    ],
)
def test_keys_are_kept_whole_and_split_by_webdatasets_rule(name: str, key: str, extension: str) -> None:
    ((found, sample),) = group(name).items()
    assert (found, sample.extensions, sample.refused) == (key, (extension,), None)


def test_equal_stems_in_two_folders_are_two_samples() -> None:
    assert refusals("x/a.jpg", "y/a.jpg", "a.jpg") == {"x/a": None, "y/a": None, "a": None}


def test_the_same_path_with_and_without_dot_slash_is_one_key() -> None:
    assert refusals("./a.jpg", "a.jpg") == {"a": RejectReason.DUPLICATE_KEY}


@pytest.mark.parametrize("name", ["README", ".DS_Store", "._a", "d/.hidden.jpg", "a.", "d/", "", "..", "."])
def test_members_without_a_name_or_an_extension_are_refused_with_a_reason(name: str) -> None:
    ((_, sample),) = group(name).items()
    assert sample.refused is RejectReason.BAD_KEY
    assert sample.detail


@pytest.mark.parametrize("name", ["/a.jpg", "../a.jpg", "d/../a.jpg", "d/..", b"caf\xe9.jpg", b"a.\xff", b"\xe9/a.jpg"])
def test_paths_that_lead_elsewhere_or_are_not_utf8_are_refused(name: str | bytes) -> None:
    text = name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")
    ((key, sample),) = group(text).items()
    assert sample.refused is RejectReason.BAD_KEY
    for part in (key, sample.detail, *sample.extensions):
        part.encode()


def test_a_name_that_is_not_utf8_never_takes_the_key_of_another() -> None:
    samples = group(b"\xff.jpg".decode("utf-8", "surrogateescape"), "\\xff.jpg")
    assert [s.refused for s in samples.values()] == [RejectReason.BAD_KEY]
    assert len(samples["\\xff"].offsets) == 2


def test_two_members_with_one_extension_are_duplicates() -> None:
    found = group("a.jpg", "b.jpg", "a.jpg")
    assert (found["a"].refused, found["b"].refused) == (RejectReason.DUPLICATE_KEY, None)
    assert found["a"].detail == "2 members with extension 'jpg'"


def test_interleaved_members_are_refused_and_their_neighbours_are_not() -> None:
    assert refusals("a.jpg", "b.jpg", "a.json", "c.jpg", "c.json") == {
        "a": RejectReason.INTERLEAVED_KEY,
        "b": None,
        "c": None,
    }


def test_unsorted_but_adjacent_members_are_fine() -> None:
    assert refusals("z.json", "z.jpg", "a.jpg", "a.json") == {"z": None, "a": None}


def test_files_that_macos_puts_between_members_part_no_sample() -> None:
    found = refusals("._a.jpg", "a.jpg", "._a.json", "a.json", ".DS_Store", "b.jpg")
    assert found == {
        "._a.jpg": RejectReason.BAD_KEY,
        "a": None,
        "._a.json": RejectReason.BAD_KEY,
        ".DS_Store": RejectReason.BAD_KEY,
        "b": None,
    }


def test_links_and_cut_off_members_refuse_their_sample() -> None:
    members = [Member("a.jpg", 0, 5), Member("a.json", 0, 0, odd="a hard link"), Member("b.jpg", 9, 5, whole=False)]
    a, b = group_members(members)
    assert (a.refused, a.detail) == (
        RejectReason.BAD_KEY,
        "the member with extension 'json' is a hard link, not a regular file",
    )
    assert (b.refused, b.detail) == (RejectReason.TRUNCATED_MEMBER, "the archive ends inside the member 'jpg'")


def test_a_fault_of_the_archive_is_a_row_of_its_own_with_a_key_of_its_own() -> None:
    assert group("a.jpg", fault="cut")[ARCHIVE_FAULT_KEY].detail == "cut"
    found = group(ARCHIVE_FAULT_KEY, fault="inside caf\udce9")
    assert [s.refused for s in found.values()] == [RejectReason.BAD_KEY, RejectReason.TRUNCATED_MEMBER]
    assert found[ARCHIVE_FAULT_KEY + "'"].detail == "inside caf\\xe9"


def test_dots_in_keys_are_kept_where_the_last_one_splits() -> None:
    assert split_at_first_dot("d.x/photo.2024.jpg") == ("d.x/photo", "2024.jpg")
    assert split_at_last_dot("d.x/photo.2024.jpg") == ("d.x/photo.2024", "jpg")
    assert split_at_last_dot("d.x/photo") is split_at_first_dot("d.x/photo") is None


PARTS = st.sampled_from(["a", "b", "..", ".", "", "a.b", "ü", "\udce9", ".x", ARCHIVE_FAULT_KEY])
NAMES = st.tuples(st.lists(PARTS, min_size=1, max_size=3), st.sampled_from(["", ".jpg", ".json", ".seg.png"])).map(
    lambda parts: "/".join(parts[0]) + parts[1]
)


@given(st.lists(NAMES, max_size=12), st.sampled_from(["", "cut off"]))
def test_every_regular_member_is_in_exactly_one_row_and_keys_are_unique(names: list[str], fault: str) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as tar:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = number
            tar.addfile(info, io.BytesIO(bytes(number)))
    buffer.seek(0)
    scan = scan_tar(buffer, "a.tar")
    members = [member for member in scan.members if not member.odd]
    samples = group_members(members, fault)
    assert max(Counter(sample.key for sample in samples).values(), default=1) == 1
    placed = sorted((o, s) for sample in samples for o, s in zip(sample.offsets, sample.sizes, strict=True))
    assert placed == sorted((member.offset, member.size) for member in members)
    for sample in samples:
        sample.key.encode()
        sample.detail.encode()
        assert sample.refused is not None or len(set(sample.extensions)) == len(sample.extensions) >= 1

"""What each source reads of a sample, and what it makes of it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.refusal import Refusal
from curation.sources.base import ImageSample, Source
from curation.sources.metadata import LONGEST_CAPTION_BYTES
from curation.sources.sam import SamSource
from curation.sources.table import SOURCES, source_named
from schemas.errors import UserError
from schemas.record import canonical_json
from schemas.status import RejectReason

ALL = pytest.mark.parametrize("source", SOURCES.values(), ids=list(SOURCES))
CAPTIONED = pytest.mark.parametrize("source", [SOURCES["webdataset"], SOURCES["folder"]], ids=["webdataset", "folder"])


def read(source: Source, members: Mapping[str, bytes]) -> ImageSample | Refusal:
    """What a shard reader does: ask which members are wanted, and hand those over."""
    wanted = source.members(tuple(members))
    if isinstance(wanted, Refusal):
        return wanted
    return source.sample("folder/key", {extension: members[extension] for extension in wanted})


def sample(source: Source, members: Mapping[str, bytes]) -> ImageSample:
    found = read(source, members)
    assert isinstance(found, ImageSample), found
    assert found.key == "folder/key"
    return found


def reason(source: Source, members: Mapping[str, bytes]) -> RejectReason:
    found = read(source, members)
    assert isinstance(found, Refusal), found
    assert found.detail
    assert "\n" not in found.detail
    return found.reason


def test_sources_are_found_by_their_names() -> None:
    assert set(SOURCES) == {"sam", "sam-masks", "imagenet", "journeydb", "webdataset", "folder"}
    assert all(source_named(name).name == name for name in SOURCES)
    assert {name for name, source in SOURCES.items() if source.container == "folder"} == {"folder"}


def test_an_unknown_source_is_told_with_the_known_ones() -> None:
    with pytest.raises(
        UserError,
        match="no source is called 'laion'; choose from sam, sam-masks, imagenet, journeydb, webdataset, folder",
    ):
        source_named("laion")


@ALL
@pytest.mark.parametrize(
    ("extensions", "expected"),
    [
        ((), RejectReason.NO_IMAGE),
        (("txt", "cls", "json"), RejectReason.NO_IMAGE),
        (("heic", "cls"), RejectReason.NO_IMAGE),
        (("jpg", "png", "cls"), RejectReason.SEVERAL_IMAGES),
        (("jpg", "JPG", "cls"), RejectReason.SEVERAL_IMAGES),
        (("v2.jpg", "cls"), RejectReason.DOTTED_KEY),
        (("v2.JPG", "v3.jpg", "v2.cls"), RejectReason.DOTTED_KEY),
    ],
)
def test_a_sample_without_exactly_one_picture_is_refused_by_its_extensions_alone(
    source: Source, extensions: Sequence[str], expected: RejectReason
) -> None:
    found = source.members(extensions)
    assert isinstance(found, Refusal)
    assert found.reason == expected


@ALL
@pytest.mark.parametrize("extension", ["jpg", "JPG", "jpeg", "JPEG", "png", "webp", "tif", "Gif"])
def test_the_picture_comes_first_and_keeps_the_case_of_its_extension(source: Source, extension: str) -> None:
    wanted = source.members(("mask.png", "cls", "json", "depth.npy", extension, "seg.jpg"))
    assert not isinstance(wanted, Refusal)
    assert wanted[0] == extension
    assert not {"mask.png", "depth.npy", "seg.jpg"} & set(wanted)
    assert sample(source, {"cls": b"7", "json": b"{}", extension: b"picture"}).image == b"picture"


def test_the_masks_of_sa1b_are_not_read_unless_asked_for() -> None:
    assert SOURCES["sam"].members(("jpg", "json")) == ("jpg",)
    assert SamSource(masks=True).members(("json", "jpg")) == ("jpg", "json")


def test_the_masks_of_sa1b_go_to_extra_when_asked_for() -> None:
    record = {"image": {"image_id": 1, "width": 2, "height": 3}, "annotations": [{"bbox": [0.0, 1.0, 2.0, 3.0]}]}
    found = sample(SamSource(masks=True), {"jpg": b"picture", "json": json.dumps(record).encode()})
    assert found == ImageSample("folder/key", b"picture", caption=None, label=None, extra=record)
    assert reason(SamSource(masks=True), {"jpg": b"picture", "json": b"{"}) == RejectReason.BAD_METADATA
    assert reason(SamSource(masks=True), {"jpg": b"picture"}) == RejectReason.BAD_METADATA


@pytest.mark.parametrize("digits", [b"7", b"007", b" 7\n", b"7\r\n"])
def test_imagenet_reads_its_class(digits: bytes) -> None:
    found = sample(SOURCES["imagenet"], {"JPEG": b"picture", "cls": digits, "txt": b"not a caption"})
    assert (found.label, found.caption, found.extra) == (7, None, {})


def test_imagenet_keeps_a_json_in_extra() -> None:
    found = sample(SOURCES["imagenet"], {"jpg": b"picture", "json": b'{"label": 7, "filename": "a"}', "cls": b"7"})
    assert found.extra == {"label": 7, "filename": "a"}


@pytest.mark.parametrize("digits", [b"", b"-1", b"7.0", b"tench", b"1_0", "٧".encode(), b"9999999999", b"7 8", b"\xff"])
@pytest.mark.parametrize("name", ["imagenet", "webdataset", "folder"])
def test_a_class_that_is_no_index_is_refused(name: str, digits: bytes) -> None:
    assert reason(SOURCES[name], {"jpg": b"picture", "cls": digits}) == RejectReason.BAD_METADATA


def test_imagenet_without_a_class_is_refused_before_it_is_read() -> None:
    found = SOURCES["imagenet"].members(("jpg", "json"))
    assert isinstance(found, Refusal)
    assert found.reason == RejectReason.BAD_METADATA


@CAPTIONED
def test_a_picture_alone_is_a_sample(source: Source) -> None:
    assert sample(source, {"jpg": b"picture"}) == ImageSample("folder/key", b"picture", None, None, {})


@CAPTIONED
@pytest.mark.parametrize(
    ("members", "caption"),
    [
        ({"txt": b"a red bus"}, "a red bus"),
        ({"TXT": b"a red bus"}, "a red bus"),
        ({"txt": b"  a red\nbus \r\n"}, "a red\nbus"),
        ({"txt": "\ufeffein Bär".encode()}, "ein Bär"),
        ({"txt": b""}, None),
        ({"txt": b" \n\t"}, None),
        ({"txt": b"mine", "json": b'{"caption": "theirs"}'}, "mine"),
        ({"txt": b" ", "json": b'{"caption": "theirs"}'}, "theirs"),
        ({"json": b'{"caption": " theirs "}'}, "theirs"),
        ({"json": b'{"caption": null}'}, None),
        ({"json": b'{"caption": NaN}'}, None),
        ({"json": b'{"caption": ""}'}, None),
        ({"json": b'{"url": "x"}'}, None),
        ({"json": rb'{"caption": "\ud83d\ude00"}'}, "😀"),
        ({"txt": b"x" * LONGEST_CAPTION_BYTES}, "x" * LONGEST_CAPTION_BYTES),
    ],
)
def test_the_caption_is_the_txt_else_that_of_the_json(
    source: Source, members: dict[str, bytes], caption: str | None
) -> None:
    assert sample(source, {"jpg": b"picture", **members}).caption == caption


@CAPTIONED
@pytest.mark.parametrize(
    "members",
    [
        {"txt": "un été".encode("latin-1")},
        {"txt": "a caption".encode("utf-16")},
        {"txt": b"x" * (LONGEST_CAPTION_BYTES + 1)},
        {"txt": b"one", "TXT": b"two"},
        {"json": b""},
        {"json": b"\xff\xfe"},
        {"json": b"[1, 2]"},
        {"json": b'"caption"'},
        {"json": b'{"caption": "cut of'},
        {"json": b'{"caption": 3}'},
        {"json": b'{"caption": ["a", "b"]}'},
        {"json": rb'{"caption": "\ud83d"}'},
        {"json": rb'{"url": "\ud83d"}'},
        {"json": b"[" * 100_000},
        {"json": b'{"n": ' + b"1" * 10_000 + b"}"},
    ],
)
def test_metadata_that_cannot_be_read_as_they_stand_are_refused(source: Source, members: dict[str, bytes]) -> None:
    assert reason(source, {"jpg": b"picture", **members}) == RejectReason.BAD_METADATA


@CAPTIONED
def test_the_whole_json_is_kept_and_what_json_does_not_know_becomes_null(source: Source) -> None:
    row = b'{"url": "u", "width": 640, "punsafe": NaN, "similarity": -Infinity, "exif": "{}", "caption": "c"}'
    found = sample(source, {"jpg": b"picture", "json": row, "cls": b"3"})
    assert found.extra == {
        "url": "u",
        "width": 640,
        "punsafe": None,
        "similarity": None,
        "exif": "{}",
        "caption": "c",
    }
    assert found.label == 3
    assert canonical_json(dict(found.extra))


@CAPTIONED
@given(text=st.text(max_size=50))
@settings(max_examples=100, deadline=None)
def test_any_text_survives_as_a_caption(source: Source, text: str) -> None:
    expected = text.removeprefix("\ufeff").strip() or None
    assert sample(source, {"jpg": b"picture", "txt": text.encode()}).caption == expected
    record = json.dumps({"caption": text}).encode()
    assert sample(source, {"jpg": b"picture", "json": record}).caption == (text.strip() or None)


@ALL
@given(members=st.dictionaries(st.sampled_from(["jpg", "txt", "json", "cls", "TXT", "v2.jpg"]), st.binary(max_size=30)))
@settings(max_examples=150, deadline=None)
def test_any_bytes_give_a_sample_or_a_refusal(source: Source, members: dict[str, bytes]) -> None:
    found: Any = read(source, members)
    assert isinstance(found, ImageSample | Refusal)
    assert isinstance(read(SamSource(masks=True), members), ImageSample | Refusal)

"""What is written is read by the adapters of the real data sets, as they are."""

import json
from pathlib import Path

import numpy as np
import pytest

from curation.images.decode import Decoded, DecodePolicy, decode
from curation.refusal import Refusal
from curation.scenes.drawing import draw
from curation.scenes.scene import Ground, Scene, Split, Thing, scene
from curation.scenes.sentences import describe
from curation.scenes.shards import mode_of, picture_file, write_imagenet_shards, write_laion_shards, write_sam_shards
from curation.shards.container import index_container, open_container
from curation.sources.base import ImageSample
from curation.sources.table import source_named
from schemas.status import RejectReason


def samples(tar: Path, source: str) -> list[ImageSample]:
    """What the adapter makes of each sample of a tar."""
    adapter, container = source_named(source), open_container(str(tar), "tar")
    made = []
    for one in index_container(str(tar), "tar", tar.stem)[1]:
        wanted = adapter.members(one.extensions)
        assert not isinstance(wanted, Refusal)
        sample = adapter.sample(one.key, container.read(one, wanted))
        assert isinstance(sample, ImageSample)
        made.append(sample)
    return made


def truths(tar: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in tar.with_suffix(".truth.jsonl").read_text().splitlines()]


def test_laion_shards_have_alt_text_and_the_record_of_img2dataset_with_the_truth(tmp_path: Path) -> None:
    _, tar = write_laion_shards(tmp_path, shards=2, rows=6, seed=1, split=Split.NOVEL)
    read = samples(tar, "webdataset")
    assert tar.name == "00001.tar"
    assert [sample.key for sample in read] == [f"00001{row:04d}" for row in range(6)]
    for row, (sample, truth) in enumerate(zip(read, truths(tar), strict=True)):
        one = scene(1, 6 + row, split=Split.NOVEL)
        assert truth["description"] == describe(one)
        assert (sample.caption or "") == truth["alt"]
        assert {"key": sample.key, **sample.extra["truth"]} == truth
        assert (sample.extra["width"], sample.extra["height"]) == (one.width_px, one.height_px)
        assert sample.extra["status"] == "success"


def test_sam_shards_have_its_names_and_no_captions(tmp_path: Path) -> None:
    (tar,) = write_sam_shards(tmp_path, shards=1, rows=3)
    assert tar.name == "sa_000000.tar"
    assert [(s.key, s.caption) for s in samples(tar, "sam")] == [("sa_0", None), ("sa_1", None), ("sa_2", None)]
    assert samples(tar, "sam-masks")[1].extra["image"]["file_name"] == "sa_1.jpg"
    assert [truth["key"] for truth in truths(tar)] == ["sa_0", "sa_1", "sa_2"]


def test_imagenet_shards_have_the_class_of_the_one_thing_there_is(tmp_path: Path) -> None:
    (tar,) = write_imagenet_shards(tmp_path, shards=1, rows=8)
    for sample, truth in zip(samples(tar, "imagenet"), truths(tar), strict=True):
        assert sample.label == truth["label"]
        assert len(truth["things"]) == 1


def test_the_last_pictures_are_broken_in_each_of_the_ways_and_all_others_are_whole(tmp_path: Path) -> None:
    (tar,) = write_laion_shards(tmp_path, shards=1, rows=40, broken=3)
    read = [decode(sample.image, DecodePolicy()) for sample in samples(tar, "webdataset")]
    assert all(isinstance(picture, Decoded) for picture in read[:-3])
    reasons = [picture.reason for picture in read[-3:] if isinstance(picture, Refusal)]
    assert reasons == [RejectReason.CORRUPT, RejectReason.NOT_AN_IMAGE, RejectReason.EMPTY_FILE]
    assert any("cmyk" in picture.notes for picture in read[:-3] if isinstance(picture, Decoded))
    assert {picture.format for picture in read[:-3] if isinstance(picture, Decoded)} == {"JPEG", "PNG"}


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "RGBA", "P"])
def test_an_odd_mode_shows_the_same_picture(mode: str) -> None:
    one = scene(0, 5)
    picture = decode(picture_file(one, mode), DecodePolicy())
    assert isinstance(picture, Decoded)
    assert np.abs(np.asarray(picture.image).astype(int) - np.asarray(draw(one))).mean() < 4


def test_only_what_is_grey_is_kept_grey() -> None:
    thing = Thing("star", "white", "plain", "large", 0.5, 0.5, 0.25)
    grey = Scene(Split.TRAIN, 0, 0, (thing,), Ground("plain", ("black",)), "flat", 64, 64)
    assert mode_of(grey) == "L"
    scenes = [scene(0, number) for number in range(1200)]
    kept = [one for one in scenes if mode_of(one) == "L"]
    assert all(thing.colour in ("white", "black") for one in kept for thing in one.things)
    assert {mode_of(one) for one in scenes} >= {"RGB", "CMYK", "RGBA", "P"}


def test_same_arguments_same_bytes_and_an_unchanged_shard_is_not_touched(tmp_path: Path) -> None:
    (tar,) = write_laion_shards(tmp_path / "a", shards=1, rows=13)
    before = (tar.stat().st_mtime_ns, tar.read_bytes())
    write_laion_shards(tmp_path / "a", shards=1, rows=13)
    (again,) = write_laion_shards(tmp_path / "b", shards=1, rows=13)
    assert (tar.stat().st_mtime_ns, again.read_bytes()) == before
    assert sorted(path.name for path in tar.parent.iterdir()) == ["00000.tar", "00000.truth.jsonl"]


def test_laion_shards_can_hold_pictures_of_so_many_things(tmp_path: Path) -> None:
    [tar] = write_laion_shards(tmp_path, shards=1, rows=6, broken=0, things=2)
    assert [len(truth["things"]) for truth in truths(tar) if isinstance(truth["things"], list)] == [2] * 6

"""Real SA-1B records, ImageNet photographs and COCO captions, read as their shards would hold them."""

import json
from collections.abc import Callable
from pathlib import Path

from curation.sources.base import ImageSample
from curation.sources.sam import SamSource
from curation.sources.table import SOURCES

ReadTar = Callable[[Path], dict[str, bytes]]


def test_sa1b_pictures_are_samples_without_captions(data_folder: Path, read_tar: ReadTar) -> None:
    pictures = read_tar(data_folder / "sa1b-samples" / "sa1b-images.dev.tar")
    source = SOURCES["sam"]
    for name, data in pictures.items():
        assert source.members((name.partition(".")[2], "json")) == ("jpg",)
        assert source.sample(name, {"jpg": data}) == ImageSample(name, data)


def test_real_sa1b_records_are_read_when_asked_for(data_folder: Path) -> None:
    lines = (data_folder / "sa1b-samples" / "sa1b-annotation-records.jsonl").read_bytes().splitlines()
    for line in lines:
        found = SamSource(masks=True).sample("sa_1", {"jpg": b"picture", "json": line})
        assert isinstance(found, ImageSample)
        assert found.extra == json.loads(line)
        assert {"image", "annotations"} <= set(found.extra)


def test_imagenet_photographs_have_their_labels(data_folder: Path, read_tar: ReadTar) -> None:
    folder = data_folder / "imagenet-samples"
    photographs = read_tar(folder / "imagenet-samples.dev.tar")
    source = SOURCES["imagenet"]
    rows = [json.loads(line) for line in (folder / "labels.dev.jsonl").read_text().splitlines()]
    assert len(rows) == len(photographs)
    for row in rows:
        extension = row["file"].partition(".")[2]
        assert source.members((extension, "cls")) == (extension, "cls")
        members = {extension: photographs[row["file"]], "cls": str(row["index"]).encode()}
        found = source.sample(row["wnid"], members)
        assert found == ImageSample(row["wnid"], photographs[row["file"]], label=row["index"])


def test_coco_captions_are_read_from_txt_and_from_json(data_folder: Path) -> None:
    rows = [json.loads(line) for line in (data_folder / "coco-photos" / "captions.dev.jsonl").read_text().splitlines()]
    for row in rows:
        for caption in row["captions"]:
            told = {"caption": caption, "url": row["flickr_url"], "width": row["width"]}
            beside = {"jpg": b"picture", "txt": caption.encode()}
            inside = {"jpg": b"picture", "json": json.dumps(told).encode()}
            for name, members in (("folder", beside), ("webdataset", inside)):
                found = SOURCES[name].sample(row["file"], members)
                assert isinstance(found, ImageSample)
                assert found.caption == caption.strip()

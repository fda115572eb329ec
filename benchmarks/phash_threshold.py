"""How far apart are the hashes of copies, and of other pictures? `python -m benchmarks.phash_threshold --data DIR`

Copies are the near-duplicates of the test data (one photograph in 16 versions) and versions made here of each COCO
photograph. Others are all pairs of distinct photographs: COCO with ImageNet, and the same with Flickr8k, SA-1B and Tiny
ImageNet. Also prints how many pictures a second one thread decodes and measures.
"""

import argparse
import io
import json
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance

from curation.images.decode import Decoded, DecodePolicy, decode
from curation.measures.picture import MEASURED_SIDE, measure_picture, perceptual_hash
from curation.select.duplicates import close_pairs

THRESHOLDS = (0, 2, 4, 6, 8, 10, 12)
TARS = {
    "coco": "coco-photos/coco-photos.dev.tar",
    "imagenet": "imagenet-samples/imagenet-samples.dev.tar",
    "flickr8k": "flickr8k-small/flickr8k-small.dev.tar.gz",
    "sa1b": "sa1b-samples/sa1b-images.dev.tar",
    "tiny": "tiny-imagenet-subset/tiny-imagenet.train.dev.tar.gz",
}


def _jpeg(quality: int) -> Callable[[Image.Image], Image.Image]:
    def encode(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer)

    return encode


def _crop(share: float) -> Callable[[Image.Image], Image.Image]:
    def crop(image: Image.Image) -> Image.Image:
        x, y = round(image.width * share / 2), round(image.height * share / 2)
        return image.crop((x, y, image.width - x, image.height - y))

    return crop


def _border(image: Image.Image) -> Image.Image:
    framed = Image.new("RGB", (round(image.width * 1.1), round(image.height * 1.1)), "white")
    framed.paste(image, (round(image.width * 0.05), round(image.height * 0.05)))
    return framed


VERSIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG quality 30": _jpeg(30),
    "JPEG quality 10": _jpeg(10),
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "squashed to 128 x 128": lambda image: image.resize((128, 128)),
    "brighter by 30 %": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "half the contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.5),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "2 % cropped": _crop(0.02),
    "5 % cropped": _crop(0.05),
    "10 % cropped": _crop(0.10),
    "a white border of 5 %": _border,
    "turned by 2 degrees": lambda image: image.rotate(2, Image.Resampling.BICUBIC),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def main() -> None:
    """Run and print."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--data", type=Path, required=True)
    data = command.parse_args().data
    _near_duplicates(data)
    photographs = {name: [image for _, image in pictures(data / TARS[name])] for name in ("coco", "imagenet")}
    _versions(photographs["coco"])
    hashes = {name: _hashes(images) for name, images in photographs.items()}
    for name in ("flickr8k", "sa1b", "tiny"):
        hashes[name] = _hashes([image for _, image in pictures(data / TARS[name])])
    _others("coco and imagenet", np.concatenate([hashes["coco"], hashes["imagenet"]]))
    _others("all five", np.concatenate(list(hashes.values())))
    _speed(data)


def pictures(path: Path) -> Iterator[tuple[str, Image.Image]]:
    """Name and picture of every member that can be decoded."""
    with tarfile.open(path) as tar:
        for member in tar:
            content = tar.extractfile(member)
            if content is None:
                continue
            decoded = decode(content.read(), DecodePolicy(), at_least=(2 * MEASURED_SIDE, 2 * MEASURED_SIDE))
            if isinstance(decoded, Decoded):
                yield member.name, decoded.image


def _near_duplicates(data: Path) -> None:
    lines = (data / "near-duplicates/groups.dev.jsonl").read_text().splitlines()
    facts = {row["file"]: row for row in map(json.loads, lines)}
    found = {name: _hash(image) for name, image in pictures(data / "near-duplicates/near-duplicates.dev.tar")}
    (original,) = [
        found[name] for name, row in facts.items() if (row["group"], row["relation"]) == ("bridge", "original")
    ]
    distances = {
        row["relation"]: (found[name] ^ original).bit_count() for name, row in facts.items() if row["group"] == "bridge"
    }
    print("near-duplicates, bits from the original:")
    print(
        "  " + ", ".join(f"{relation} {far}" for relation, far in sorted(distances.items(), key=lambda pair: pair[1]))
    )
    others = [(found[name] ^ original).bit_count() for name, row in facts.items() if row["group"] != "bridge"]
    print(f"  other photographs: {min(others)} to {max(others)}")


def _versions(photographs: list[Image.Image]) -> None:
    print(f"versions of {len(photographs)} COCO photographs, share within so many bits of the original:")
    print(f"  {'':24}" + "".join(f"{t:>7}" for t in THRESHOLDS) + "   median")
    originals = [_hash(image) for image in photographs]
    for name, change in VERSIONS.items():
        far = np.array(
            [
                (_hash(change(image).convert("RGB")) ^ first).bit_count()
                for image, first in zip(photographs, originals, strict=True)
            ]
        )
        print(f"  {name:24}" + "".join(f"{(far <= t).mean():7.1%}" for t in THRESHOLDS) + f"   {np.median(far):6.0f}")


def _others(name: str, hashes: npt.NDArray[np.uint64]) -> None:
    pairs = len(hashes) * (len(hashes) - 1) // 2
    distinct = np.unique(hashes)
    counts = {t: len(close_pairs(distinct, t)[0]) + len(hashes) - len(distinct) for t in THRESHOLDS}
    shown = ", ".join(f"{count} within {t}" for t, count in counts.items())
    print(f"other photographs, {name}: {len(hashes):,} pictures, {pairs:,} pairs: {shown}")


def _hashes(images: list[Image.Image]) -> npt.NDArray[np.uint64]:
    return np.array([_hash(image) for image in images], np.uint64)


def _hash(image: Image.Image) -> int:
    found = perceptual_hash(image.convert("L"))
    assert found is not None, "a photograph without detail"
    return found


def _speed(data: Path) -> None:
    start = time.perf_counter()
    count = sum(1 for _ in pictures(data / TARS["coco"]))
    decoding = time.perf_counter() - start
    start = time.perf_counter()
    for _, image in pictures(data / TARS["coco"]):
        measure_picture(image)
    whole = time.perf_counter() - start
    print(
        f"COCO, one thread: {count / whole:.0f} pictures/s decoded and measured, {count / decoding:.0f} decoded alone"
    )


if __name__ == "__main__":
    main()

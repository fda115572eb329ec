"""Write scenes as the data sets of the field lay out theirs: SA-1B, LAION by img2dataset, ImageNet as webdataset.

Beside each tar lies `NAME.truth.jsonl`, a line a picture with its key and all that is true of it. Some pictures are
broken on purpose, as on the web, so that the rejects have something to say; others are kept in odd modes that are fine.
"""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from PIL import Image

from curation.scenes.drawing import draw
from curation.scenes.scene import Scene, Split, scene
from curation.scenes.truth import truth_of
from curation.shards.tar_writer import TarWriter
from curation.sources.base import JSON

_QUALITY: Final = 90
_ODD_EVERY: Final = 12  # one picture in so many is no plain JPEG
_GREYS: Final = frozenset({"white", "black"})
_NOT_FOUND: Final = b"<html><body>404 Not Found</body></html>"

BROKEN: Final = ("truncated", "not a picture", "empty")
"""How pictures are broken, in the order in which they are at the end of a shard."""

TRUTH_SUFFIX: Final = ".truth.jsonl"


def write_laion_shards(
    out: Path,
    *,
    shards: int,
    rows: int,
    seed: int = 0,
    split: Split = Split.TRAIN,
    broken: int = 2,
    things: int | None = None,
    square: bool = False,
) -> list[Path]:
    """Tars `00000.tar`, ... with `KEY.jpg`, `KEY.txt` (alt text) and `KEY.json` as img2dataset writes them; the json
    also has the `truth`. The last `broken` pictures of each tar are damaged. `things` fixes how many each shows;
    with `square` all are squares."""

    def members(one: Scene, row: int, shard: int) -> list[tuple[str, bytes]]:
        key, truth, picture = f"{shard:05d}{row:04d}", truth_of(one), _picture(one, row - (rows - broken))
        record: dict[str, JSON] = {
            "caption": truth["alt"],
            "url": f"https://pictures.example/{one.split}/{one.seed}/{one.number}.jpg",
            "key": key,
            "status": "success",
            "error_message": None,
            "width": one.width_px,
            "height": one.height_px,
            "original_width": one.width_px,
            "original_height": one.height_px,
            "exif": "{}",
            "sha256": hashlib.sha256(picture).hexdigest(),
            "truth": truth,
        }
        return [(f"{key}.jpg", picture), (f"{key}.txt", str(truth["alt"]).encode()), (f"{key}.json", _json(record))]

    return _write(out, "{:05d}.tar", members, shards, rows, seed, split, things, square)


def write_sam_shards(
    out: Path,
    *,
    shards: int,
    rows: int,
    seed: int = 0,
    split: Split = Split.TRAIN,
    broken: int = 0,
    square: bool = False,
) -> list[Path]:
    """Tars `sa_000000.tar`, ... with `./sa_N.jpg` and `./sa_N.json` as in SA-1B: no captions, and no masks."""

    def members(one: Scene, row: int, shard: int) -> list[tuple[str, bytes]]:
        number = shard * rows + row
        about = {"image_id": number, "width": one.width_px, "height": one.height_px, "file_name": f"sa_{number}.jpg"}
        picture = _picture(one, row - (rows - broken))
        return [
            (f"./sa_{number}.jpg", picture),
            (f"./sa_{number}.json", json.dumps({"image": about, "annotations": []}).encode()),
        ]

    return _write(out, "sa_{:06d}.tar", members, shards, rows, seed, split, None, square)


def write_imagenet_shards(
    out: Path,
    *,
    shards: int,
    rows: int,
    seed: int = 0,
    split: Split = Split.TRAIN,
    broken: int = 0,
    square: bool = False,
) -> list[Path]:
    """Tars `imagenet-000000.tar`, ... with `KEY.jpg` and `KEY.cls`, the index of the noun of the one thing there is."""

    def members(one: Scene, row: int, shard: int) -> list[tuple[str, bytes]]:
        key = f"{shard:06d}{row:05d}"
        return [(f"{key}.jpg", _picture(one, row - (rows - broken))), (f"{key}.cls", str(one.label).encode())]

    return _write(out, "imagenet-{:06d}.tar", members, shards, rows, seed, split, 1, square)


def picture_file(one: Scene, mode: str = "RGB") -> bytes:
    """The picture of a scene as a file: a JPEG of that mode (RGB, L, CMYK), or a PNG (RGBA, P)."""
    buffer = io.BytesIO()
    image = draw(one)
    if mode == "P":
        image.quantize(64, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(buffer, "PNG")
    elif mode == "RGBA":
        image.convert("RGBA").save(buffer, "PNG")
    else:
        image.convert(mode).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def mode_of(one: Scene) -> str:
    """The mode that the picture of a scene is kept in: mostly RGB, and grey only where all there is to see is grey."""
    if one.number % _ODD_EVERY:
        return "RGB"
    if _GREYS.issuperset(thing.colour for thing in one.things) and _GREYS.issuperset(one.ground.colours or ("none",)):
        return "L"
    return ("CMYK", "RGBA", "P")[one.number // _ODD_EVERY % 3]


def _picture(one: Scene, damage: int) -> bytes:
    """The picture file of a scene; whole for a negative `damage`, else broken in one of the ways of BROKEN."""
    content = picture_file(one, mode_of(one))
    if damage < 0:
        return content
    return {"truncated": content[: len(content) // 2], "not a picture": _NOT_FOUND, "empty": b""}[
        BROKEN[damage % len(BROKEN)]
    ]


def _write(
    out: Path,
    name: str,
    members: Callable[[Scene, int, int], list[tuple[str, bytes]]],
    shards: int,
    rows: int,
    seed: int,
    split: Split,
    things: int | None,
    square: bool,
) -> list[Path]:
    paths = []
    for shard in range(shards):
        tar, truths = io.BytesIO(), []
        writer = TarWriter(tar)
        for row in range(rows):
            one = scene(seed, shard * rows + row, split=split, things=things, square=square)
            made = members(one, row, shard)
            for member, content in made:
                writer.add(member, content)
            key = made[0][0].removeprefix("./").partition(".")[0]
            truths.append(_json({"key": key, **truth_of(one)}) + b"\n")
        writer.finish()
        path = out / name.format(shard)
        _put(path, tar.getvalue())
        _put(path.with_suffix(TRUTH_SUFFIX), b"".join(truths))
        paths.append(path)
    return paths


def _put(path: Path, content: bytes) -> None:
    """Write a file whole, and only if that changes it: what was made from an unchanged shard stays current."""
    if path.exists() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".part")
    aside.write_bytes(content)
    aside.replace(path)


def _json(value: dict[str, JSON]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()

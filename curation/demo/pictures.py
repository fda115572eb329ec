"""A small generated picture set with known truth, laid out as SA-1B and webdataset tars: what `make demo` runs on.

Each picture shows one to three plain shapes on a coloured ground. The dense description names all of them with colour,
size and place; the alt text is of the kind the web has: partial, and sometimes about something else. A few pictures are
broken on purpose, so that the rejects have something to say.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image, ImageDraw

from curation.shards.tar_writer import TarWriter

_COLOURS: Final = {
    "red": (214, 40, 40),
    "green": (46, 139, 60),
    "blue": (38, 84, 200),
    "yellow": (240, 200, 30),
    "white": (245, 245, 245),
    "black": (20, 20, 20),
    "purple": (120, 50, 160),
    "orange": (240, 130, 30),
}
_GROUNDS: Final = ("white", "black", "blue", "green", "yellow", "orange")
SHAPES: Final = ("circle", "square", "triangle", "cross", "star")
_PLACES: Final = {"left": 0.22, "middle": 0.5, "right": 0.78}
_WHERE: Final = {"left": "on the left", "middle": "in the middle", "right": "on the right"}
_SIZES: Final = {"small": 0.10, "large": 0.18}
_ASPECTS: Final = ((256, 256), (256, 320), (320, 256), (256, 384))
_NOISE_TEXTS: Final = (
    "IMG_20394",
    "free shipping poster art print 40x60",
    "best wallpapers 2019",
    "stock illustration",
)


@dataclass(frozen=True, slots=True)
class Thing:
    """One shape in a picture."""

    shape: str
    colour: str
    size: str
    place: str


@dataclass(frozen=True, slots=True)
class Scene:
    """What a picture shows. `height` and `width` are pixels."""

    things: tuple[Thing, ...]
    ground: str
    height: int
    width: int
    alt: str

    @property
    def label(self) -> int:
        """The class: the shape of the first thing."""
        return SHAPES.index(self.things[0].shape)

    @property
    def description(self) -> str:
        """All there is to see, in sentences."""
        first = self.things[0]
        text = (
            f"A {first.size} {first.colour} {first.shape} stands {_WHERE[first.place]} of a plain {self.ground} ground."
        )
        for thing in self.things[1:]:
            text += f" {_WHERE[thing.place].capitalize()} there is a {thing.size} {thing.colour} {thing.shape}."
        return text + " The style of the picture is flat and simple, with clean edges."


def scene(seed: int, number: int) -> Scene:
    """The scene of that number; a pure function of its arguments."""
    random = np.random.Generator(np.random.Philox(key=[seed, number]))
    ground = str(random.choice(_GROUNDS))
    places = sorted(random.permutation(len(_PLACES))[: int(random.integers(1, 4))])  # told from left to right
    colours, sizes, names = [c for c in _COLOURS if c != ground], list(_SIZES), list(_PLACES)
    things = tuple(
        Thing(str(random.choice(SHAPES)), str(random.choice(colours)), str(random.choice(sizes)), names[place])
        for place in places
    )
    height, width = _ASPECTS[int(random.integers(len(_ASPECTS)))]
    kind = random.random()
    alt = f"{things[0].colour} {things[0].shape}" if kind < 0.7 else str(random.choice(_NOISE_TEXTS))
    return Scene(things, ground, height, width, alt)


def draw(scene: Scene) -> Image.Image:
    """The picture of a scene."""
    image = Image.new("RGB", (scene.width, scene.height), _COLOURS[scene.ground])
    pen = ImageDraw.Draw(image)
    for thing in scene.things:
        _draw_thing(pen, thing, scene)
    return image


def _draw_thing(pen: ImageDraw.ImageDraw, thing: Thing, scene: Scene) -> None:
    x, y = _PLACES[thing.place] * scene.width, 0.5 * scene.height
    r = _SIZES[thing.size] * min(scene.width, scene.height) * 0.9
    colour = _COLOURS[thing.colour]
    if thing.shape == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    elif thing.shape == "square":
        pen.rectangle((x - r, y - r, x + r, y + r), fill=colour)
    elif thing.shape == "triangle":
        pen.polygon([(x, y - r), (x + r, y + r), (x - r, y + r)], fill=colour)
    elif thing.shape == "cross":
        pen.rectangle((x - r, y - r / 3, x + r, y + r / 3), fill=colour)
        pen.rectangle((x - r / 3, y - r, x + r / 3, y + r), fill=colour)
    else:
        angles = -np.pi / 2 + np.arange(10) * np.pi / 5
        radii = np.where(np.arange(10) % 2 == 0, r, 0.42 * r)
        pen.polygon([(x + a * np.cos(t), y + a * np.sin(t)) for a, t in zip(radii, angles, strict=True)], fill=colour)


def write_webdataset_shards(out: Path, *, shards: int, rows: int, seed: int = 0, broken: int = 2) -> list[Path]:
    """Tars `demo-00000.tar`, ... with jpg, txt (alt text), cls and json; the last `broken` rows of each are damaged."""
    paths = []
    for shard in range(shards):
        path = out / f"demo-{shard:05d}.tar"
        with _Shard(path) as tar:
            for row in range(rows):
                one = scene(seed, shard * rows + row)
                key = f"{shard:05d}{row:04d}"
                tar.add(f"{key}.jpg", _damaged(jpeg(one), row - (rows - broken)))
                tar.add(f"{key}.txt", one.alt.encode())
                tar.add(f"{key}.cls", str(one.label).encode())
                tar.add(f"{key}.json", json.dumps({"truth": one.description}).encode())
        paths.append(path)
    return paths


def write_sam_shards(out: Path, *, shards: int, rows: int, seed: int = 0) -> list[Path]:
    """Tars `sa_000000.tar`, ... in the layout of SA-1B: `./sa_N.jpg` and `./sa_N.json`, no captions."""
    paths = []
    for shard in range(shards):
        path = out / f"sa_{shard:06d}.tar"
        with _Shard(path) as tar:
            for row in range(rows):
                number = shard * rows + row
                one = scene(seed, number)
                about = {"image_id": number, "width": one.width, "height": one.height, "file_name": f"sa_{number}.jpg"}
                tar.add(f"./sa_{number}.jpg", jpeg(one))
                tar.add(f"./sa_{number}.json", json.dumps({"image": about, "annotations": []}).encode())
        paths.append(path)
    return paths


def jpeg(scene: Scene) -> bytes:
    """The picture of a scene as a JPEG file."""
    buffer = io.BytesIO()
    draw(scene).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _damaged(content: bytes, kind: int) -> bytes:
    """`content` as it is for a negative `kind`, else broken in one of the ways that the web breaks pictures."""
    if kind < 0:
        return content
    broken: Sequence[bytes] = (content[: len(content) // 2], b"<html><body>404 Not Found</body></html>", b"")
    return broken[kind % len(broken)]


class _Shard:
    """A tar that is put in place once it is complete, and only if that changes it: an unchanged shard stays untouched,
    so that what was made from it stays current."""

    def __init__(self, path: Path) -> None:
        self._path, self._buffer = path, io.BytesIO()
        self._tar = TarWriter(self._buffer)

    def __enter__(self) -> TarWriter:
        return self._tar

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is not None:
            return
        self._tar.finish()
        content = self._buffer.getvalue()
        if self._path.exists() and self._path.read_bytes() == content:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        aside = self._path.with_suffix(".tar.part")
        aside.write_bytes(content)
        aside.replace(self._path)

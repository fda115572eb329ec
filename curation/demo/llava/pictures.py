"""Training pictures of the small LLaVA, drawn once: arrays on disk of pixels, and of what each patch shows."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import xxhash
from PIL import Image

from curation.demo.llava.model import LlavaSize
from curation.images.resize import pad_to_square
from curation.scenes.drawing import draw
from curation.scenes.scene import Scene, Split, Thing, scene
from curation.scenes.vocabulary import COLOURS, COLUMNS, GROUND_NOUNS, NOUNS, ROWS, SIZES, STYLES, TEXTURES
from curation.shards.fingerprint import digest_of

Bytes: TypeAlias = npt.NDArray[np.uint8]

IGNORED: Final = 255
"""Stands where a patch has no label: it is half thing, half ground, or the question makes no sense there."""

_PADDING_CLASS: Final = len(NOUNS) + len(GROUND_NOUNS)
QUESTIONS: Final = {
    "noun": _PADDING_CLASS + 1,
    "colour": len(COLOURS),
    "lower colour": len(COLOURS),
    "texture": len(TEXTURES),
    "size": len(SIZES),
    "row": len(ROWS),
    "column": len(COLUMNS),
    "style": len(STYLES),
}
"""What is asked of each patch, and how many answers there are. Patches without a thing answer "noun" with the kind of
the ground, "colour" with its upper and "lower colour" with its lower colour."""

GREY: Final = (122, 116, 104)  # the mean of CLIP's pictures, with which the captioner pads
_DRAWN_PX: Final = 128  # of the shorter side: less than the shards' pictures have, which saves most of the time
_WHOLLY: Final = 0.35  # a patch shows a thing from this share of its area on
_HARDLY: Final = 0.04  # and the ground up to this
_CHUNK: Final = 500
_LOOKED_AT: Final = 50  # scenes by which drawn ones are known to be current


@dataclass(frozen=True, slots=True)
class Drawn:
    """`pixels` [N, H, W, 3] and `labels` [N, questions, patches], row by row of the scenes numbered from 0."""

    pixels: Bytes
    labels: Bytes

    @property
    def digest(self) -> str:
        """Of how many there are, and of the first of them."""
        few = (self.pixels[:_LOOKED_AT], self.labels[:_LOOKED_AT])
        return digest_of([len(self.pixels), *(xxhash.xxh3_64_hexdigest(part.tobytes()) for part in few)])


def drawn_scenes(folder: Path, size: LlavaSize, *, count: int, seed: int) -> Drawn:
    """The first `count` training scenes, drawn unless `folder` holds them already.

    What it holds is taken if its first scenes are as they would be drawn now.
    """
    name = f"{size.image_px}-{size.patch_px}-{seed}-{count}"
    pixels, labels = folder / f"pixels-{name}.npy", folder / f"labels-{name}.npy"
    if not (pixels.exists() and labels.exists() and _is_current(pixels, labels, size, seed, count)):
        folder.mkdir(parents=True, exist_ok=True)
        shape = (count, size.image_px, size.image_px, 3)
        into = np.lib.format.open_memmap(f"{pixels}.part", "w+", np.uint8, shape)
        seen = np.zeros((count, len(QUESTIONS), size.patches**2), np.uint8)
        for at in range(0, count, _CHUNK):
            end = min(at + _CHUNK, count)
            into[at:end], seen[at:end] = _chunk(size, seed, at, end)
        into.flush()
        np.save(labels, seen)
        os.replace(f"{pixels}.part", pixels)
    return Drawn(np.load(pixels, mmap_mode="r"), np.load(labels))


def _is_current(pixels: Path, labels: Path, size: LlavaSize, seed: int, count: int) -> bool:
    first = _chunk(size, seed, 0, min(_LOOKED_AT, count))
    kept = (np.load(file, mmap_mode="r") for file in (pixels, labels))
    return all(np.array_equal(array[:_LOOKED_AT], now) for array, now in zip(kept, first, strict=True))


def _chunk(size: LlavaSize, seed: int, first: int, end: int) -> tuple[Bytes, Bytes]:
    scenes = [scene(seed, number, split=Split.TRAIN) for number in range(first, end)]
    return np.stack([as_seen(draw(one, short_px=_DRAWN_PX), size) for one in scenes]), patch_labels(scenes, size)


def as_seen(picture: Image.Image, size: LlavaSize) -> Bytes:
    """The picture padded and scaled as the captioner and CLIP's image processor do it: [H, W, 3]."""
    square = pad_to_square(picture, GREY)
    return np.asarray(square.resize((size.image_px, size.image_px), Image.Resampling.BICUBIC))


def patch_labels(scenes: Sequence[Scene], size: LlavaSize) -> Bytes:
    """What each patch of each picture shows: [N, questions, patches], IGNORED where there is no telling."""
    return np.stack([_patch_labels(one, size.patches) for one in scenes])


def _patch_labels(scene: Scene, patches: int) -> Bytes:
    answers = np.full((len(QUESTIONS), patches, patches), IGNORED, np.uint8)
    noun, colour, lower, texture, big, row, column, style = answers
    ground, longest = scene.ground, max(scene.height_px, scene.width_px)
    height, width = scene.height_px / longest, scene.width_px / longest
    inside = _covered((0.5, 0.5), (height / 2, width / 2), patches)
    noun[inside <= _HARDLY] = _PADDING_CLASS
    free = inside >= 1 - _HARDLY
    style[free] = STYLES.index(scene.style)
    noun[free] = len(NOUNS) + list(GROUND_NOUNS).index(ground.kind)
    if ground.colours:
        colour[free], lower[free] = (list(COLOURS).index(ground.colours[at]) for at in (0, -1))
    for thing in scene.things:
        share = _thing_covers(thing, height, width, patches)
        answers[:, share > _HARDLY] = IGNORED
        here = share >= _WHOLLY
        noun[here], colour[here] = NOUNS.index(thing.noun), list(COLOURS).index(thing.colour)
        texture[here], big[here] = TEXTURES.index(thing.texture), SIZES.index(thing.size)
        row[here], column[here] = ROWS.index(thing.row), COLUMNS.index(thing.column)
        style[here] = STYLES.index(scene.style)
    return answers.reshape(len(QUESTIONS), -1)


def _thing_covers(thing: Thing, height: float, width: float, patches: int) -> npt.NDArray[np.float64]:
    """The share of each patch that the thing's square covers; the picture has `height` and `width` of the square."""
    half = thing.radius * min(height, width)
    centre = ((1 - height) / 2 + thing.y * height, (1 - width) / 2 + thing.x * width)
    return _covered(centre, (half, half), patches)


def _covered(centre: tuple[float, float], halves: tuple[float, float], patches: int) -> npt.NDArray[np.float64]:
    """The share of each patch that a box covers; centre and halves of its sides are (y, x) in shares of the square."""
    edges = np.arange(patches + 1) / patches
    down, across = (
        np.clip(np.minimum(edges[1:], at + half) - np.maximum(edges[:-1], at - half), 0, None) * patches
        for at, half in zip(centre, halves, strict=True)
    )
    return np.outer(down, across)

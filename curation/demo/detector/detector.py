"""Read pictures of the small world: which things are there, in which colours and where, and before what."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from curation.demo.detector.model import NOTHING, UNRECOGNISED, Answers, load_reader
from curation.demo.llava.tower import normalised
from curation.demo.shipped import DETECTOR
from curation.scenes.alignment import Reading, Seen
from curation.scenes.vocabulary import COLOURS, COLUMNS, GROUND_NOUNS, NOUNS, ROWS, SIZES

Picture: TypeAlias = Image.Image | npt.NDArray[np.uint8]

_BATCH: Final = 32
_NUMBER_OF_COLOURS: Final = {"plain": 1, "gradient": 2}


class Detector:
    """The network of a checkpoint, by default the one that comes with the package, on the CPU."""

    def __init__(self, directory: Path = DETECTOR) -> None:
        self.reader = load_reader(directory)
        self.side_px = int(self.reader.tower.config.image_size)

    def read(self, pictures: Sequence[Picture]) -> list[Reading]:
        """What each picture shows, in order. Pictures are PIL images or bytes [H, W, 3], of any sizes and shapes."""
        found: list[Reading] = []
        for start in range(0, len(pictures), _BATCH):
            squares = np.stack([squared(one, self.side_px) for one in pictures[start : start + _BATCH]])
            with torch.inference_mode():
                found += _readings(self.reader(normalised(squares)))
        return found


def squared(picture: Picture, side_px: int) -> npt.NDArray[np.uint8]:
    """The whole picture in a square [side_px, side_px, 3], so that thirds stay thirds whatever its shape."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    resized = image.convert("RGB").resize((side_px, side_px), Image.Resampling.BICUBIC)
    return np.asarray(resized)


def _readings(answers: Answers) -> list[Reading]:
    best: dict[str, Any] = {name: getattr(answers, name).argmax(-1).tolist() for name in Answers.__slots__}
    return [_reading({name: values[index] for name, values in best.items()}) for index in range(len(best["noun"]))]


def _reading(best: dict[str, Any]) -> Reading:
    colours, kind = list(COLOURS), list(GROUND_NOUNS)[best["ground"]]
    things = [
        Seen(NOUNS[noun], colours[best["colour"][place]], SIZES[best["size"][place]], ROWS[row], COLUMNS[column])
        for place, noun in enumerate(best["noun"])
        if noun not in (UNRECOGNISED, NOTHING)
        for row, column in [divmod(place, len(COLUMNS))]
    ]
    ground = (colours[best["upper"]], colours[best["lower"]])[: _NUMBER_OF_COLOURS.get(kind, 0)]
    return Reading(tuple(things), kind, ground, best["noun"].count(UNRECOGNISED))

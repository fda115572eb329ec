"""How truly the detector reads scenes that it was never shown, clean and as the autoencoder gives them back."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from curation.demo.detector.detector import Detector, squared
from curation.scenes.alignment import AlignmentScore, Reading, asked_of, score_set
from curation.scenes.drawing import draw
from curation.scenes.scene import Split, scene

_SEED: Final = 10_000  # of scenes that no training shows: it has half of its own from the `novel` split


@dataclass(frozen=True, slots=True)
class Truth:
    """Shares between 0 and 1. `precision`: of things told, those whose noun is there; `per_second`: pictures."""

    precision: float
    score: AlignmentScore
    unrecognised: float  # places a picture
    per_second: float


def measure_detector(detector: Detector, split: Split, side_px: int, count: int, autoencoder: Any | None) -> Truth:
    """Read the first `count` scenes of a split, in squares of `side_px`, coded by the autoencoder if one is given."""
    scenes = [scene(_SEED, number, split=split) for number in range(count)]
    pictures = [squared(draw(one, short_px=side_px), side_px) for one in scenes]
    if autoencoder is not None:
        pictures = [_coded(autoencoder, one) for one in pictures]
    start = time.process_time()
    seen = detector.read(pictures)
    seconds = time.process_time() - start
    asked = [asked_of(one) for one in scenes]
    return Truth(
        precision=_precision(asked, seen),
        score=score_set(asked, seen),
        unrecognised=sum(one.unrecognised for one in seen) / count,
        per_second=count / seconds,
    )


def _precision(asked: Sequence[Reading], seen: Sequence[Reading]) -> float:
    told = []
    for true, read in zip(asked, seen, strict=True):
        nouns = {one.noun for one in true.things}
        told += [thing.noun in nouns for thing in read.things]
    return sum(told) / max(1, len(told))


@torch.inference_mode()
def _coded(autoencoder: Any, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
    back = autoencoder.decode(autoencoder.encode(pixels).latent_dist.mode()).sample[0]
    levels: npt.NDArray[np.uint8] = ((back.clamp(-1, 1) + 1) * 127.5).round().permute(1, 2, 0).byte().numpy()
    return levels

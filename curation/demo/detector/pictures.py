"""Training pictures of the detector: scenes, half of them spoilt as an autoencoder and a diffusion model spoil them."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from curation.demo.detector.detector import squared
from curation.demo.detector.model import NOTHING, PLACES, UNRECOGNISED
from curation.scenes.drawing import draw
from curation.scenes.scene import Scene, Split, generator, pick, scene
from curation.scenes.vocabulary import COLOURS, COLUMNS, GROUND_NOUNS, NOUNS, ROWS, SIZES

IGNORED: Final = -100
_SPOILING_STREAM: Final = 400  # of randomness
_SHORT_PX: Final = (64, 64, 96, 128)
_CODED: Final = {64: 0.45, 128: 0.06}  # shares of the pictures that go through the autoencoder at that size
_LATENT_NOISE: Final = 0.25  # at most, in deviations of the latents: what a diffusion model has not cleaned away
_BENT: Final = 0.3  # share of the pictures that are bent a little
_RUINED: Final = 0.15  # share whose things are bent or blurred until no noun fits
_BEND: Final = (5, 0.03)  # control points a side, and deviation of their shifts where the picture reaches from -1 to 1
_RUIN: Final = (9, 0.16)
_RUINING_BLUR: Final = (0.085, 0.12)  # deviation as share of the side
_BLUR: Final = 0.025  # at most, of a quarter of the others


@dataclass(frozen=True, slots=True)
class Targets:
    """What is right: of the nine places [B, 9], of the ground [B]; IGNORED where there is no telling."""

    noun: Tensor
    colour: Tensor
    size: Tensor
    ground: Tensor
    upper: Tensor
    lower: Tensor


def training_batch(numbers: range, seed: int, side_px: int, autoencoder: Any) -> tuple[Tensor, Targets]:
    """Pictures [B, 3, side, side] with values of 0 to 1, and what they show. Half have colours of the `novel` split:
    the judge has to know each noun in all of them."""
    scenes = [scene(seed, number, split=Split.NOVEL if number % 2 else Split.TRAIN) for number in numbers]
    randoms = [generator(seed, number, _SPOILING_STREAM) for number in numbers]
    kinds = [random.random() for random in randoms]
    pixels = torch.empty(len(scenes), 3, side_px, side_px)
    above = 0.0
    for coded_px, share in _CODED.items():
        rows = [row for row, kind in enumerate(kinds) if above <= kind < above + share]
        if rows:
            small = torch.stack([_drawn(scenes[row], coded_px, coded_px) for row in rows])
            coded = _coded(autoencoder, small, [randoms[row] for row in rows])
            pixels[rows] = functional.interpolate(coded, (side_px, side_px), mode="bicubic", antialias=True)
        above += share
    for row in (row for row, kind in enumerate(kinds) if kind >= above):
        pixels[row] = _drawn(scenes[row], pick(randoms[row], _SHORT_PX), side_px)
    ruined = [_spoil(pixels[row], random) for row, random in enumerate(randoms)]
    return pixels.clamp_(0, 1), _targets(scenes, ruined)


def _drawn(one: Scene, short_px: int, side_px: int) -> Tensor:
    """[3, side, side], drawn with that shorter side."""
    return torch.from_numpy(np.array(squared(draw(one, short_px=short_px), side_px))).permute(2, 0, 1).float() / 255


@torch.no_grad()
def _coded(autoencoder: Any, pixels: Tensor, randoms: list[np.random.Generator]) -> Tensor:
    """Encoded, disturbed and decoded."""
    latents = autoencoder.encode(pixels * 2 - 1).latent_dist.mode()
    noise = np.stack(
        [random.uniform(0, _LATENT_NOISE) * random.standard_normal(latents.shape[1:]) for random in randoms]
    )
    disturbed = latents + torch.from_numpy(noise).float() / autoencoder.config.scaling_factor
    decoded: Tensor = autoencoder.decode(disturbed).sample
    return (decoded.clamp(-1, 1) + 1) / 2


def _spoil(pixels: Tensor, random: np.random.Generator) -> bool:
    """Bend and blur a picture in place; whether its things are beyond recognition."""
    kind = random.random()
    if kind < _RUINED / 2:
        _blur(pixels, random.uniform(*_RUINING_BLUR))
        return True
    if kind < _RUINED:
        _bend(pixels, *_RUIN, random)
        return True
    if kind < _RUINED + _BENT:
        _bend(pixels, *_BEND, random)
    if random.random() < 0.25:
        _blur(pixels, random.uniform(0, _BLUR))
    return False


def _bend(pixels: Tensor, points: int, deviation: float, random: np.random.Generator) -> None:
    """Shift each pixel by a smooth random field."""
    side = pixels.shape[-1]
    coarse = torch.from_numpy(random.standard_normal((1, 2, points, points))).float() * deviation
    shifts = functional.interpolate(coarse, (side, side), mode="bicubic", align_corners=True)
    straight = functional.affine_grid(torch.eye(2, 3)[None], [1, 3, side, side], align_corners=False)
    bent = straight + shifts.permute(0, 2, 3, 1)
    pixels.copy_(functional.grid_sample(pixels[None], bent, padding_mode="reflection", align_corners=False)[0])


def _blur(pixels: Tensor, deviation: float) -> None:
    """Gaussian, `deviation` as share of the side."""
    sigma = max(deviation * pixels.shape[-1], 1e-3)
    reach = int(3 * sigma) + 1
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    weights = (weights / weights.sum()).expand(3, 1, 1, -1)
    padded = functional.pad(pixels[None], (reach,) * 4, mode="replicate")
    across = functional.conv2d(padded, weights, groups=3)
    pixels.copy_(functional.conv2d(across, weights.transpose(2, 3), groups=3)[0])


def _targets(scenes: list[Scene], ruined: list[bool]) -> Targets:
    places = [torch.full((len(scenes), PLACES), filled) for filled in (NOTHING, IGNORED, IGNORED)]
    grounds = [torch.full((len(scenes),), IGNORED) for _ in range(3)]
    colours = list(COLOURS)
    for row, (one, spoilt) in enumerate(zip(scenes, ruined, strict=True)):
        for thing in one.things:
            at = ROWS.index(thing.row) * len(COLUMNS) + COLUMNS.index(thing.column)
            shows = UNRECOGNISED if spoilt else NOUNS.index(thing.noun)
            for target, answer in zip(
                places, (shows, colours.index(thing.colour), SIZES.index(thing.size)), strict=True
            ):
                target[row, at] = answer
        grounds[0][row] = list(GROUND_NOUNS).index(one.ground.kind)
        if one.ground.colours:
            grounds[1][row], grounds[2][row] = (colours.index(one.ground.colours[end]) for end in (0, -1))
    return Targets(*places, *grounds)

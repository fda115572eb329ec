"""Are the drawn pictures what was asked? Shares of prompts, of each run, of true pictures, and by chance."""

import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image

from benchmarks.claims.campaign import RESULT
from benchmarks.claims.data import PROMPTS
from benchmarks.claims.reading import Shown, read
from curation.demo.detector.detector import Detector
from curation.demo.shipped import VAE
from curation.scenes.alignment import Reading, asked_in

ALIGNMENT: Final = "alignment.json"
TRUE: Final = "true-pictures.json"
_SHUFFLES: Final = 20

Truth = Mapping[str, Any]
Shares = dict[str, float]

MEASURES: Final[dict[str, tuple[str, ...]]] = {
    "caption": ("ground", "colour", "place", "colour and place", "noun", "noun, colour and place"),
    "described": ("ground", "colour and place", "noun"),
    "short": ("colour", "noun"),
}
"""What counts, by kind of prompt: a short one names colour and noun alone."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What a picture shows, by the rules and by the detector."""

    shown: Shown
    seen: Reading


def align(out: Path) -> None:
    """Read the pictures of all runs that are done and not read yet, and the true ones."""
    prompts = {kind: _records(out / "data" / path) for kind, path in PROMPTS.items()}
    detector = Detector()
    if not (out / TRUE).exists():
        looked = look(coded(list(true_pictures(out, prompts["caption"]))), detector)
        told = {kind: shares(looked, asked, kind) for kind, asked in prompts.items()}
        (out / TRUE).write_text(json.dumps(told, indent=1))
    for result in sorted((out / "runs").glob(f"*/*/{RESULT}")):
        folder = result.parent
        drawn = [len(list((folder / "pictures" / kind).glob("*.png"))) for kind in prompts]
        if drawn != [len(asked) for asked in prompts.values()] or (folder / ALIGNMENT).exists():
            continue
        told = {}
        for kind, asked in prompts.items():
            pictures = [Image.open(folder / "pictures" / kind / f"{i:05}.png") for i in range(len(asked))]
            looked = look(pictures, detector)
            told[kind] = shares(looked, asked, kind)
            told[f"{kind}, by chance"] = by_chance(looked, asked, kind)
        (folder / ALIGNMENT).write_text(json.dumps(told, indent=1))


def look(pictures: Sequence[Image.Image], detector: Detector) -> list[Looked]:
    """What the pictures show."""
    rgb = [picture.convert("RGB") for picture in pictures]
    return [Looked(read(one), seen) for one, seen in zip(rgb, detector.read(rgb), strict=True)]


def shares(looked: Sequence[Looked], asked: Sequence[Truth], kind: str) -> Shares:
    """Of how many prompts each measure is right."""
    right = [rights(one, truth) for one, truth in zip(looked, asked, strict=True)]
    return {name: float(np.mean([one[name] for one in right])) for name in MEASURES[kind]}


def by_chance(looked: Sequence[Looked], asked: Sequence[Truth], kind: str) -> Shares:
    """The same with the pictures dealt to other prompts, so that what a model draws anyway counts as chance."""
    random = np.random.default_rng(0)
    dealt = [shares([looked[i] for i in random.permutation(len(looked))], asked, kind) for _ in range(_SHUFFLES)]
    return {name: float(np.mean([one[name] for one in dealt])) for name in MEASURES[kind]}


def rights(looked: Looked, truth: Truth) -> dict[str, bool]:
    """What is as asked in one picture; the noun as the detector sees it, all else as the rules do."""
    shown, asked = looked.shown, asked_in(truth)
    thing = asked.things[0]
    same = [one for one in looked.seen.things if one.noun == thing.noun]
    colour, place = shown.colour == thing.colour, (shown.row, shown.column) == (thing.row, thing.column)
    all_three = [(one.colour, one.row, one.column) == (thing.colour, thing.row, thing.column) for one in same]
    return {
        "ground": (shown.ground.kind, shown.ground.colours) == (asked.ground, asked.ground_colours),
        "colour": colour,
        "place": place,
        "colour and place": colour and place,
        "noun": bool(same),
        "noun, colour and place": any(all_three),
    }


def true_pictures(out: Path, asked: Sequence[Truth]) -> Iterator[Image.Image]:
    """The test pictures that the prompts tell of, RGB, in their order."""
    found = {}
    for path in sorted((out / "data" / "shards" / "test").glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, kind = member.name.partition(".")
                file = tar.extractfile(member) if kind in ("jpg", "png") else None
                if file is not None:
                    found[key] = file.read()
    for truth in asked:
        with Image.open(io.BytesIO(found[str(truth["key"])])) as image:
            yield image.convert("RGB")


@torch.no_grad()
def coded(pictures: Sequence[Image.Image], side_px: int = 64) -> list[Image.Image]:
    """Squares of `side_px`, through the autoencoder and back: the best that any model of latents could draw."""
    vae: Any = AutoencoderKL.from_pretrained(VAE).eval()
    made = []
    for picture in pictures:
        small = np.array(picture.resize((side_px, side_px), Image.Resampling.LANCZOS))
        pixels = torch.from_numpy(small).permute(2, 0, 1)[None].float() / 127.5 - 1
        back = vae.decode(vae.encode(pixels).latent_dist.mode()).sample[0].clamp(-1, 1)
        made.append(Image.fromarray(((back + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()))
    return made


def _records(path: Path) -> list[Truth]:
    return [json.loads(line) for line in path.read_text().splitlines()]

"""Measure the detector, and write what it is and can do into its README.md."""

import dataclasses
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Final

from diffusers import AutoencoderKL

from curation.demo.detector.detector import Detector
from curation.demo.detector.measure import Truth, measure_detector
from curation.demo.detector.recipe import DetectorRecipe
from curation.demo.shipped import VAE
from curation.scenes.scene import Split

_SIDES_PX: Final = (64, 128)


def write_card(out: Path, recipe: DetectorRecipe, *, count: int, say: Callable[[str], None]) -> None:
    """Write `out`/README.md with what the detector reads of the first `count` scenes of two splits."""
    detector, autoencoder = Detector(out), AutoencoderKL.from_pretrained(VAE).eval()
    rows, speeds = [], []
    for split in (Split.TEST, Split.NOVEL):
        for side in _SIDES_PX:
            for name, coder in (("clean", None), ("autoencoder", autoencoder)):
                found = measure_detector(detector, split, side, count, coder)
                speeds.append(found.per_second)
                rows.append(_row(f"{split}, {side}, {name}", found))
                say(rows[-1])
    size = sum(path.stat().st_size for path in out.iterdir() if path.name != "README.md")
    text = _CARD.format(
        megabytes=f"{size / 1e6:.1f}",
        parameters=f"{sum(one.numel() for one in detector.reader.parameters()) / 1e6:.1f}",
        recipe=json.dumps(dataclasses.asdict(recipe)),
        pictures=f"{recipe.steps * recipe.batch:,}",
        seed=recipe.seed,
        count=count,
        rows="\n".join(rows),
        speed=f"{min(speeds):.0f}",
        torch=version("torch"),
        transformers=version("transformers"),
    )
    (out / "README.md").write_text(text, encoding="utf-8")


def _row(name: str, found: Truth) -> str:
    aligned, chance = found.score.aligned, found.score.chance
    drawn = aligned.drawn.right
    shares = (
        found.precision,
        aligned.drawn.share,
        aligned.coloured.right / max(1, drawn),
        aligned.placed.right / max(1, drawn),
        aligned.right.share,
        aligned.whole.share,
        aligned.ground.share,
        chance.drawn.share,
        chance.right.share,
    )
    return f"| {name} | " + " | ".join(f"{100 * share:.1f}" for share in shares) + " |"


_CARD: Final = """# A detector for scenes

Reads a picture of `curation/scenes` (docs/world.md), drawn or generated: which things are there, in which colours,
sizes and places, before which ground. It judges what a small PixArt draws: `pipelines.evaluate scenes`.

- {parameters} M parameters, {megabytes} MB (float16; computes in float32). The vision tower of the small LLaVA,
  trained on, and a query for each ninth of the picture and for the ground.
- Licence: that of latentmill. Nobody else's data or weights are in it: the pictures are generated.

## How it was made

    python -m pipelines.train_small detector --seed {seed} --out DIR

About thirteen minutes of one core: {pictures} scenes, each seen once. Half of them went through the small
autoencoder, with noise in the latents as a diffusion model leaves it; three in ten are bent a little, some blurred.
In one in seven the things are bent or blurred until no noun fits, and it learns to call those unrecognised, so that
a blob of the right colour is not taken for a thing. It is shown every noun in all colours, also in those that
generators are never trained on. Recipe: {recipe}.

## How truly it reads

Per cent, of the first {count} scenes of a split, which it was never shown, drawn at so many pixels; "autoencoder"
are the same pictures encoded and decoded, which is the best that a model in its latents can score. Precision: of
the things told, those whose noun is there. Recall: of the things there, those told. Colour, place: of those. Right:
of all things, with the right noun, colour and place. Whole: of pictures, with every thing right and nothing else.
By chance: against the truth of other pictures.

| split, px, pictures | precision | recall | colour | place | right | whole | ground | recall, chance | right, chance |
| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: |
{rows}

Speed: {speed} pictures a CPU second on one thread, at least, resizing included.
Measured with torch {torch}, transformers {transformers}. Run `--card-only` to measure again.

## What it gets wrong

- Small things at 64 px after the autoencoder are a few blurred pixels; most of the misses are those.
- It has to say something of every place. How strict it is with half-drawn things was decided by the bending and
  blurring above, not by people. Look at the pictures.
"""

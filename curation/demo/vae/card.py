"""Measure the small autoencoder, and write what it is and can do into its README.md."""

import dataclasses
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Final

from curation.demo.vae.recipe import AutoencoderRecipe, measure_autoencoder
from curation.scenes.scene import Split

_SIDES_PX: Final = (64, 96, 128)


def write_card(out: Path, recipe: AutoencoderRecipe, *, count: int, say: Callable[[str], None]) -> None:
    """Write `out`/README.md with the PSNR of the first `count` scenes of two splits."""
    rows = []
    for side in _SIDES_PX:
        seen, unseen = (
            measure_autoencoder(out, short_px=side, pictures=count, split=split) for split in (Split.TEST, Split.NOVEL)
        )
        say(f"{side} px: {seen:.2f} dB on scenes of the test split, {unseen:.2f} dB on novel ones")
        rows.append(f"| {side} | {seen:.2f} | {unseen:.2f} |")
    config = json.loads((out / "config.json").read_text())
    size = sum(path.stat().st_size for path in out.iterdir() if path.name != "README.md")
    channels = ", ".join(map(str, recipe.channels))
    text = f"""# A small KL autoencoder for scenes

The architecture of Stable Diffusion's (`diffusers.AutoencoderKL`): 8 times down, 4 latent channels, blocks of
{channels} channels. It knows the pictures of `curation/scenes` (docs/world.md) and no others.

- {size / 1e6:.2f} MB, float32; loaded like any other checkpoint, `--vae DIR`.
- Licence: that of latentmill. Nobody else's data or weights are in it: the pictures are generated.

## How it was made

    python -m pipelines.train_small vae --out DIR

About nine minutes of one core. Same machine and versions, same bytes (torch {version("torch")}, diffusers
{version("diffusers")}). It starts at a coder that is solved for by least squares and gives each cell its mean colours;
filters then move by Muon, all else by AdamW. Recipe: {json.dumps(dataclasses.asdict(recipe))}.

## What it can do

PSNR in dB, mean of the first {count} whole pictures of a split that training never saw, coded by the mean of the
posterior:

| shorter side, px | test | novel colours |
| --: | --: | --: |
{chr(10).join(rows)}

`scaling_factor` {config["scaling_factor"]} is one over the standard deviation of latents sampled from the posteriors of
400 training scenes at 64 px.
"""
    (out / "README.md").write_text(text, encoding="utf-8")

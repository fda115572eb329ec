"""Figures and grids of pictures for docs/claims.md."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw

from benchmarks.claims.alignment import true_pictures
from benchmarks.claims.arms import ARMS, BASE, RAW
from benchmarks.claims.campaign import folder_of
from benchmarks.claims.data import PROMPTS
from benchmarks.claims.results import Result, read_results, spread
from benchmarks.claims.svg import Series, curves, dots

_SHOWN: Final = 8  # prompts in a grid
_LABEL_PX: Final = 130
_COLOURS: Final = 256  # of the grid's palette, to keep it small


def draw_figures(out: Path, figures: Path) -> None:
    """Write three charts and a grid of pictures of the runs below `out` into `figures`."""
    results = read_results(out)
    figures.mkdir(parents=True, exist_ok=True)
    series = [
        Series(arm.name, tuple(one.curve for one in results if one.arm == arm.name))
        for arm in ARMS
        if arm.name != RAW and not arm.longer and any(one.arm == arm.name for one in results)
    ]
    # The arm on alt texts is held out with alt texts: another task, so its curve is no companion of the others.
    chart = curves("Held-out loss in the course of training, averaged weights", "steps", series)
    (figures / "claims-loss.svg").write_text(chart)
    _dots(results, figures / "claims-place.svg", "Colour and place as asked, of all prompts", "colour and place")
    _dots(results, figures / "claims-noun.svg", "Noun as asked, of all prompts, by the detector", "noun")
    arms = [arm.name for arm in ARMS if any(one.arm == arm.name and one.seed == 0 for one in results)]
    grid(out, arms, 0).save(figures / "claims-grid.png", optimize=True)


def _dots(results: Sequence[Result], path: Path, title: str, measure: str) -> None:
    rows = []
    for arm in ARMS:
        found = spread(results, arm.name, f"caption: {measure}")
        if found is not None:
            rows.append((arm.name, found.values))
    chance = spread(results, BASE.name, f"caption, by chance: {measure}")
    most = max(value for _, values in rows for value in values)
    path.write_text(dots(title, rows, chance.mean if chance else None, max(1, math.ceil(5 * most)) / 5))


def grid(out: Path, arms: Sequence[str], seed: int) -> Image.Image:
    """The first prompts as every arm draws them from the same noise; above them the scenes that they tell of."""
    prompts = [json.loads(line) for line in (out / "data" / PROMPTS["caption"]).read_text().splitlines()][:_SHOWN]
    rows = [("what was asked", list(true_pictures(out, prompts)))]
    for arm in arms:
        folder = folder_of(out, arm, seed) / "pictures" / "caption"
        rows.append((arm, [Image.open(folder / f"{number:05}.png") for number in range(len(prompts))]))
    cell = rows[1][1][0].width
    sheet = Image.new("RGB", (_LABEL_PX + (cell + 2) * len(prompts), (cell + 2) * len(rows)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, (name, pictures) in enumerate(rows):
        pen.text((4, (cell + 2) * row + cell // 2 - 6), name, fill="black")
        for column, picture in enumerate(pictures):
            sheet.paste(
                picture.convert("RGB").resize((cell, cell)), (_LABEL_PX + (cell + 2) * column, (cell + 2) * row)
            )
    return sheet.quantize(_COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.FLOYDSTEINBERG)

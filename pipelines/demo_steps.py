"""The demonstration as data: which commands, in which order, and how large it is."""

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from curation.demo.shipped import LLAVA, VAE


@dataclass(frozen=True, slots=True)
class DemoSize:
    """How many pictures are drawn and how long is trained; steps are of 32 pictures, at 64 px."""

    pixel_shards: int
    pixel_rows: int  # pictures a shard, with classes, for stage 1
    shards: int
    rows: int  # pictures a shard, to be captioned
    pixel_steps: int
    align_steps: int
    aesthetic_steps: int
    prompts: int  # of held-out scenes, each drawn once
    unit_rows: int  # pictures that a captioning worker takes at a time


SHORT: Final = DemoSize(2, 300, 3, 256, 200, 1_400, 150, prompts=64, unit_rows=128)
"""`make demo`: under five minutes on two cores."""

FULL: Final = DemoSize(4, 1_000, 12, 1_000, 1_500, 8_000, 1_500, prompts=400, unit_rows=500)
"""`make demo-full`: the same, longer."""

_SAID: Final = (
    "{ground} The picture features a large {thing}. The overall style is flat, like that of a printed poster."
)
PROMPTS: Final = {
    name: _SAID.format(ground=ground, thing=thing)
    for name, ground, thing in (
        ("heart", "The white background is plain and empty.", "red heart in the middle of the image"),
        ("car", "The yellow background is plain and empty.", "blue car on the left side, halfway up"),
        ("tree", "The black background is plain and empty.", "green tree in the lower right part of the image"),
        ("star", "The blue background is plain and empty.", "yellow star near the middle of the upper edge"),
        ("ring", "The pink background is plain and empty.", "black ring in the top left corner"),
        ("moon", "The purple background is plain and empty.", "white moon in the top right corner"),
        (
            "house",
            "The grass is green, and the sky above it is clear and pale blue.",
            "red house near the middle of the lower edge",
        ),
        (
            "boat",
            "The sky is pale blue, the sea is calm, and the sand in front is light.",
            "black boat in the middle of the image",
        ),
        ("mushroom", "The wall behind is pale, and the floor is brown.", "green mushroom in the bottom left corner"),
    )
}
"""Of the grid, in the words of the small LLaVA: a model that was trained on its captions knows no others."""

_CLASSES: Final = "--shards {out}/shards/classes/*.tar --source imagenet"
_PICTURES: Final = "--shards {out}/shards/captioned/*.tar --source webdataset"
_SMALL: Final = "--vae {vae} --size 64 --batch-size 16"
_DATA: Final = "--latents {out}/latents --text {out}/text --max-unmatched 0.3"
_TRAINING: Final = (
    "--model tiny/2 --resolution 64 --prediction flow --global-batch 32 --micro-batch 32 --warmup 100 --clip 1 "
    "--weight-decay 0 --ema-decay 0.998 --held-out 0.05 --log-every 50 --save-every {save_every} --device cpu"
)
_DRAWN: Final = "--t5 {out}/models/t5 --vae {vae} --guidance 3 --batch 16 --device cpu"

_STEPS: Final = (
    (
        "pictures with classes, laid out as ImageNet, for stage 1",
        "demo_shards --layout imagenet --square --shards {pixel_shards} --rows {pixel_rows} --seed 1 "
        "--out {out}/shards/classes",
    ),
    (
        "pictures with alt texts, laid out as LAION, some broken on purpose",
        "demo_shards --things 1 --square --shards {shards} --rows {rows} --out {out}/shards/captioned",
    ),
    ("a small T5 of the true architecture, with random weights", "tiny_models --out {out}/models"),
    (
        "captions: LLaVA on Ray",
        f"caption {_PICTURES} --model {{llava}} --t5-tokenizer {{out}}/models/t5 --out {{out}}/captions "
        "--max-new-tokens 160 --batch-size 32 --unit-rows {unit_rows} --workers {workers}",
    ),
    ("nouns: the paper's Table 1, raw against generated", "nouns --captions {out}/captions --out {out}/nouns"),
    ("sharpness of the pictures", f"measure {_PICTURES} --out {{out}}/measures"),
    (
        "selection: the sharp ones, for stage 3",
        "select --table {out}/captions {out}/measures --min sharpness={sharpness} --out {out}/sharp.parquet",
    ),
    ("latents for stage 1: VAE posteriors", f"latents {_CLASSES} {_SMALL} --out {{out}}/latents-classes"),
    ("latents for stages 2 and 3", f"latents {_PICTURES} {_SMALL} --out {{out}}/latents"),
    ("text: T5 embeddings", "text --captions {out}/captions --t5 {out}/models/t5 --out {out}/text"),
    (
        "training, stage 1: pixel dependency, a DiT on classes",
        "train --stage pixel --latents {out}/latents-classes --classes 20 --steps {pixel_steps} --lr 2e-3 "
        f"{_TRAINING} --out {{out}}/runs/pixel",
    ),
    (
        "training, stage 2: alignment, a PixArt on captions, re-parameterised from stage 1",
        f"train --stage align --init-from {{out}}/runs/pixel {_DATA} --steps {{align_steps}} --lr 2e-3 "
        f"{_TRAINING} --out {{out}}/runs/align",
    ),
    (
        "training, stage 3: the selected pictures, at a lower rate",
        f"train --stage aesthetic-256 --init-from {{out}}/runs/align {_DATA} --select {{out}}/sharp.parquet "
        f"--steps {{aesthetic_steps}} --lr 5e-4 {_TRAINING} --out {{out}}/runs/aesthetic",
    ),
    (
        "sampling: a grid",
        f"sample --run {{out}}/runs/aesthetic {_DRAWN} --out {{out}}/samples --prompts "
        + " ".join(f"{{{name}}}" for name in PROMPTS),
    ),
    (
        "evaluation: the loss on held-out pictures",
        f"evaluate loss --run {{out}}/runs/aesthetic {_DATA} --held-out 0.05 --count {{prompts}} --device cpu "
        "--json {out}/loss.json",
    ),
    (
        "evaluation: pictures that were never trained on",
        "demo_shards --things 1 --square --split test --shards 1 --rows {prompts} --broken 0 --out {out}/shards/test",
    ),
    (
        "evaluation: their captions, in whose words the model has learnt to be asked",
        "caption --shards {out}/shards/test/00000.tar --source webdataset --model {llava} --batch-size 32 "
        "--max-new-tokens 160 --out {out}/captions-test",
    ),
    (
        "evaluation: these captions as prompts, with what is true of the pictures",
        "evaluate scene-prompts --captions {out}/captions-test --truth {out}/shards/test/00000.truth.jsonl "
        "--count {prompts} --out {out}/scenes.jsonl",
    ),
    (
        "evaluation: their pictures",
        f"evaluate generate --run {{out}}/runs/aesthetic {_DRAWN} --prompts {{out}}/scenes.jsonl --out {{out}}/drawn",
    ),
    (
        "evaluation: latents of the true pictures, beside which the drawn ones are read",
        f"latents --shards {{out}}/shards/test/00000.tar --source webdataset {_SMALL} --out {{out}}/latents-test",
    ),
    (
        "evaluation: what of them was drawn, as the detector reads it",
        "evaluate scenes --samples {out}/drawn --truth {out}/scenes.jsonl --true-latents {out}/latents-test "
        "--vae {vae} --json {out}/alignment.json",
    ),
    (
        "report",
        "report --captions {out}/captions --nouns {out}/nouns --measures {out}/measures --select {out}/sharp.parquet "
        f"--latents {{out}}/latents --text {{out}}/text --run {{out}}/runs/aesthetic "
        f"--scenes {{out}}/alignment.json {_PICTURES} --out {{out}}/report.html",
    ),
)
_SHARPNESS: Final = 10  # variance of the Laplacian: one picture in five is blurred and has less
_SAVES: Final = 4  # of a stage


def steps(out: Path, size: DemoSize, *, workers: int) -> list[tuple[str, list[str]]]:
    """(what it is, the module and its arguments) of each step, in order."""
    values: dict[str, object] = {"out": out, "workers": workers, "llava": LLAVA, "vae": VAE, "sharpness": _SHARPNESS}
    values |= asdict(size) | {"save_every": max(1, size.align_steps // _SAVES)}
    # Split first and fill in then, so that paths and prompts may hold spaces.
    return [
        (what, [part.format(**values, **PROMPTS) for part in shlex.split(f"pipelines.{line}")]) for what, line in _STEPS
    ]

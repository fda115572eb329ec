"""The three stages in order on real photographs: `python -m benchmarks.three_stages --data DIR --out DIR`

pixel        ImageNet photographs with their classes, squares of 128 px: a class-conditional DiT
align        COCO photographs with human captions, squares of 128 px: the DiT becomes a PixArt
aesthetic    a third of these photographs at 256 px in aspect buckets, in place of 512 px, for which a CPU is too slow

`--data` holds the folders coco-photos and imagenet-samples. The model is tiny/2, the T5 has random weights (its text
tells captions apart and no more), and the VAE is a small one that is taught on these photographs first, for a minute.
What it shows: each stage starts from the one before and lowers its loss, on held-out photographs too.
"""

import argparse
import json
import platform
import resource
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image

from benchmarks.real_flow import write_shards

_PROMPTS: Final = (
    "A woman stands in the dining area at the table.",
    "A room with chairs, a table, and a woman in it.",
    "A plate of food on a table.",
    "A person on a surfboard in the sea.",
    "A bus on a street.",
    "Two giraffes on a field.",
    "A train at a station.",
    "A cat on a sofa.",
    "Snow on a mountain.",
)
_CLASSES: Final = ("1", "30", "207", "291", "340", "404", "508", "817", "985")

_TRAIN: Final = (
    "train --stage {stage} --model tiny/2 --steps {steps} --global-batch 16 --micro-batch 16 --lr 1e-3 --warmup 20 "
    "--clip 1 --ema-decay 0.98 --device cpu --log-every 10 --save-every {steps} --held-out 0.12 "
    "--validate-every {look} --validate-samples 24 --grid-every {look} --grid-vae {out}/vae --out {out}/{stage}"
)


def main() -> None:
    """Make the features, train the stages, print what each did."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--data", type=Path, required=True)
    command.add_argument("--out", type=Path, required=True)
    command.add_argument(
        "--steps", type=int, default=400, help="of each stage but the last, which has half (default 400)"
    )
    command.add_argument("--vae-steps", type=int, default=300, help="default 300")
    options = command.parse_args()
    out: Path = options.out
    write_shards(options.data, out / "shards")
    _write_captions(options.data, out / "captions.jsonl")
    _run("tiny_models --out {out}/models", out)
    if not (out / "vae").exists():
        _teach_vae(options.data, out / "models" / "vae", out / "vae", options.vae_steps)
    coco, imagenet = "--shards {out}/shards/coco-*.tar --source webdataset", "--shards {out}/shards/imagenet-*.tar"
    for line in (
        f"latents {imagenet} --source imagenet --vae {{out}}/vae --size 128 --out {{out}}/latents-imagenet",
        f"latents {coco} --vae {{out}}/vae --size 128 --out {{out}}/latents-coco",
        "latents --shards {out}/shards/coco-00000.tar --source webdataset --vae {out}/vae --size 256 --buckets aspect "
        "--batch-size 1 --out {out}/latents-aspect",
        f"published {coco} --captions {{out}}/captions.jsonl --model people --out {{out}}/captions",
        "text --captions {out}/captions --t5 {out}/models/t5 --out {out}/text",
    ):
        _run(line, out)
    prompts = ["prompts", "--t5", f"{out}/models/t5", "--device", "cpu", "--out", f"{out}/prompts.safetensors"]
    _start([*prompts, "--prompts", *_PROMPTS])
    text = "--text {out}/text --grid-prompts {out}/prompts.safetensors"
    stages = (
        ("pixel", f"--latents {{out}}/latents-imagenet --resolution 128 --grid-classes {' '.join(_CLASSES)}"),
        ("align", f"--latents {{out}}/latents-coco {text} --resolution 128 --init-from {{out}}/pixel"),
        (
            "aesthetic-512",
            f"--latents {{out}}/latents-aspect {text} --max-unmatched 0.7 --resolution 256 --init-from {{out}}/align",
        ),
    )
    rows = []
    for stage, more in stages:
        steps = options.steps if stage != "aesthetic-512" else options.steps // 2
        began = _children()
        _run(f"{_TRAIN} {more}", out, stage=stage, steps=str(steps), look=str(max(1, steps // 3)))
        rows.append(_row(out / stage, stage, _children() - began))
    print(
        f"\n{platform.processor() or platform.machine()}, torch {torch.__version__}, Python {platform.python_version()}"
    )
    for row in rows:
        print(row)


def _write_captions(data: Path, path: Path) -> None:
    """The first of each photograph's captions, by the key it has in the shards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (data / "coco-photos" / "captions.dev.jsonl").open() as lines, path.open("w") as out:
        for row in map(json.loads, lines):
            caption = {"key": row["file"].partition(".")[0], "caption": row["captions"][0]}
            out.write(json.dumps(caption) + "\n")


def _teach_vae(data: Path, start: Path, out: Path, steps: int) -> None:
    """Teach the small VAE in `start` to give squares of 64 px of the photographs back, and write it to `out`."""
    torch.manual_seed(0)
    config = AutoencoderKL.load_config(start)
    vae: Any = AutoencoderKL.from_config(config | {"block_out_channels": (16, 16, 32, 32)})
    pictures = torch.from_numpy(np.stack([*_squares(data)])).permute(0, 3, 1, 2)
    adam = torch.optim.AdamW(vae.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, 3e-3, total_steps=steps)
    for step in range(steps):
        chosen = pictures[torch.randint(len(pictures), (8,))].float() / 127.5 - 1
        posterior = vae.encode(chosen).latent_dist
        loss = (vae.decode(posterior.sample()).sample - chosen).abs().mean() + 1e-5 * posterior.kl().mean() / 64
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
        if (step + 1) % 100 == 0:
            print(f"VAE step {step + 1}: mean error {loss.item() / 2:.3f} of the range", flush=True)
    with torch.no_grad():
        latents = vae.encode(pictures[:128].float() / 127.5 - 1).latent_dist.mean
    vae.register_to_config(scaling_factor=float(1 / latents.std()))
    vae.eval().save_pretrained(out)


def _squares(data: Path) -> Any:
    """The middle of each photograph, 64 px a side."""
    for tar in (data / "coco-photos" / "coco-photos.dev.tar", data / "imagenet-samples" / "imagenet-samples.dev.tar"):
        with tarfile.open(tar) as members:
            for member in members:
                file = members.extractfile(member) if member.isfile() else None
                if file is not None:
                    image = Image.open(file).convert("RGB")
                    side = min(image.size)
                    left, top = (image.width - side) // 2, (image.height - side) // 2
                    yield np.asarray(image.resize((64, 64), box=(left, top, left + side, top + side)))


def _row(run: Path, stage: str, cpu_seconds: float) -> str:
    summary = json.loads((run / "summary.json").read_text())
    looks = [json.loads(line) for line in (run / "validation.jsonl").read_text().splitlines()]
    held_out = " -> ".join(f"{look['ema']['loss']:.3f}" for look in looks)
    return (
        f"{stage:14} {summary['steps']:5} steps  loss {summary['first_loss']:.3f} -> {summary['last_loss']:.3f}  "
        f"held out, averaged weights {held_out}  {cpu_seconds:,.0f} CPU s"
    )


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run(line: str, out: Path, **values: str) -> None:
    _start([part.format(out=out, **values) for part in line.split()])


def _start(line: list[str]) -> None:
    line = [f"pipelines.{line[0]}", *line[1:]]
    print(f"\n$ python -m {shlex.join(line)}", flush=True)
    code = subprocess.run([sys.executable, "-m", *line], check=False).returncode
    if code:
        raise SystemExit(code)


if __name__ == "__main__":
    main()

"""The runs: each in a directory of its own, gone on with where it was stopped, and not run again once it is done.

OUT/data/                     see `data`
OUT/runs/ARM/SEED/run/        the training run
                  pictures/   one a prompt, by kind of prompt; the same prompts and noise in every run
                  result.json written last
"""

import fcntl
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.claims.arms import BASE, DENSE, PIXEL, RAW, Arm, Sizes
from benchmarks.claims.commands import command
from benchmarks.claims.data import PROMPTS, latents_of, make_data, text_of
from curation.demo.shipped import VAE
from training.cost.ledger import read_cost, total
from training.diffusion.config import FLOW, ObjectiveConfig, to_metadata
from training.models.config import PIXART_SIZES, PixArtConfig
from training.models.pixart import PixArt
from training.models.reading import Reading
from training.models.reparameterise import reparameterise
from training.weights.files import EMA_WEIGHTS, load_dit_weights, parameters_in, save_weights

RESULT = "result.json"
_MODEL = "tiny/2"
_HELD_OUT = 0.05
_TIMESTEPS = 10
_SIZES = "sizes.json"


def run_campaign(out: Path, arms: Sequence[Arm], seeds: Sequence[int], sizes: Sizes) -> None:
    """Every arm with every seed, seed by seed. Raises `SystemExit` where a command fails or is stopped."""
    out.mkdir(parents=True, exist_ok=True)
    _settle_sizes(out / _SIZES, sizes)
    with _alone(out / "data.lock", wait=True):
        make_data(out / "data", sizes)
    for seed in seeds:
        if any(arm.from_pixel for arm in arms):
            _train_pixel(out, seed, sizes)
        for arm in sorted(arms, key=lambda arm: arm.longer):  # what goes on from the base arm comes after it
            _run(out, arm, seed, sizes)


def folder_of(out: Path, arm: str, seed: int) -> Path:
    """Where a run is."""
    return out / "runs" / arm / str(seed)


def _settle_sizes(path: Path, sizes: Sizes) -> None:
    """Refuse to mix runs of different sizes."""
    if path.exists() and json.loads(path.read_text()) != asdict(sizes):
        raise SystemExit(f"{path} has other sizes. Name another --out, or give the same.")
    path.write_text(json.dumps(asdict(sizes), indent=1))


@contextmanager
def _alone(path: Path, wait: bool = False) -> Iterator[bool]:
    """Whether no other process has the lock `path`; held inside."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def _train_pixel(out: Path, seed: int, sizes: Sizes) -> None:
    folder = folder_of(out, PIXEL, seed)
    with _alone(folder / "lock", wait=True):
        if (folder / RESULT).exists():
            return
        stage = ["--stage", "pixel", "--classes", "20", "--resolution", str(sizes.size_px)]
        data = ["--latents", latents_of(out / "data", "pixel")]
        seconds = _train(folder, seed, sizes.pixel_steps, sizes, [*stage, *data])
        classes = ["--classes", *map(str, range(20))]
        drawn = ["--sampler", "dpm", "--steps", str(sizes.sampler_steps), "--guidance", str(sizes.guidance)]
        where = ["--run", f"{folder}/run", "--vae", str(VAE), "--device", "cpu", "--out", f"{folder}/pictures"]
        command(["sample", *where, *drawn, *classes], folder / "log.txt")
        _write_result(folder, {"arm": PIXEL, "seed": seed, "steps": sizes.pixel_steps, "seconds": seconds})


def _run(out: Path, arm: Arm, seed: int, sizes: Sizes) -> None:
    """Train, measure the loss, draw; what another process is at is left to it."""
    folder = folder_of(out, arm.name, seed)
    with _alone(folder / "lock") as mine:
        if not mine:
            return
        if (folder / RESULT).exists():
            _draw_missing(folder, out / "data", sizes)
            return
        began, data = time.strftime("%H:%M"), out / "data"
        steps = sizes.steps + (sizes.pixel_steps if arm.longer else 0)
        variants = [f"--text={text_of(data, 'train', name)}={weight}" for name, weight in arm.text]
        if arm.longer:
            base = folder_of(out, BASE.name, seed)
            if not (base / RESULT).exists():
                print(f"{arm.name}, seed {seed}: goes on from {BASE.name}, which is not done. Left out.", flush=True)
                return
            _copy_run(base / "run", folder / "run")
        start = _start(out, arm, seed, sizes)
        seconds = _train(folder, seed, steps, sizes, ["--latents", latents_of(data, "train"), *variants, *start])
        loss = {variant: _loss(folder, data, variant) for variant in (DENSE, RAW)}
        _draw_missing(folder, data, sizes)
        result = {
            "arm": arm.name,
            "seed": seed,
            "steps": steps,
            "parameters": parameters_in(folder / "run" / EMA_WEIGHTS),
            "seconds": seconds,
            "loss": loss,
        }
        _write_result(folder, result)
        print(f"{began} to {time.strftime('%H:%M')}: {arm.name}, seed {seed}, loss {loss[DENSE]:.4f}", flush=True)


def _start(out: Path, arm: Arm, seed: int, sizes: Sizes) -> list[str]:
    """The options that say which weights an arm starts from."""
    pixel = folder_of(out, PIXEL, seed) / "run" / EMA_WEIGHTS
    if arm.modulation == "single":
        return ["--init-from", str(pixel)] if arm.from_pixel else []
    # No flag asks for an adaLN in every block; a training keeps it from weights that have it.
    path = folder_of(out, arm.name, seed) / "start.safetensors"
    write_start(path, out / "data", seed, sizes.size_px, arm.modulation, pixel if arm.from_pixel else None)
    return ["--init-from", str(path)]


def write_start(path: Path, data: Path, seed: int, size_px: int, modulation: str, dit: Path | None) -> None:
    """Weights of that modulation, drawn from `seed` or taken over from the DiT in the file `dit`."""
    vae = json.loads((VAE / "config.json").read_text())
    t5 = json.loads((data / "models" / "t5" / "config.json").read_text())
    size = PIXART_SIZES[_MODEL]
    config = PixArtConfig(
        depth=size.depth,
        hidden=size.hidden,
        heads=size.heads,
        patch=size.patch,
        caption_channels=t5["d_model"],
        learn_sigma=False,
        position_base=size_px // 8 // size.patch,
        modulation=modulation,
    )
    if dit is None:
        torch.manual_seed(seed)
        state = PixArt(config).state_dict()
    else:
        dit_config, dit_state, _ = load_dit_weights(dit)
        state = reparameterise(dit_state, dit_config, config, Reading(), seed)
    said = {"images_seen": "0", "kind": "raw", "vae_scaling_factor": str(vae["scaling_factor"])}
    said |= {"vae_shift_factor": str(vae.get("shift_factor") or 0.0)}
    save_weights(path, state, config, said | to_metadata(ObjectiveConfig(prediction=FLOW)))


def _train(folder: Path, seed: int, steps: int, sizes: Sizes, more: list[str]) -> float:
    """Train to the end; the seconds that all starts of the run took."""
    batch, look = str(sizes.batch), str(max(1, steps // sizes.looks))
    learns = ["--lr", str(sizes.lr), "--warmup", str(sizes.warmup), "--clip", "1", "--weight-decay", "0"]
    learns += ["--ema-decay", str(sizes.ema_decay), "--prediction", FLOW, "--seed", str(seed)]
    size = ["--model", _MODEL, "--global-batch", batch, "--micro-batch", batch, "--steps", str(steps)]
    runs = ["--device", "cpu", "--threads", "1", "--save-every", "500", "--keep-checkpoints", "1", "--log-every", "50"]
    runs += ["--manifest-cache", f"{folder}/manifests", "--max-unmatched", "0.01"]
    looks = ["--held-out", str(_HELD_OUT), "--validate-every", look]
    command(["train", "--out", f"{folder}/run", *size, *learns, *runs, *looks, *more], folder / "log.txt")
    return total([read_cost(folder / "run")]).seconds


def _loss(folder: Path, data: Path, variant: str) -> float:
    """The loss of the averaged weights on all test pictures, with that text."""
    out = folder / f"loss-{variant}.json"
    read = ["--latents", latents_of(data, "test"), "--text", text_of(data, "test", variant), "--max-unmatched", "0.01"]
    where = ["--run", f"{folder}/run", "--manifest-cache", f"{folder}/manifests", "--device", "cpu", "--threads", "1"]
    measured = ["--count", "0", "--timesteps", str(_TIMESTEPS), "--batch", "64", "--json", str(out)]
    command(["evaluate", "loss", *where, *read, *measured], folder / "log.txt")
    return float(json.loads(out.read_text())["mse"])


def _draw_missing(folder: Path, data: Path, sizes: Sizes) -> None:
    """The pictures of every kind of prompt that are not there."""
    for kind, path in PROMPTS.items():
        asked = len((data / path).read_text().splitlines())
        out = folder / "pictures" / kind
        if len(list(out.glob("*.png"))) < asked:
            _draw(out, folder, data / path, data, sizes)


def _draw(out: Path, folder: Path, prompts: Path, data: Path, sizes: Sizes) -> None:
    drawn = ["--sampler", "dpm", "--steps", str(sizes.sampler_steps), "--guidance", str(sizes.guidance)]
    models = ["--t5", f"{data}/models/t5", "--vae", str(VAE), "--device", "cpu", "--batch", "64"]
    where = ["--from-run", f"{folder}/run", "--prompts", str(prompts), "--out", str(out)]
    command(["evaluate", "generate", *where, *models, *drawn], folder / "log.txt")


def _copy_run(source: Path, target: Path) -> None:
    """The run to go on with, whole or not at all."""
    if target.exists():
        return
    aside = target.with_name("copying")
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(source, aside)
    aside.rename(target)


def _write_result(folder: Path, result: dict[str, object]) -> None:
    aside = folder / f".{RESULT}"
    aside.write_text(json.dumps(result, indent=1))
    aside.rename(folder / RESULT)

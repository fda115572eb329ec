"""Pictures from prompts, with the weights of a training run.

    python -m pipelines.sample --run RUN --t5 DIR --vae DIR --prompts "a red fox" "a quiet harbour" --out pictures/

Writes one PNG a prompt (with prompt and seed in its text fields) and grid.png.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.command import parser, run
from pipelines.sample_record import is_current, stamp, write_record
from schemas.dataset import DATASET_FILE
from schemas.errors import ExitCode, StorageError, UserError
from training.diffusion.config import ObjectiveConfig, from_metadata

if TYPE_CHECKING:
    import torch

    from training.models.pixart import PixArt
    from training.pictures import LatentDecoder, Pictures
    from training.prompts import EncodedPrompts

SAMPLERS = ("dpm", "ddim", "ancestral", "euler")  # of training.diffusion.samplers, which is slow to import


@dataclass(frozen=True, slots=True)
class Size:
    """Height and width of the pictures in pixels."""

    height_px: int
    width_px: int


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit code. Raises `UserError` for what a person can mend."""
    options = _parser().parse_args(arguments)
    prompts = _prompts(options)

    from training.diffusion.samplers import DEFAULT_STEPS, check_sampler
    from training.pictures import LatentDecoder
    from training.weights import load_model

    if options.steps is None:
        options.steps = DEFAULT_STEPS[options.sampler]
    device, weights = _device(options.device), _weights_file(options)
    settings = _settings(options, prompts, weights, device)
    if is_current(options.out, settings):
        print(f"nothing to do: the {len(prompts)} pictures in {options.out} are of these prompts, weights and settings")
        return ExitCode.OK
    model, metadata = load_model(weights, device)
    objective = from_metadata(metadata, str(weights))
    check_sampler(options.sampler, objective, model.config.learn_sigma, options.steps)
    decoder = LatentDecoder(options.vae)
    scaling, shift = float(metadata["vae_scaling_factor"]), float(metadata["vae_shift_factor"])
    _check_fit(options, weights, model, decoder)
    if not decoder.takes_scaled and decoder.scaling_factor != scaling:
        print(
            f"warning: {options.vae} scales latents by {decoder.scaling_factor}, the model's were scaled by {scaling}; "
            f"is it another VAE than the one that made them?",
            file=sys.stderr,
        )
    size = _size(options.size, model, decoder)
    _make_directory(options.out)
    batches, null = _encode(options, prompts, model.config.text_tokens, device)
    latents = _latents(model, objective, batches, null, size, options, decoder.cell)
    del model
    _write(options, prompts, decoder.to(device)(latents, scaling, shift))
    write_record(options.out, settings)
    noun = "picture" if len(prompts) == 1 else "pictures"
    print(f"{len(prompts)} {noun} of {size.height_px}x{size.width_px} px in {options.out}, together in grid.png")
    print(f"weights: {weights} ({metadata['kind']}, after {metadata['images_seen']} images), on {device}")
    return ExitCode.OK


def _settings(options: argparse.Namespace, prompts: list[str], weights: Path, device: "torch.device") -> dict[str, Any]:
    """All that decides how the pictures look."""
    chosen = {name: getattr(options, name) for name in ("sampler", "steps", "guidance", "size", "seed", "batch")}
    models = {"weights": stamp(weights), "t5": stamp(options.t5), "vae": stamp(options.vae)}
    return {"prompts": prompts, "device": device.type, **chosen, **models}


def _parser() -> argparse.ArgumentParser:
    command = parser("sample", "Pictures from prompts, with the weights of a training run.")
    weights = command.add_mutually_exclusive_group(required=True)
    weights.add_argument("--run", type=Path, metavar="RUN", help="a training run's directory")
    weights.add_argument("--weights", type=Path, metavar="FILE", help="a weights file (.safetensors) by itself")
    prompts = command.add_mutually_exclusive_group(required=True)
    prompts.add_argument("--prompts", nargs="+", metavar="TEXT", help="the prompts")
    prompts.add_argument("--prompts-file", type=Path, metavar="FILE", help="a text file with one prompt a line")
    command.add_argument("--t5", required=True, metavar="DIR", help="T5 model and tokenizer that embedded the captions")
    command.add_argument("--vae", required=True, metavar="DIR", help="VAE that encoded the pictures")
    command.add_argument("--out", required=True, type=Path, metavar="DIR", help="where the pictures go")
    command.add_argument(
        "--sampler",
        default="dpm",
        choices=SAMPLERS,
        help="dpm for all models; ddim, ancestral for epsilon and v; euler for flow (default %(default)s)",
    )
    command.add_argument("--steps", type=_positive, help="default 20 of dpm, 50 of ddim and euler, 100 of ancestral")
    command.add_argument("--guidance", type=float, default=4.5, help="guidance scale; 1 is none (default %(default)s)")
    command.add_argument("--size", metavar="PX", help="256, or HEIGHTxWIDTH (default: the model's training size)")
    command.add_argument("--seed", type=_seed, default=0, help="prompt number i gets SEED + i (default %(default)s)")
    command.add_argument("--batch", type=_positive, default=8, help="pictures at a time (default %(default)s)")
    command.add_argument(
        "--ema", action=argparse.BooleanOptionalAction, default=True, help="of --run: the averaged or the raw weights"
    )
    command.add_argument("--device", help="cpu, cuda, cuda:1 (default: cuda where there is one; bf16 there)")
    return command


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"{value} does not lie between 0 and 2**63 - 1")
    return value


def _prompts(options: argparse.Namespace) -> list[str]:
    if options.prompts_file is None:
        return list(options.prompts)
    try:
        lines = options.prompts_file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.reason
        raise UserError(f"{options.prompts_file}: cannot be read ({reason}). Give a UTF-8 text file.") from None
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise UserError(f"{options.prompts_file}: no prompt in it. Write one a line.")
    return prompts


def _weights_file(options: argparse.Namespace) -> Path:
    from training.weights import EMA_WEIGHTS, RAW_WEIGHTS

    if options.weights is not None:
        return Path(options.weights)
    if not options.run.is_dir():
        raise UserError(f"{options.run}: no such run directory. Check the path.")
    return Path(options.run) / (EMA_WEIGHTS if options.ema else RAW_WEIGHTS)


def _device(name: str | None) -> "torch.device":
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name}: cannot be used ({reason}). Give another, such as cpu.") from None
    return device


def _check_fit(options: argparse.Namespace, weights: Path, model: "PixArt", decoder: "LatentDecoder") -> None:
    """Raise `UserError` unless T5 and VAE are of the kind that the model was trained with."""
    from training.prompts import text_width

    width = text_width(options.t5)
    if width != model.config.caption_channels:
        raise UserError(
            f"{options.t5}: a T5 {width} wide, but {weights} was trained on embeddings "
            f"{model.config.caption_channels} wide. Give the T5 that made them."
        )
    if decoder.channels != model.config.in_channels:
        raise UserError(
            f"{options.vae}: a VAE of {decoder.channels} latent channels, but {weights} was trained on "
            f"{model.config.in_channels}. Give the VAE that made them."
        )


def _size(text: str | None, model: "PixArt", decoder: "LatentDecoder") -> Size:
    token_px = decoder.cell * model.config.patch
    if text is None:
        side = model.config.position_base * token_px
        return Size(side, side)
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise UserError(f"--size {text}: not a size. Give pixels, such as 256, or HEIGHTxWIDTH, such as 512x768.")
    height_px, width_px = int(sides[0]), int(sides[-1])
    if height_px % token_px or width_px % token_px:
        raise UserError(f"--size {text}: both sides must be multiples of {token_px} px for this model and VAE.")
    return Size(height_px, width_px)


def _encode(
    options: argparse.Namespace, prompts: list[str], limit: int, device: "torch.device"
) -> tuple[list["EncodedPrompts"], "torch.Tensor"]:
    """The prompts in batches, and the null condition [L0, D]: the empty string. The T5 is gone when this returns."""
    import torch

    from training.prompts import PromptEncoder

    encoder = PromptEncoder(options.t5, device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    null = encoder([""], limit)
    batches = []
    for start in range(0, len(prompts), options.batch):
        batch = prompts[start : start + options.batch]
        batches.append(encoder(batch, limit))
        for prompt, cut in zip(batch, batches[-1].truncated, strict=True):
            if cut:
                print(f"warning: only the first {limit} tokens are used of: {prompt}", file=sys.stderr)
    return batches, null.text[0, : int(null.lengths[0])]


def _latents(
    model: "PixArt",
    objective: ObjectiveConfig,
    batches: list["EncodedPrompts"],
    null: "torch.Tensor",
    size: Size,
    options: argparse.Namespace,
    cell: int,
) -> "torch.Tensor":
    """Scaled latents [B, C, h, w] of all prompts."""
    import torch

    from training.sampling import sample

    device = next(model.parameters()).device
    ratio = [size.height_px, size.width_px, size.height_px / size.width_px]
    seed, parts = options.seed, []
    for batch in batches:
        count = len(batch.text)
        try:
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                latents = sample(
                    model,
                    batch.text.to(device),
                    batch.lengths.to(device),
                    null.to(device),
                    len(null),
                    height=size.height_px // cell,
                    width=size.width_px // cell,
                    seeds=range(seed, seed + count),
                    steps=options.steps,
                    guidance=options.guidance,
                    sizes=torch.tensor([ratio] * count, device=device),
                    sampler=options.sampler,
                    objective=objective,
                )
        except torch.OutOfMemoryError:
            raise UserError(f"GPU memory does not hold {count} pictures at a time. Lower --batch or --size.") from None
        parts.append(latents)
        seed += count
    return torch.cat(parts)


def _make_directory(out: Path) -> None:
    if (out / DATASET_FILE).exists():
        raise UserError(f"{out}: a data set lies there. Choose another --out.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{out}: cannot be made ({error.strerror}). Give a directory that can be written.") from None


def _write(options: argparse.Namespace, prompts: list[str], pictures: "Pictures") -> None:
    from PIL import Image, PngImagePlugin

    from training.pictures import grid

    digits = max(4, len(str(len(prompts) - 1)))
    try:
        for i, (prompt, picture) in enumerate(zip(prompts, pictures, strict=True)):
            about = PngImagePlugin.PngInfo()
            about.add_itxt("prompt", prompt)
            about.add_text("seed", str(options.seed + i))
            about.add_text("sampler", options.sampler)
            about.add_text("steps", str(options.steps))
            about.add_text("guidance", str(options.guidance))
            Image.fromarray(picture).save(options.out / f"{i:0{digits}}.png", pnginfo=about)
        Image.fromarray(grid(pictures)).save(options.out / "grid.png")
    except OSError as error:
        raise StorageError(f"{options.out}: pictures cannot be written ({error}). Free space or check it.") from None


if __name__ == "__main__":
    run(main)

"""Pictures from prompts, with the weights of a training run; or from classes, with those of stage pixel.

    python -m pipelines.sample --run RUN --t5 DIR --vae DIR --prompts "a red fox" "a quiet harbour" --out pictures/
    python -m pipelines.sample --run RUN --vae DIR --classes 7 285 --out pictures/

Writes one PNG a prompt (with prompt and seed in its text fields) and grid.png.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.command import parser, run
from pipelines.sample_record import is_current, stamp, write_record
from pipelines.sampling_arguments import (
    add_device_argument,
    add_sampling_arguments,
    add_weights_arguments,
    device_of,
    weights_file,
)
from schemas.dataset import DATASET_FILE
from schemas.errors import ExitCode, StorageError, UserError
from training.diffusion.config import ObjectiveConfig, from_metadata
from training.evaluation.prompt_lists import read_prompts

if TYPE_CHECKING:
    import torch

    from training.models.dit import DiT
    from training.models.pixart import PixArt
    from training.sampling.drawing import DrawSettings
    from training.sampling.pictures import Pictures
    from training.sampling.prompts import EncodedPrompts


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit code. Raises `UserError` for what a person can mend."""
    options = _parser().parse_args(arguments)
    prompts = _prompts(options)

    from training.diffusion.samplers import DEFAULT_STEPS, check_sampler
    from training.sampling.drawing import DrawSettings, check_fit, picture_size
    from training.sampling.pictures import LatentDecoder
    from training.weights.files import load_dit_model, load_model

    if options.steps is None:
        options.steps = DEFAULT_STEPS[options.sampler]
    device, weights = device_of(options.device), weights_file(options)
    settings = _settings(options, prompts, weights, device)
    if is_current(options.out, settings):
        print(f"nothing to do: the {len(prompts)} pictures in {options.out} are of these prompts, weights and settings")
        return ExitCode.OK
    model, metadata = load_dit_model(weights, device) if options.classes else load_model(weights, device)
    objective = from_metadata(metadata, str(weights))
    check_sampler(options.sampler, objective, model.config.learn_sigma, options.steps)
    decoder = LatentDecoder(options.vae)
    scaling, shift = float(metadata["vae_scaling_factor"]), float(metadata["vae_shift_factor"])
    check_fit(weights, model.config, options.t5, options.vae, decoder)
    if not decoder.takes_scaled and decoder.scaling_factor != scaling:
        print(
            f"warning: {options.vae} scales latents by {decoder.scaling_factor}, the model's were scaled by {scaling}; "
            f"is it another VAE than the one that made them?",
            file=sys.stderr,
        )
    height_px, width_px = picture_size(options.size, model.config, decoder.cell)
    drawing = DrawSettings(options.sampler, options.steps, options.guidance, height_px, width_px)
    _make_directory(options.out)
    latents = _latents(model, objective, prompts, drawing, options, decoder.cell)
    del model
    _write(options, prompts, decoder.to(device)(latents, scaling, shift))
    write_record(options.out, settings)
    noun = "picture" if len(prompts) == 1 else "pictures"
    print(f"{len(prompts)} {noun} of {height_px}x{width_px} px in {options.out}, together in grid.png")
    print(f"weights: {weights} ({metadata['kind']}, after {metadata['images_seen']} images), on {device}")
    return ExitCode.OK


def _settings(options: argparse.Namespace, prompts: list[str], weights: Path, device: "torch.device") -> dict[str, Any]:
    """All that decides how the pictures look."""
    chosen = {name: getattr(options, name) for name in ("sampler", "steps", "guidance", "size", "seed", "batch")}
    models = {"weights": stamp(weights), "vae": stamp(options.vae)}
    models |= {"t5": stamp(options.t5)} if options.t5 else {}
    return {"prompts": prompts, "device": device.type, **chosen, **models}


def _parser() -> argparse.ArgumentParser:
    command = parser("sample", "Pictures from prompts, with the weights of a training run.")
    add_weights_arguments(command)
    prompts = command.add_mutually_exclusive_group(required=True)
    prompts.add_argument("--prompts", nargs="+", metavar="TEXT", help="the prompts")
    prompts.add_argument("--prompts-file", type=Path, metavar="FILE", help="one prompt a line; or .jsonl with `prompt`")
    prompts.add_argument(
        "--classes", nargs="+", type=int, metavar="N", help="class numbers, for weights of stage pixel"
    )
    command.add_argument("--out", required=True, type=Path, metavar="DIR", help="where the pictures go")
    add_sampling_arguments(command, t5_required=False)
    add_device_argument(command)
    return command


def _prompts(options: argparse.Namespace) -> list[str]:
    """What each picture is drawn from, as it is written into the picture."""
    if options.classes and options.t5:
        raise UserError("classes need no T5: leave out --t5.")
    if options.classes:
        return [f"class {number}" for number in options.classes]
    if not options.t5:
        raise UserError("no --t5 given, which prompts need. Give the directory of the T5 that embedded the captions.")
    return list(options.prompts) if options.prompts else read_prompts(options.prompts_file)


def _encode(
    options: argparse.Namespace, prompts: list[str], limit: int, device: "torch.device"
) -> tuple[list["EncodedPrompts"], "torch.Tensor"]:
    """The prompts in batches, and the null condition [L0, D]: the empty string. The T5 is gone when this returns."""
    from training.sampling.drawing import text_dtype
    from training.sampling.prompts import PromptEncoder

    encoder = PromptEncoder(options.t5, device, text_dtype(device))
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
    model: "PixArt | DiT",
    objective: ObjectiveConfig,
    prompts: list[str],
    settings: "DrawSettings",
    options: argparse.Namespace,
    cell: int,
) -> "torch.Tensor":
    """Scaled latents [B, C, h, w] of all prompts, or of all classes."""
    import torch

    from training.models.dit import DiT
    from training.sampling.drawing import draw_class_latents, draw_latents

    starts = range(0, len(prompts), options.batch)
    seeds = [range(options.seed + at, options.seed + min(at + options.batch, len(prompts))) for at in starts]
    if isinstance(model, DiT):
        cut = [options.classes[at : at + options.batch] for at in starts]
        drawn = [draw_class_latents(model, objective, *part, settings, cell) for part in zip(cut, seeds, strict=True)]
    else:
        device = next(model.parameters()).device
        batches, null = _encode(options, prompts, model.config.text_tokens, device)
        drawn = [
            draw_latents(model, objective, batch, null, part, settings, cell)
            for batch, part in zip(batches, seeds, strict=True)
        ]
    return torch.cat(drawn)


def _make_directory(out: Path) -> None:
    if (out / DATASET_FILE).exists():
        raise UserError(f"{out}: a data set lies there. Choose another --out.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{out}: cannot be made ({error.strerror}). Give a directory that can be written.") from None


def _write(options: argparse.Namespace, prompts: list[str], pictures: "Pictures") -> None:
    from PIL import Image, PngImagePlugin

    from training.sampling.pictures import grid

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

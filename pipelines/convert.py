"""Weights from one kind of file to another, and a DiT to a PixArt.

    python -m pipelines.convert --from official --to latentmill --in PixArt-XL-2-256x256.pth --out pixart.safetensors
    python -m pipelines.convert --from latentmill --to diffusers --in RUN/weights/ema.safetensors --out pipeline/ \\
        --t5 DIR --vae DIR
    python -m pipelines.convert --from official --to latentmill --in DiT-XL-2-256x256.pt --out start.safetensors \\
        --reparameterise first-block

official is the released code's .pth of PixArt-α, PixArt-Σ or DiT; diffusers a pipeline's or a transformer's directory;
latentmill a weights file of this trainer, which `pipelines.train --init-from` and `pipelines.sample --weights` take.
Every key is accounted for: one too many or too few is an error that names it.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.command import parser, run
from schemas.errors import ExitCode, UserError

if TYPE_CHECKING:
    from torch import Tensor

    from training.models.config import DitConfig, PixArtConfig
    from training.models.official import Choices

_KINDS = ("official", "diffusers", "latentmill")
_STAGE_DEFAULTS = {
    "timestep": 500,
    "without_class": "zero",
    "modulation": "single",
    "caption_channels": 4096,
    "seed": 0,
}
_REPORTED = (0, 250, 750, 999)  # timesteps, beside the chosen one


@dataclass(frozen=True, slots=True)
class Model:
    """A model on its way, in our names."""

    config: "PixArtConfig | DitConfig"
    state: "dict[str, Tensor]"
    metadata: dict[str, str]


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit code. Raises `UserError` for what a person can mend."""
    options = _parser().parse_args(arguments)
    _check_options(options)
    model = _read(options)
    if options.reparameterise:
        model = _reparameterised(model, options)
    _write(model, options)
    count = sum(tensor.numel() for tensor in model.state.values())
    name = "PixArt" if _is_pixart(model.config) else "DiT"
    print(f"{options.out}: a {name} of {count:,} values, as {options.to}")
    return ExitCode.OK


def _parser() -> argparse.ArgumentParser:
    command = parser("convert", "Weights from one kind of file to another, and a DiT to a PixArt.")
    command.add_argument("--from", dest="source", required=True, choices=_KINDS, help="what --in is")
    command.add_argument("--to", required=True, choices=_KINDS, help="what --out becomes")
    command.add_argument("--in", dest="path", required=True, metavar="PATH", help="file, or diffusers' directory")
    command.add_argument("--out", required=True, type=Path, metavar="PATH", help="file or directory; must not exist")

    unsaid = command.add_argument_group("what a public checkpoint may leave unsaid")
    unsaid.add_argument("--ema", action="store_true", help="official: the averaged weights of a trainer's file")
    unsaid.add_argument("--heads", type=int, metavar="N", help="official: heads, for widths other than S, B, L, XL")
    unsaid.add_argument(
        "--image-px", type=int, metavar="PX", help="official: pixels a side, where pos_embed is missing"
    )
    unsaid.add_argument(
        "--position-scale", type=float, metavar="X", help="official: divisor of positions (released: 0.5, 1, 2, 4)"
    )
    unsaid.add_argument("--text-tokens", type=int, metavar="N", help="longest caption (released: α 120, Σ 300)")
    unsaid.add_argument(
        "--vae-scaling", type=float, metavar="X", help="of the latents (released: α 0.18215, Σ 0.13025)"
    )
    unsaid.add_argument(
        "--keep-null",
        action="store_true",
        help="official: keep y_embedder.y_embedding; such a file cannot be trained from",
    )

    pipeline = command.add_argument_group("to diffusers: parts to copy into the pipeline's directory")
    pipeline.add_argument("--t5", metavar="DIR", help="T5 encoder and tokenizer that embedded the captions")
    pipeline.add_argument("--vae", metavar="DIR", help="AutoencoderKL that encoded the pictures")

    stage = command.add_argument_group("stage 1 to stage 2: a DiT becomes the PixArt that predicts the same")
    stage.add_argument(
        "--reparameterise",
        choices=("first-block", "fresh"),
        help="the shared adaLN is that of DiT's block 0, or drawn anew",
    )
    stage.add_argument("--timestep", type=int, metavar="T", help="where both are equal (default 500)")
    stage.add_argument(
        "--without-class",
        choices=("zero", "null-class"),
        help="DiT without class: no class embedding, or that of its null class (default %(default)s)",
    )
    stage.add_argument(
        "--modulation",
        choices=("single", "per-block"),
        help="per-block: the baseline of the paper's ablation (default %(default)s)",
    )
    stage.add_argument("--caption-channels", type=int, metavar="D", help="T5's width (default 4096)")
    stage.add_argument("--seed", type=int, help="of what a DiT lacks (default %(default)s)")
    command.set_defaults(**_STAGE_DEFAULTS)
    return command


def _check_options(options: argparse.Namespace) -> None:
    if options.out.exists():
        raise UserError(f"{options.out}: exists already. Name another --out, or remove it.")
    official = ("ema", "heads", "image_px", "position_scale", "keep_null")
    for kind, names in (("official", official), ("latentmill", ("text_tokens", "vae_scaling"))):
        for name in names:
            wrong = options.source != "official" if kind == "official" else options.source == "latentmill"
            if getattr(options, name) and wrong and not (name == "text_tokens" and options.reparameterise):
                raise UserError(f"--{name.replace('_', '-')} means nothing for --from {options.source}. Leave it out.")
    if options.source == options.to == "latentmill" and not options.reparameterise:
        raise UserError("--from latentmill --to latentmill changes nothing. Copy the file, or add --reparameterise.")
    for name, default in _STAGE_DEFAULTS.items():
        if getattr(options, name) != default and not options.reparameterise:
            raise UserError(f"--{name.replace('_', '-')} means nothing without --reparameterise. Leave it out.")
    for name in ("t5", "vae"):
        if getattr(options, name) and options.to != "diffusers":
            raise UserError(f"--{name} means nothing for --to {options.to}. Leave it out.")
    for name in ("heads", "image_px", "text_tokens", "position_scale", "vae_scaling", "caption_channels"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise UserError(f"--{name.replace('_', '-')} {value} is not above 0. Give another.")


def _read(options: argparse.Namespace) -> Model:
    if options.source == "official":
        return _read_official(options)
    if options.source == "diffusers":
        return _read_diffusers(options)
    from training.weights.files import holds_dit, load_dit_weights, load_weights

    if Path(options.path).is_file() and holds_dit(options.path):
        return Model(*load_dit_weights(options.path))
    return Model(*load_weights(options.path))


def _read_official(options: argparse.Namespace) -> Model:
    from training.models.official import SIGMA_TOKENS, from_official, from_official_dit, is_dit
    from training.weights.public_checkpoints import ALPHA_VAE_SCALING, SIGMA_VAE_SCALING, load_official

    state = load_official(options.path, ema=options.ema)
    patches = state.get("x_embedder.proj.weight")
    choices = _choices(options, 2 if patches is None else patches.shape[-1])
    if is_dit(state):
        dit = from_official_dit(state, choices)
        _tell(dit.notes)
        return Model(dit.config, dit.state, _metadata(options, ALPHA_VAE_SCALING))
    pixart = from_official(state, choices)
    _tell(pixart.notes)
    sigma = pixart.config.text_tokens == SIGMA_TOKENS
    return Model(pixart.config, pixart.state, _metadata(options, SIGMA_VAE_SCALING if sigma else ALPHA_VAE_SCALING))


def _read_diffusers(options: argparse.Namespace) -> Model:
    from training.models.diffusers_keys import from_diffusers
    from training.models.official import SIGMA_TOKENS
    from training.weights.public_checkpoints import ALPHA_VAE_SCALING, SIGMA_VAE_SCALING, load_diffusers

    found = load_diffusers(options.path)
    choices = _choices(options, 2)
    if choices.text_tokens is None:
        choices = replace(choices, text_tokens=found.text_tokens)
    pixart = from_diffusers(found.state, found.config, choices)
    _tell(pixart.notes)
    sigma = pixart.config.text_tokens == SIGMA_TOKENS
    scaling = found.vae_scaling or (SIGMA_VAE_SCALING if sigma else ALPHA_VAE_SCALING)
    return Model(pixart.config, pixart.state, _metadata(options, scaling))


def _choices(options: argparse.Namespace, patch: int) -> "Choices":
    from training.models.official import Choices

    token_px = 8 * patch
    if options.image_px and options.image_px % token_px:
        raise UserError(f"--image-px {options.image_px} is no multiple of {token_px}. Give the training resolution.")
    return Choices(
        heads=options.heads,
        text_tokens=options.text_tokens,
        position_base=options.image_px // token_px if options.image_px else None,
        position_scale=options.position_scale,
        null_caption="buffer" if options.keep_null else "empty-string",
    )


def _metadata(options: argparse.Namespace, scaling: float) -> dict[str, str]:
    """What a weights file says beside the configuration. Public checkpoints tell of no number of images."""
    if not options.vae_scaling:
        _tell((f"latents scaled by {scaling:g} are supposed",))
    return {
        "images_seen": "0",
        "kind": "ema" if options.ema else "raw",
        "vae_scaling_factor": str(options.vae_scaling or scaling),
        "vae_shift_factor": "0.0",
    }


def _reparameterised(model: Model, options: argparse.Namespace) -> Model:
    from training.models.config import DitConfig
    from training.models.official import ALPHA_TOKENS
    from training.models.reading import Reading
    from training.models.reparameterise import pixart_config, reparameterise

    if not isinstance(model.config, DitConfig):
        raise UserError(f"{options.path}: a PixArt already. Leave out --reparameterise.")
    reading = Reading(options.reparameterise, options.without_class, options.timestep)
    config = pixart_config(model.config, options.caption_channels, options.text_tokens or ALPHA_TOKENS)
    config = replace(config, modulation=options.modulation)
    state = reparameterise(model.state, model.config, config, reading, options.seed)
    if options.modulation == "single":
        _report(model.config, model.state, config, state, reading.without_class, reading.timestep)
    return Model(config, state, model.metadata)


def _report(
    dit: "DitConfig",
    dit_state: "dict[str, Tensor]",
    pixart: "PixArtConfig",
    state: "dict[str, Tensor]",
    without_class: str,
    timestep: int,
) -> None:
    """Print how far the two are apart."""
    import torch

    from training.models.reparameterise import distances

    side = dit.position_base * dit.patch
    latents = torch.randn(1, dit.in_channels, side, side, generator=torch.Generator().manual_seed(0))
    timesteps = sorted({*_REPORTED, timestep})
    print("relative distance from the DiT without class, for one latent of noise:")
    print("timestep    output   final layer   blocks: mean   largest")
    for found in distances(dit_state, dit, state, pixart, timesteps, latents, without_class):
        mean, largest = sum(found.blocks) / len(found.blocks), max(found.blocks)
        print(f"{found.timestep:8}  {found.output:8.2g}  {found.final:12.2g}  {mean:13.2g}  {largest:8.2g}")


def _write(model: Model, options: argparse.Namespace) -> None:
    if options.to == "latentmill":
        from training.weights.files import save_weights

        save_weights(options.out, model.state, model.config, model.metadata)
    elif options.to == "official":
        from training.diffusion.config import ObjectiveConfig, from_metadata
        from training.models.official import to_official
        from training.weights.public_checkpoints import save_official

        state, note = to_official(model.state, model.config)
        objective = from_metadata(model.metadata, options.path)
        save_official(options.out, state)
        _tell((note,))
        if objective != ObjectiveConfig():
            _tell((f"it was trained for {objective.prediction}, which a .pth cannot say; tell its users",))
    else:
        _write_pipeline(model, options)


def _write_pipeline(model: Model, options: argparse.Namespace) -> None:
    from training.diffusion.config import from_metadata
    from training.models.config import PixArtConfig
    from training.models.official import check_state
    from training.weights.public_checkpoints import save_pipeline

    if not isinstance(model.config, PixArtConfig):
        raise UserError("diffusers' PixArt pipelines take no DiT. Add --reparameterise, or convert to another kind.")
    check_state(model.state, model.config)
    notes = save_pipeline(
        options.out,
        model.state,
        model.config,
        vae_scaling=float(model.metadata["vae_scaling_factor"]),
        vae_shift=float(model.metadata["vae_shift_factor"]),
        t5=options.t5,
        vae=options.vae,
        objective=from_metadata(model.metadata, options.path),
    )
    _tell(notes)


def _is_pixart(config: "PixArtConfig | DitConfig") -> bool:
    from training.models.config import PixArtConfig

    return isinstance(config, PixArtConfig)


def _tell(notes: Sequence[str]) -> None:
    for note in notes:
        print(f"note: {note}")


if __name__ == "__main__":
    run(main)

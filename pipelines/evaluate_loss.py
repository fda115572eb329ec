"""`pipelines.evaluate loss`: the loss on held-out samples by timestep, which needs no foreign weights."""

import argparse
import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.command import not_negative
from pipelines.data_arguments import add_data_arguments, mixture_of
from pipelines.progress_line import ProgressLine
from pipelines.sampling_arguments import add_device_argument, add_weights_arguments, device_of, positive, weights_file
from pipelines.written import require_file, write_text
from schemas.errors import ExitCode, UserError

if TYPE_CHECKING:
    from training.data.collate import Features
    from training.data.manifest import Manifest
    from training.evaluation.loss import HeldOutLoss
    from training.models.config import DitConfig, PixArtConfig


def add(parts: "argparse._SubParsersAction[Any]") -> None:
    """The command's arguments."""
    about = "The loss of a run's weights on samples it was not trained on, at fixed timesteps and noise."
    command = parts.add_parser("loss", help="loss by timestep on held-out samples", description=about)
    add_weights_arguments(command)
    add_data_arguments(command)
    command.add_argument(
        "--count", type=not_negative, default=1024, metavar="N", help="samples, 0 for all (default 1024)"
    )
    command.add_argument(
        "--held-out",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="of the data that was trained on, those which this --held-out kept apart (default 0: the data is other)",
    )
    command.add_argument("--timesteps", type=positive, default=10, metavar="K", help="even grid (default 10)")
    command.add_argument("--batch", type=positive, default=32, help="samples at a time (default 32)")
    command.add_argument("--threads", type=not_negative, default=8, help="threads that read samples (default 8)")
    command.add_argument("--json", type=Path, metavar="FILE", help="also write the result here")
    add_device_argument(command)
    command.set_defaults(act=act)


def act(options: argparse.Namespace) -> int:
    """Measure, print the table, write the JSON."""
    import json

    from training.checkpoints.folder import file_digest
    from training.data.manifest import open_mixture
    from training.diffusion.config import from_metadata
    from training.evaluation.loss import HeldOut, grid
    from training.evaluation.results import versions
    from training.network import network_of
    from training.weights.files import load_any_weights

    if not 0 <= options.held_out < 1:
        raise UserError(f"--held-out {options.held_out} is no share. Use 0 for other data, and less than 1.")
    require_file("--json", options.json)
    weights, device = weights_file(options), device_of(options.device)
    config, tensors, metadata = load_any_weights(weights)
    objective, network = from_metadata(metadata, str(weights)), network_of(config)
    timesteps = grid(objective, options.timesteps)
    manifest = open_mixture(mixture_of(options)[0], options.max_unmatched, Path(options.manifest_cache))
    network.require(manifest)
    _require_fit(config, metadata, manifest, weights)
    model = network.build()
    model.load_state_dict(tensors)
    model.to(device).eval()
    measure = HeldOut(network, objective, manifest.facts, timesteps.to(device), autocast=device.type == "cuda")
    with _features(options, network.with_null(manifest, model), device.type) as batches:
        found = measure.measure(model, batches)
    held_out = f" (held out: {options.held_out:g})" if options.held_out else ""
    precision = "bf16" if measure.autocast else "fp32"
    told = (
        ("weights", f"{weights} ({metadata['kind']}, after {metadata['images_seen']} images), {file_digest(weights)}"),
        ("data", f"{manifest.digest}, {found.samples:,} of {len(manifest):,} samples{held_out}, {precision}"),
        ("predicts", f"{objective.prediction}; noise of seed {found.seed}"),
    )
    print(table(found, told))
    if options.json:
        record = {**asdict(found), **dict(told), "versions": versions(), "schema": 1}
        write_text(options.json, json.dumps(record, indent=2, sort_keys=True) + "\n")
    return ExitCode.OK


def table(found: "HeldOutLoss", told: tuple[tuple[str, str], ...]) -> str:
    """The losses for people."""
    from training.evaluation.results import plus_minus

    lines = [f"{name:<10}{value}" for name, value in told]
    lines.append(f"{'timestep':>10}{'mse, standard error':>24}{'vb':>12}{'loss':>12}")
    for at in found.by_timestep:
        mse = f"{at.mse:.5f}{plus_minus(at.mse_error)}"
        lines.append(f"{at.timestep:>10g}{mse:>24}{at.vb:>12.5f}{at.loss:>12.5f}")
    mse = f"{found.mse:.5f}{plus_minus(found.mse_error)}"
    lines.append(f"{'all':>10}{mse:>24}{found.vb:>12.5f}{found.loss:>12.5f}   N = {found.samples:,}")
    return "\n".join(lines)


@contextlib.contextmanager
def _features(options: argparse.Namespace, manifest: "Manifest", device: str) -> Iterator[Iterator["Features"]]:
    import torch

    from training.data.prefetch import Prefetcher
    from training.data.reader import Reader
    from training.evaluation.loss import LOSS_SEED, held_out_batches, held_out_rows

    rows = held_out_rows(manifest, options.count, LOSS_SEED, options.held_out)
    work = held_out_batches(manifest, rows, options.batch)
    read = Prefetcher(manifest, Reader(manifest), work, options.threads, 2, torch.device(device))
    progress = ProgressLine("samples", len(rows))

    def watched() -> Iterator["Features"]:
        for features in read:
            yield features
            progress.add(len(features.weights))

    with contextlib.closing(read):
        yield watched()


def _require_fit(
    config: "PixArtConfig | DitConfig", metadata: dict[str, str], manifest: "Manifest", weights: Path
) -> None:
    """Raise `UserError` unless the data is of the kind that the weights were trained on."""
    facts = manifest.facts
    pairs = [("latent channels", config.in_channels, facts.channels)]
    pairs += [("text width", getattr(config, "caption_channels", 0), facts.dim)] if manifest.text else []
    scaled = (
        ("scaling factor", "vae_scaling_factor", facts.scaling_factor),
        ("shift", "vae_shift_factor", facts.shift_factor),
    )
    odd = [f"{name} {here}, not {trained}" for name, trained, here in pairs if trained != here]
    odd += [f"{name} {here}, not {metadata[key]}" for name, key, here in scaled if float(metadata[key]) != here]
    if odd:
        raise UserError(f"the data has {'; '.join(odd)} as {weights} was trained on. Give data made as its own was.")

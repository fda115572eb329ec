"""Train a PixArt on latents and text that were computed before.

    python -m pipelines.train --latents DIR --text DIR --out RUN --model XL/2 --steps 150000
    python -m pipelines.train --data mixture.toml --out RUN ...
    torchrun --nproc-per-node 8 -m pipelines.train --latents DIR --text DIR --out RUN ...

The same command goes on from the newest checkpoint, at any number of processes, and does nothing once all steps are
done. SIGTERM, SIGUSR1 and SIGINT save at the next step and end each process with exit code 143, 143 and 130; torchrun
itself then ends with 1.
"""

import argparse
import errno
import os
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.data_arguments import DATA_FILE, add_data_arguments, add_plan_arguments, mixture_of, policy_of
from schemas.errors import ExitCode, InterruptedJobError, UserError
from training.config import ON_CORRUPT, POWER_WIDTHS, PRECISIONS, EmaConfig, OptimiserConfig, Recipe, RunConfig
from training.data.mixture import Source
from training.data.policy import Policy
from training.diffusion.config import EPSILON, FLOW, PREDICTIONS, TIME_DENSITIES, UNIFORM, ObjectiveConfig
from training.models.config import PIXART_SIZES, PixArtConfig

if TYPE_CHECKING:
    from training.data.manifest import Manifest

_STORAGE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM}
_LOST = ("Connection closed by peer", "Connection reset by peer")  # gloo's words; it has no error of its own
_BASES = (256, 512, 1024, 2048)  # resolutions of the aspect-bucket tables; a bucket has 0.9 to 1 times their area


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = parser().parse_args(arguments)
    rank = int(os.environ.get("RANK", 0))
    name = f"error (rank {rank})" if "RANK" in os.environ else "error"
    try:
        train(options, rank)
    except UserError as error:
        if rank == 0 or not error.alike:
            print(f"{name}: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{name}: interrupted; the same command goes on from the last checkpoint", file=sys.stderr, flush=True)
        return ExitCode.INTERRUPTED
    except RuntimeError as error:
        if "RANK" not in os.environ or not any(words in str(error) for words in _LOST):
            raise
        print(f"{name}: lost another rank; its own message or torchrun says why", file=sys.stderr, flush=True)
        return ExitCode.STOPPED
    except OSError as error:
        if error.errno not in _STORAGE_ERRORS:
            raise
        print(f"{name}: {error}. Free or unlock the disk, then run the same command.", file=sys.stderr, flush=True)
        return ExitCode.STORAGE
    return ExitCode.OK


def train(options: argparse.Namespace, rank: int) -> None:
    """Open the data, settle the configuration, train, print the summary on rank 0."""
    from training.data.manifest import open_mixture
    from training.trainer import train as run

    sources, shares = mixture_of(options)
    policy = policy_of(options, shares, PIXART_SIZES[options.model].patch)
    objective = objective_of(options)
    manifest = open_mixture(sources, options.max_unmatched, Path(options.manifest_cache))
    try:
        run(
            configure(options, sources, policy, objective, manifest),
            manifest,
            lambda line: print(line, file=sys.stderr, flush=True),
        )
    except InterruptedJobError:
        _tell_summary(options.out, rank)
        raise
    _tell_summary(options.out, rank)


def _tell_summary(run: str, rank: int) -> None:
    from training.metrics import summarise, table

    if rank == 0:
        print(table(summarise(Path(run))), flush=True)


def objective_of(options: argparse.Namespace) -> ObjectiveConfig:
    """The objective that the options mean. Raises `UserError` for options that do not go together."""
    return ObjectiveConfig(**{field.name: getattr(options, field.name) for field in fields(ObjectiveConfig)})


def configure(
    options: argparse.Namespace,
    sources: tuple[Source, ...],
    policy: Policy,
    objective: ObjectiveConfig,
    manifest: "Manifest",
) -> RunConfig:
    """The configuration that the options mean for this data."""
    import torch

    from training.checkpoint import file_digest

    if options.init_from and not Path(options.init_from).is_file():
        raise UserError(f"--init-from {options.init_from}: no such file. Check the path.")
    on_cuda = options.device != "cpu" and torch.cuda.is_available()
    recipe = Recipe(
        manifest_digest=manifest.digest,
        model=model_config(options.model, options.micro_conditions, manifest, objective.prediction != FLOW),
        init_digest=file_digest(Path(options.init_from)) if options.init_from else "",
        seed=options.seed,
        policy=policy,
        precision=options.precision or ("bf16" if on_cuda else "fp32"),
        optimiser=OptimiserConfig(
            lr=options.lr, weight_decay=options.weight_decay, warmup_steps=options.warmup, clip=options.clip
        ),
        ema=EmaConfig(options.ema_decay, options.ema_warmup, _power_widths(options.power_ema)),
        objective=objective,
    )
    own = [field.name for field in fields(RunConfig) if field.name not in ("recipe", "sources")]
    return RunConfig(recipe=recipe, sources=sources, **{name: getattr(options, name) for name in own})


def _power_widths(asked: list[float] | None) -> tuple[float, ...]:
    return tuple(sorted(asked or POWER_WIDTHS)) if asked is not None else ()


def model_config(name: str, micro_conditions: bool, manifest: "Manifest", learn_sigma: bool = True) -> PixArtConfig:
    """The model of size `name` for this data: channels, text width, and positions for its resolution."""
    size, facts = PIXART_SIZES[name], manifest.facts
    token_px = facts.downsample * size.patch
    for height, width in manifest.buckets:
        if height % token_px or width % token_px:
            raise UserError(
                f"the data holds pictures of {height}x{width} px, but --model {name} needs multiples of {token_px} "
                f"px. Make the latents at another size."
            )
    base = resolution(manifest.buckets) // facts.downsample // size.patch
    return replace(
        size,
        in_channels=facts.channels,
        caption_channels=facts.dim,
        text_tokens=facts.max_tokens,
        learn_sigma=learn_sigma,
        micro_conditions=micro_conditions,
        position_base=base,
        position_scale=max(1.0, base / 32),  # 1 up to 512 px, 2 at 1024 px, as released
    )


def resolution(buckets: tuple[tuple[int, int], ...]) -> int:
    """The base resolution in pixels of the largest bucket: that of its table, else the root of its area."""
    area = max(height * width for height, width in buckets)
    tabled = [base for base in _BASES if 0.89 * base**2 <= area <= base**2]
    return tabled[0] if tabled else round(area**0.5)


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    out = argparse.ArgumentParser(
        prog="python -m pipelines.train",
        description=__doc__,
        epilog=DATA_FILE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    optimiser, ema = OptimiserConfig(), EmaConfig()

    def option(group: argparse._ArgumentGroup, name: str, kind: type, default: object, text: str) -> None:
        shown = "" if default in (None, "") else f" (default {default})"
        group.add_argument(f"--{name}", type=kind, default=default, metavar=kind.__name__.upper(), help=text + shown)

    add_data_arguments(out)
    bound = "a run is never resumed under other values of these"
    add_plan_arguments(out, f"plan; {bound}")
    model = out.add_argument_group("model")
    model.add_argument("--model", default="XL/2", choices=PIXART_SIZES, help="size (default XL/2, the paper's)")
    model.add_argument("--micro-conditions", action="store_true", help="condition on original size and aspect ratio")
    option(model, "init-from", str, "", "weights file to start from; all tensors must fit")
    objective = out.add_argument_group(f"objective; {bound}")
    objective.add_argument(
        "--prediction",
        default=EPSILON,
        choices=PREDICTIONS,
        help="noise, velocity, or flow matching, which learns no variance (default epsilon, the paper's)",
    )
    objective.add_argument(
        "--min-snr",
        dest="min_snr_gamma",
        type=float,
        default=0.0,
        metavar="FLOAT",
        help="epsilon and v: largest signal-to-noise ratio that counts, 5 in its paper; 0 for none (default 0.0)",
    )
    objective.add_argument("--zero-terminal-snr", action="store_true", help="v: the last timestep is noise alone")
    objective.add_argument(
        "--time-density", default=UNIFORM, choices=TIME_DENSITIES, help="flow: how times are drawn (default uniform)"
    )
    option(objective, "time-mean", float, 0.0, "logit-normal: of logit(share of noise); above 0 means more noise")
    option(objective, "time-std", float, 1.0, "logit-normal: of the same")
    option(objective, "time-shift", float, 1.0, "flow: above 1 means more noise, as larger pictures need")
    recipe = out.add_argument_group(f"training; {bound} but --steps")
    option(recipe, "steps", int, 150_000, "optimiser steps in all")
    option(recipe, "lr", float, optimiser.lr, "learning rate of AdamW after warm-up")
    option(recipe, "warmup", int, optimiser.warmup_steps, "optimiser steps of linear warm-up")
    option(recipe, "weight-decay", float, optimiser.weight_decay, "of all parameters")
    option(recipe, "clip", float, optimiser.clip, "largest norm of the gradient; beyond it is scaled down")
    option(recipe, "ema-decay", float, ema.decay, "of the averaged weights")
    recipe.add_argument("--no-ema-warmup", dest="ema_warmup", action="store_false", help="full decay from step 1")
    recipe.add_argument(
        "--power-ema",
        type=float,
        nargs="*",
        metavar="STD",
        help="also keep power-function averages of these relative widths (no number: 0.05 0.10), see pipelines.ema",
    )
    recipe.add_argument("--precision", choices=PRECISIONS, help="default bf16 autocast on CUDA, else fp32")
    run = out.add_argument_group("run")
    run.add_argument("--out", required=True, metavar="RUN", help="run directory, local")
    run.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="default auto")
    option(run, "micro-batch", int, 32, "most samples a process takes at a time; the rest is accumulated")
    option(run, "threads", int, 8, "threads that read samples, per process")
    option(run, "prefetch", int, 4, "micro-batches read ahead, per process")
    option(run, "cache", str, "", "local directory for what is read from URLs, shared by the processes of a machine")
    option(run, "cache-gb", float, 100.0, "most that the cache may hold, in units of 10^9 bytes")
    run.add_argument(
        "--on-corrupt", default="stop", choices=ON_CORRUPT, help="damaged samples: stop, or train without them"
    )
    option(run, "max-corrupt", int, 100, "with --on-corrupt skip, stop after more than so many damaged samples")
    option(run, "log-every", int, 10, "steps a line of metrics")
    option(run, "save-every", int, 1000, "steps a checkpoint")
    option(run, "keep-checkpoints", int, 3, "newest checkpoints kept")
    option(run, "power-ema-every", int, 5000, "steps between snapshots of power-function averages, which all stay")
    run.add_argument("--sync-save", dest="background", action="store_false", help="training waits for each checkpoint")
    option(run, "max-skipped", int, 20, "stop after so many steps in a row without a finite gradient")
    return out


if __name__ == "__main__":
    sys.exit(main())

"""The options of `pipelines.train`. What a stage decides has no default of its own: None is the stage's."""

import argparse
from typing import Final

from pipelines.command import parser as command_parser
from pipelines.data_arguments import DATA_FILE, add_data_arguments, add_plan_arguments
from training.config import LR_RULES, ON_CORRUPT, PRECISIONS, EmaConfig, OptimiserConfig
from training.diffusion.config import EPSILON, PREDICTIONS, TIME_DENSITIES, UNIFORM
from training.models.config import ATTENTIONS, NULL_CAPTIONS, PIXART_SIZES
from training.models.reading import SHARED, WITHOUT_CLASS, Reading
from training.stages import FREE, STAGES

_CLASSES: Final = 1000  # of ImageNet
_BOUND: Final = "a run is never resumed under other values of these"


def parser(description: str | None) -> argparse.ArgumentParser:
    """The command's options."""
    out = command_parser("train", description or "")
    out.epilog = f"{DATA_FILE}\n{out.epilog}"
    add_data_arguments(out)
    add_plan_arguments(out, f"plan; {_BOUND}")
    _add_stage(out.add_argument_group("stage: gives the defaults of what is marked *, and refuses other data"))
    _add_model(out.add_argument_group(f"model; {_BOUND}"))
    _add_start(out.add_argument_group(f"weights to start from; {_BOUND}"))
    _add_objective(out.add_argument_group(f"objective; {_BOUND}"))
    _add_recipe(out.add_argument_group(f"training; {_BOUND} but --steps"))
    _add_run(out.add_argument_group("run"))
    _add_watching(out.add_argument_group("watching; see docs/training.md"))
    return out


def _option(group: argparse._ArgumentGroup, name: str, kind: type, default: object, text: str) -> None:
    shown = "" if default in (None, "") else f" (default {default})"
    group.add_argument(f"--{name}", type=kind, default=default, metavar=kind.__name__.upper(), help=text + shown)


def _staged(group: argparse._ArgumentGroup, name: str, field: str, text: str) -> None:
    """An option whose default is the stage's."""
    free = getattr(FREE, field)
    group.add_argument(
        f"--{name}",
        dest=field,
        type=type(free),
        metavar=type(free).__name__.upper(),
        help=f"* {text} (without a stage {free})",
    )


def _add_stage(stage: argparse._ArgumentGroup) -> None:
    stage.add_argument(
        "--stage",
        default="",
        choices=("", *STAGES),
        metavar="STAGE",
        help=f"of the paper: {', '.join(STAGES)} (default: none, which trains a PixArt on any data)",
    )
    stage.add_argument(
        "--resolution",
        dest="resolution_px",
        type=int,
        metavar="INT",
        help="* train the stage at other pixels than its own",
    )
    stage.add_argument(
        "--multi-scale", action=argparse.BooleanOptionalAction, help="* whether there may be aspect buckets"
    )


def _add_model(model: argparse._ArgumentGroup) -> None:
    model.add_argument("--model", default="XL/2", choices=PIXART_SIZES, help="size (default XL/2, the paper's)")
    model.add_argument(
        "--micro-conditions",
        action=argparse.BooleanOptionalAction,
        help="* condition on original size and aspect ratio",
    )
    model.add_argument(
        "--position-scale", type=float, metavar="FLOAT", help="* divides coordinates (1 up to 512 px, 2 at 1024 px)"
    )
    model.add_argument(
        "--null-caption",
        default=NULL_CAPTIONS[0],
        choices=NULL_CAPTIONS,
        help="what a dropped caption becomes: the T5 embedding of the empty string, or the constant in released "
        f"weights (default {NULL_CAPTIONS[0]})",
    )
    _option(model, "classes", int, _CLASSES, "stage pixel: classes, numbered from 0; one more is the null class")


def _add_start(start: argparse._ArgumentGroup) -> None:
    reading = Reading()
    _option(start, "init-from", str, "", "a weights file or a run directory; see docs/training.md on what becomes what")
    start.add_argument(
        "--init-weights", default="ema", choices=("ema", "raw"), help="of a run directory: which (default ema)"
    )
    start.add_argument(
        "--reparameterise",
        default=reading.shared,
        choices=SHARED,
        help=f"from a DiT: the shared modulation is that of its first block, or fresh (default {reading.shared})",
    )
    start.add_argument(
        "--without-class",
        default=reading.without_class,
        choices=WITHOUT_CLASS,
        help=f"from a DiT: what stands for no class (default {reading.without_class})",
    )
    _option(start, "reparameterise-at", int, reading.timestep, "from a DiT: the timestep at which both agree")


def _add_objective(objective: argparse._ArgumentGroup) -> None:
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
    _option(objective, "time-mean", float, 0.0, "logit-normal: of logit(share of noise); above 0 means more noise")
    _option(objective, "time-std", float, 1.0, "logit-normal: of the same")
    _option(objective, "time-shift", float, 1.0, "flow: above 1 means more noise, as larger pictures need")


def _add_recipe(recipe: argparse._ArgumentGroup) -> None:
    optimiser, ema = OptimiserConfig(), EmaConfig()
    _staged(recipe, "steps", "steps", "optimiser steps in all")
    _staged(recipe, "lr", "lr", "learning rate of AdamW after warm-up, before --lr-rule")
    recipe.add_argument(
        "--lr-rule", choices=LR_RULES, help="* constant: as it is; sqrt: times the root of global batch / 256"
    )
    _staged(recipe, "warmup", "warmup_steps", "optimiser steps of linear warm-up, whatever the number of processes")
    _option(recipe, "muon-lr", float, optimiser.muon_lr, "rate of Muon, for the matrices of the blocks; 0: AdamW")
    _option(recipe, "weight-decay", float, optimiser.weight_decay, "of all parameters")
    _staged(recipe, "clip", "clip", "largest norm of the gradient; beyond it is scaled down")
    _option(recipe, "ema-decay", float, ema.decay, "of the averaged weights")
    recipe.add_argument("--no-ema-warmup", dest="ema_warmup", action="store_false", help="full decay from step 1")
    recipe.add_argument(
        "--power-ema",
        type=float,
        nargs="*",
        metavar="STD",
        help="also keep power-function averages of these relative widths (no number: 0.05 0.10), see pipelines.ema",
    )
    _option(recipe, "held-out", float, 0.0, "share of samples kept out of training, the same in every run")
    recipe.add_argument("--precision", choices=PRECISIONS, help="default bf16 autocast on CUDA, else fp32")


def _add_run(run: argparse._ArgumentGroup) -> None:
    run.add_argument("--out", required=True, metavar="RUN", help="run directory, local")
    run.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="default auto")
    _staged(run, "micro-batch", "micro_batch", "most samples a process takes at a time; the rest is accumulated")
    _option(run, "threads", int, 8, "threads that read samples, per process")
    _option(run, "prefetch", int, 4, "micro-batches read ahead, per process")
    _option(run, "cache", str, "", "local directory for what is read from URLs, shared by the processes of a machine")
    _option(run, "cache-gb", float, 100.0, "most that the cache may hold, in units of 10^9 bytes")
    run.add_argument(
        "--on-corrupt",
        default="stop",
        choices=ON_CORRUPT,
        help="damaged samples: stop (default), or train without them",
    )
    _option(run, "max-corrupt", int, 100, "with --on-corrupt skip, stop after more than so many damaged samples")
    _option(run, "log-every", int, 10, "steps a line of metrics")
    _option(run, "save-every", int, 1000, "steps a checkpoint")
    _option(run, "keep-checkpoints", int, 3, "newest checkpoints kept")
    _option(run, "power-ema-every", int, 5000, "steps between snapshots of power-function averages, which all stay")
    run.add_argument("--sync-save", dest="background", action="store_false", help="training waits for each checkpoint")
    run.add_argument(
        "--attention", default="sdpa", choices=ATTENTIONS, help="to text: padded; packed, on CUDA (default sdpa)"
    )
    run.add_argument("--compile", action="store_true", help="compile the blocks (torch.compile)")
    run.add_argument(
        "--checkpoint-activations", action="store_true", help="compute blocks anew in the backward pass: less memory"
    )
    run.add_argument("--shard", action="store_true", help="split weights, averages and optimiser over all processes")
    run.add_argument(
        "--deterministic", action="store_true", help="the same bits from the same start on CUDA too; slower there"
    )
    _option(run, "max-skipped", int, 20, "stop after so many steps in a row without a finite gradient")


def _add_watching(watching: argparse._ArgumentGroup) -> None:
    _option(watching, "validate-every", int, 0, "steps between measurements of the held-out loss; 0: none")
    _option(watching, "validate-samples", int, 256, "most held-out samples that are measured")
    _option(watching, "grid-every", int, 0, "steps between grids of pictures by the averaged weights; 0: none")
    _option(watching, "grid-prompts", str, "", "what to draw: file of pipelines.prompts")
    watching.add_argument(
        "--grid-classes", type=int, nargs="+", default=(), metavar="N", help="stage pixel: the classes to draw"
    )
    _option(watching, "grid-vae", str, "", "directory of the VAE that decodes them")
    watching.add_argument(
        "--profile", type=_span, default=(), metavar="START:STOP", help="trace these steps, the last one excluded"
    )


def _span(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(":"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not START:STOP, such as 20:25") from None

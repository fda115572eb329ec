"""The arguments of the commands that draw pictures."""

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import UserError

if TYPE_CHECKING:
    import torch

SAMPLERS = ("dpm", "ddim", "ancestral", "euler")  # of training.diffusion.samplers, which is slow to import


def add_weights_arguments(command: argparse.ArgumentParser) -> None:
    """--run or --weights, and --ema.

    torchrun takes `--run` for an abbreviation of options of its own, wherever it stands, so there is a second name.
    """
    weights = command.add_mutually_exclusive_group(required=True)
    weights.add_argument(
        "--run", "--from-run", type=Path, metavar="RUN", help="a training run's directory (--from-run under torchrun)"
    )
    weights.add_argument("--weights", type=Path, metavar="FILE", help="a weights file (.safetensors) by itself")
    command.add_argument(
        "--ema", action=argparse.BooleanOptionalAction, default=True, help="of --run: the averaged or the raw weights"
    )


def add_sampling_arguments(command: argparse.ArgumentParser, t5_required: bool = True) -> None:
    """T5, VAE, and how to sample."""
    command.add_argument(
        "--t5", required=t5_required, metavar="DIR", help="T5 model and tokenizer that embedded the captions"
    )
    command.add_argument("--vae", required=True, metavar="DIR", help="VAE that encoded the pictures")
    command.add_argument(
        "--sampler",
        default="dpm",
        choices=SAMPLERS,
        help="dpm for all models; ddim, ancestral for epsilon and v; euler for flow (default %(default)s)",
    )
    command.add_argument(
        "--steps",
        type=positive,
        metavar="N",
        help="steps of the sampler (default 20 of dpm, 50 of ddim and euler, 100 of ancestral)",
    )
    command.add_argument("--guidance", type=finite, default=4.5, help="guidance scale; 1 is none (default %(default)s)")
    command.add_argument("--size", metavar="PX", help="256, or HEIGHTxWIDTH (default: the model's training size)")
    command.add_argument("--seed", type=seed, default=0, help="picture number i gets SEED + i (default %(default)s)")
    command.add_argument("--batch", type=positive, default=8, help="pictures at a time (default %(default)s)")


def add_device_argument(command: "argparse.ArgumentParser | argparse._ArgumentGroup") -> None:
    """--device."""
    command.add_argument("--device", help="cpu, cuda, cuda:1 (default: cuda where there is one; bf16 there)")


def weights_file(options: argparse.Namespace) -> Path:
    """The weights file that --run or --weights means."""
    from training.weights.files import EMA_WEIGHTS, RAW_WEIGHTS

    if options.weights is not None:
        return Path(options.weights)
    if not options.run.is_dir():
        raise UserError(f"{options.run}: no such run directory. Check the path.")
    return Path(options.run) / (EMA_WEIGHTS if options.ema else RAW_WEIGHTS)


def device_of(name: str | None, local_rank: int = 0) -> "torch.device":
    """The device that --device means; of several processes on a machine, each has the GPU of its number."""
    import torch

    if name is None:
        return torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name}: cannot be used ({reason}). Give another, such as cpu.") from None
    return device


def finite(text: str) -> float:
    """A number that is one."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is not a number")
    return value


def positive(text: str) -> int:
    """A whole number from 1 up."""
    value = _whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def seed(text: str) -> int:
    """A seed that torch takes."""
    value = _whole(text)
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"{value} does not lie between 0 and 2**63 - 1")
    return value


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number") from None

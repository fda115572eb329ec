"""`python -m pipelines.ema`: an average of a run's weights of any width, from the snapshots that training kept."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipelines.command import parser, run
from schemas.errors import ExitCode


def main(arguments: Sequence[str]) -> int:
    """Parse, put together, say how near it came."""
    options = _parser().parse_args(arguments)

    from training.weights.post_hoc_ema import reconstruct

    found = reconstruct(Path(options.run), options.std, Path(options.out), options.step)
    used = sum(share != 0 for share in found.shares)
    print(f"{options.out}: width {options.std:g} from {used} snapshots, off by {found.error:.2%} of its profile")
    return int(ExitCode.OK)


def _parser() -> argparse.ArgumentParser:
    command = parser(
        "ema",
        "Weights averaged over training with a relative width chosen afterwards, for a run of --power-ema. The file is "
        "one for pipelines.sample and pipelines.convert.",
    )
    command.add_argument("--run", required=True, metavar="RUN", help="run directory")
    command.add_argument("--std", required=True, type=float, metavar="STD", help="relative width, such as 0.08")
    command.add_argument("--out", required=True, metavar="FILE", help="weights file to write")
    command.add_argument("--step", type=int, metavar="N", help="as of this step, of which there is a snapshot")
    return command


if __name__ == "__main__":
    run(main)

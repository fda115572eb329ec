"""`python -m benchmarks.claims --out DIR`: the paper's claims on the small world. One thread, some 100 minutes.

Can be stopped and started at will: runs that are done are not run again, the others go on. Two processes with the same
--out share the runs between them. Each start ends with the table of what there is so far.
"""

import argparse
import os
from dataclasses import fields
from pathlib import Path

from benchmarks.claims.arms import ARMS, Sizes, arm_named


def main() -> None:
    """Run what is not done, print the table, write the figures."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.claims", description=__doc__)
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="data, runs and results, to go on with")
    command.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="default 0 1 2")
    names = [arm.name for arm in ARMS]
    command.add_argument("--arms", nargs="+", default=names, choices=names, metavar="ARM", help="default: all")
    command.add_argument("--table-only", action="store_true", help="run nothing; tell of what is done")
    command.add_argument("--figures", type=Path, metavar="DIR", help="also draw figures and grids there")
    for field in fields(Sizes):
        flag = "--" + field.name.replace("_", "-")
        command.add_argument(flag, type=type(field.default), default=field.default, help=f"default {field.default}")
    options = command.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    import torch

    from benchmarks.claims.alignment import align
    from benchmarks.claims.campaign import run_campaign
    from benchmarks.claims.table import tables

    torch.set_num_threads(1)
    sizes = Sizes(**{field.name: getattr(options, field.name) for field in fields(Sizes)})
    if not options.table_only:
        run_campaign(options.out, [arm_named(name) for name in options.arms], options.seeds, sizes)
    align(options.out)
    print(tables(options.out))
    if options.figures:
        from benchmarks.claims.figures import draw_figures

        draw_figures(options.out, options.figures)


if __name__ == "__main__":
    main()

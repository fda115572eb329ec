"""One step of a training run again, sample by sample: which of them made the gradient non-finite?

    python -m pipelines.train replay --out RUN --step 12345

Counts steps as the log does. Writes RUN/replay/step-00012345.json and changes nothing else.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipelines.command import not_negative, parser, run
from pipelines.sampling_arguments import positive
from schemas.errors import ExitCode, StorageError, UserError
from schemas.record import from_json

_SHOWN = 12


def main(arguments: Sequence[str]) -> int:
    """Replay the step and tell what was found."""
    command = parser("train replay", (__doc__ or "").partition("\n\n")[0])
    command.add_argument("--out", required=True, type=Path, metavar="RUN", help="the run directory")
    command.add_argument("--step", required=True, type=int, metavar="INT", help="number of the step, as the log has it")
    command.add_argument(
        "--as-saved",
        action="store_true",
        help="use the newest checkpoint's weights as they are, in place of doing the steps between again",
    )
    command.add_argument("--each", action="store_true", help="measure the gradient of every sample alone")
    command.add_argument(
        "--micro-batch", type=positive, metavar="INT", help="samples at a time (default: as in the run)"
    )
    command.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="default auto")
    command.add_argument(
        "--shown",
        type=not_negative,
        default=_SHOWN,
        metavar="INT",
        help="samples that are printed (default %(default)s)",
    )
    options = command.parse_args(arguments)
    from training.run_directory import holds_run

    if not holds_run(options.out):
        raise UserError(f"{options.out}: no training run there (no config.json of one). Check the path.")

    from training.config import RunConfig
    from training.data.manifest import open_mixture
    from training.determinism import deterministic
    from training.distributed.world import join_world
    from training.watching.replay import as_json, lines, replay

    config = from_json(RunConfig, (options.out / "config.json").read_text(), str(options.out / "config.json"))
    config = replace(config, out=str(options.out), device=options.device, shard=False, compile=False)
    config = replace(config, micro_batch=options.micro_batch or config.micro_batch)
    with deterministic(config):
        world = join_world(options.device)
        if world.size > 1:
            raise UserError("a replay runs in one process. Start it without torchrun.")
        if world.device.type != "cuda":
            config = replace(config, attention="sdpa")  # the others are for CUDA; results differ by rounding
        cache = Path(config.manifest_cache) if config.manifest_cache else None
        manifest = open_mixture(config.sources, config.max_unmatched, cache)
        found = replay(
            config,
            manifest,
            world,
            options.step,
            lambda line: print(line, file=sys.stderr, flush=True),
            redo=not options.as_saved,
            each=options.each,
        )
    print("\n".join(lines(found, options.shown)))
    path = options.out / "replay" / f"step-{options.step:08d}.json"
    try:
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(as_json(found), indent=2) + "\n")
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror}). Free space or check it.") from None
    print(f"all samples in {path}")
    return ExitCode.OK


if __name__ == "__main__":
    run(main)

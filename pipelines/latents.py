"""`python -m pipelines.latents`: VAE posteriors of the pictures in image shards."""

import argparse
from collections.abc import Sequence

from pipelines.command import add_job_arguments, finish, job_options, parser, run
from pipelines.image_arguments import add_image_arguments, image_inputs
from schemas.errors import ExitCode

_UNIT_ROWS = 0


def main(arguments: Sequence[str]) -> int:
    """Parse, check what can be checked cheaply, run the job."""
    options = _parser().parse_args(arguments)

    from curation.checkpoints import resolve_checkpoint
    from curation.compute import Compute
    from curation.execution.job import Job
    from curation.features.latents import LatentsStage
    from curation.features.vae import describe_vae

    inputs = image_inputs(options, _UNIT_ROWS)
    compute = Compute(options.device, options.dtype, options.cpu_threads)
    if not job_options(options).use_ray:
        compute.require_device()
    stage = LatentsStage(
        target=inputs.target,
        source=inputs.source,
        vae=describe_vae(resolve_checkpoint(options.vae, options.revision)),
        resolution=options.size,
        buckets=options.buckets,
        policy=inputs.policy,
        batch_size=options.batch_size,
        compute=compute,
        decode_threads=options.decode_threads,
        flip=options.flip,
    )
    if options.estimate:
        from curation.features.estimate import estimate_latents

        print("\n".join(estimate_latents(stage, inputs.shards, inputs.selection).lines))
        return int(ExitCode.OK)
    job = Job(
        stage, inputs.target, inputs.source.name, inputs.names, inputs.plans(), inputs.unit_rows, inputs.selection
    )
    return int(finish(options, job).exit_code)


def _parser() -> argparse.ArgumentParser:
    command = parser("latents", "Encode the pictures in image shards with a VAE: one posterior a readable picture.")
    add_image_arguments(command, "latents")
    model = command.add_argument_group("what is made (all of this changes the latents)")
    model.add_argument(
        "--vae", required=True, metavar="ID_OR_DIR", help="an AutoencoderKL, -DC or -Tiny: hub id or directory"
    )
    model.add_argument("--revision", metavar="REV", help="branch, tag or commit of a hub id")
    model.add_argument("--size", type=int, default=256, metavar="PX", help="resolution in pixels (default 256)")
    model.add_argument(
        "--buckets",
        choices=("square", "aspect"),
        default="square",
        help="square: SIZE x SIZE; aspect: the nearest of the 40 aspect buckets at SIZE (default square)",
    )
    model.add_argument(
        "--flip", action="store_true", help="encode the mirrored pictures (left to right), as a dataset of their own"
    )
    model.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="compute type (default float32)"
    )
    model.add_argument("--batch-size", type=int, default=8, metavar="N", help="pictures a batch (default 8)")
    model.add_argument(
        "--cpu-threads", type=int, default=1, metavar="N", help="threads of the model on a CPU (default 1)"
    )
    device = command.add_argument_group("where the model runs")
    device.add_argument("--device", default="cpu", metavar="DEVICE", help="cpu or cuda (default cpu)")
    device.add_argument(
        "--decode-threads", type=int, default=2, metavar="N", help="threads that decode ahead (default 2)"
    )
    add_job_arguments(
        command,
        unit_rows=_UNIT_ROWS,
        workers_hint="worker processes, each with its own model",
        estimate="say how many bytes it will write",
    )
    return command


if __name__ == "__main__":
    run(main)

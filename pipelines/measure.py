"""`python -m pipelines.measure`: measures of the pictures in image shards, for choosing among them."""

import argparse
from collections.abc import Sequence

from pipelines.command import add_job_arguments, finish, parser, run
from pipelines.image_arguments import add_image_arguments, image_inputs

_UNIT_ROWS = 0


def main(arguments: Sequence[str]) -> int:
    """Parse, check what can be checked cheaply, run the job."""
    options = _parser().parse_args(arguments)

    from curation.execution.job import Job
    from curation.measures.stage import MeasureStage

    inputs = image_inputs(options, _UNIT_ROWS)
    stage = MeasureStage(inputs.target, inputs.source, inputs.policy, options.decode_threads)
    job = Job(
        stage, inputs.target, inputs.source.name, inputs.names, inputs.plans(), inputs.unit_rows, inputs.selection
    )
    return int(finish(options, job).exit_code)


def _parser() -> argparse.ArgumentParser:
    command = parser(
        "measure",
        "Measure the pictures in image shards: size, perceptual hash, brightness, contrast, sharpness, and the numbers "
        "that the source has of them (aesthetic, similarity, ..).",
    )
    add_image_arguments(command, "measures")
    command.add_argument(
        "--decode-threads", type=int, default=2, metavar="N", help="threads that decode and measure (default 2)"
    )
    add_job_arguments(command, unit_rows=_UNIT_ROWS)
    return command


if __name__ == "__main__":
    run(main)

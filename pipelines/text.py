"""`python -m pipelines.text`: T5 embeddings of a captions dataset."""

import argparse
from collections.abc import Sequence
from dataclasses import replace

from pipelines.command import add_job_arguments, finish, job_options, parser, run
from pipelines.image_arguments import add_select_argument, selection_of
from schemas.errors import ExitCode


def main(arguments: Sequence[str]) -> int:
    """Parse, check what can be checked cheaply, run the job."""
    options = _parser().parse_args(arguments)

    from curation.checkpoints import resolve_checkpoint
    from curation.compute import Compute, default_dtype
    from curation.execution.job import Job, check_target
    from curation.execution.plan import plan_selected, plan_tables
    from curation.features.null_text import write_null
    from curation.features.t5 import text_width
    from curation.features.text import TextStage
    from curation.shards.target import Target
    from schemas.reading import open_dataset

    captions = open_dataset(options.captions, "captions").require_whole()
    compute = Compute(options.device, default_dtype(options.dtype, options.device), options.cpu_threads)
    if not job_options(options).use_ray:
        compute.require_device()
    checkpoint = resolve_checkpoint(options.t5, options.revision, needs=("config.json", "tokenizer.json|spiece.model"))
    target = Target(options.out)
    stage = TextStage(
        target=target,
        checkpoint=checkpoint,
        dim=text_width(checkpoint),
        column=options.column,
        max_tokens=options.max_tokens,
        batch_tokens=options.batch_tokens,
        compute=compute,
        codec=options.codec,
    )
    selection = selection_of(options)
    if options.estimate:
        from curation.features.estimate import estimate_text

        print("\n".join(estimate_text(stage, captions, selection).lines))
        return int(ExitCode.OK)
    shards = sorted({entry.shard for entry in captions.entries})
    source = f"captions:{captions.info.dataset_id}:{options.column}"
    plans = plan_tables(captions)
    chosen = plans if selection is None else plan_selected(plans, selection, shards)
    job = Job(stage, target, source, shards, chosen, selection=selection)
    info = check_target(job)
    if options.dry_run:
        return int(finish(options, job).exit_code)
    target.require_writable()
    stage = stage.with_null(info)
    summary = finish(options, replace(job, stage=stage))
    if summary.exit_code == ExitCode.OK and stage.null is not None:
        write_null(target, stage.null)  # where no unit was due, no worker has looked after it
    return int(summary.exit_code)


def _parser() -> argparse.ArgumentParser:
    command = parser("text", "Embed the captions of a captions dataset with a T5 encoder: true tokens only.")
    group = command.add_argument_group("what is read and written")
    group.add_argument("--captions", required=True, metavar="DIR", help="a finished captions dataset")
    group.add_argument("--out", required=True, metavar="DIR", help="the text dataset, new or to go on with")
    add_select_argument(group)
    model = command.add_argument_group("what is made (all of this changes the embeddings)")
    model.add_argument("--t5", required=True, metavar="ID_OR_DIR", help="a T5 with its tokenizer: hub id or directory")
    model.add_argument("--revision", metavar="REV", help="branch, tag or commit of a hub id")
    model.add_argument(
        "--column",
        choices=("caption", "raw_caption", "generated"),
        default="caption",
        help="caption: cleaned, usable ones only (default); raw_caption: the source's; generated: the engine's, as is",
    )
    model.add_argument(
        "--max-tokens", type=int, default=120, metavar="N", help="longer captions are cut and counted (default 120)"
    )
    model.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="compute type; auto (default): float32 on a CPU, bfloat16 on CUDA",
    )
    model.add_argument(
        "--batch-tokens", type=int, default=4096, metavar="N", help="padded tokens a batch (default 4096)"
    )
    model.add_argument(
        "--cpu-threads", type=int, default=1, metavar="N", help="threads of the model on a CPU (default 1)"
    )
    model.add_argument(
        "--codec",
        choices=("fp16", "int8"),
        default="fp16",
        help="int8: half the bytes, a scale for every 64 channels; its error goes into the ledger (default fp16)",
    )
    device = command.add_argument_group("where the model runs")
    device.add_argument("--device", default="cpu", metavar="DEVICE", help="cpu or cuda (default cpu)")
    add_job_arguments(
        command, workers_hint="worker processes, each with its own model", estimate="say how many bytes it will write"
    )
    return command


if __name__ == "__main__":
    run(main)

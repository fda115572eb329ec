"""`python -m pipelines.clean`: judge the captions of a dataset by the caption rules; no model runs."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pipelines.command import EXIT_CODES, add_job_arguments, console, finish, job_options, parser, run
from schemas.errors import DatasetError, ExitCode, UserError

if TYPE_CHECKING:
    from curation.captions.quality_thresholds import Thresholds
    from curation.execution.job import Job
    from schemas.reading import Dataset


def main(arguments: Sequence[str]) -> int:
    """Parse, check what can be checked cheaply, count equal texts, judge what is due, print what it changed."""
    options = _parser().parse_args(arguments)

    from curation.captions.clean_duplicates import plan_captions
    from curation.captions.clean_stage import CleanStage
    from curation.captions.clean_summary import status_table
    from curation.captions.quality_thresholds import thresholds_with
    from curation.checkpoints import resolve_checkpoint
    from curation.execution.job import Job, check_target
    from curation.shards.target import Target
    from schemas.reading import open_dataset

    thresholds = thresholds_with(options.set)
    captions = open_dataset(options.captions, "captions").require_whole()
    target, t5 = Target(options.out), options.t5_tokenizer
    if target.root == captions.root:
        raise DatasetError(f"--out {options.out}: is the dataset that is read. Name another.")
    stage = CleanStage(
        target=target,
        thresholds=thresholds,
        prompt=str(captions.info.config.get("prompt") or ""),
        t5_tokenizer=resolve_checkpoint(t5, None, needs=("tokenizer.json|spiece.model",)) if t5 else None,
        source=captions.info.config,
    )
    shards = list(dict.fromkeys(entry.shard for entry in captions.entries))
    source = f"captions:{captions.info.dataset_id}"
    job = Job(stage, target, source, shards, plan_captions(captions), captions.info.unit_rows)
    check_target(job)
    if thresholds.duplicate_rows:
        job = _with_equal_texts(options, job, captions, thresholds)
    summary = finish(options, job)
    if not options.dry_run and not summary.stopped_by:
        print("\n".join(status_table(open_dataset(options.out, "captions"))))
    return int(summary.exit_code)


def _with_equal_texts(options: argparse.Namespace, job: "Job", captions: "Dataset", thresholds: "Thresholds") -> "Job":
    """Run the first pass, which hashes every text, and plan the second by what is repeated.

    Raises `UserError`, with the exit code of the first pass, if that did not end well.
    """
    from curation.captions.clean_duplicates import (
        HashStage,
        hashes_target,
        open_hashes,
        plan_captions,
        plan_with_repeated,
        repeated_hashes,
        store_repeated,
    )
    from curation.execution.job import dry_run, run_job

    first = replace(job, stage=HashStage(), target=hashes_target(options.out), plans=plan_captions(captions))
    if options.dry_run:
        dry_run(first, console())
    else:
        summary = run_job(first, job_options(options), console())
        if summary.exit_code != ExitCode.OK:
            failure = UserError(
                summary.stopped_by or "not all texts could be hashed, see above. Run the command again."
            )
            failure.exit_code = summary.exit_code
            raise failure
    hashes = open_hashes(options.out, captions)
    repeated = repeated_hashes(hashes, thresholds.duplicate_rows)
    if not options.dry_run:
        store_repeated(job.target, repeated)
    return replace(job, plans=plan_with_repeated(captions, hashes, repeated))


def _parser() -> argparse.ArgumentParser:
    from curation.captions.quality_thresholds import describe_thresholds

    command = parser(
        "clean",
        "Judge captions by the caption rules: cleaned text, status and flags beside the unchanged generated text.",
    )
    command.epilog = "\n  ".join(
        ["thresholds and their defaults, for --set:", *describe_thresholds(), "\n" + EXIT_CODES]
    )
    group = command.add_argument_group("what is read and written")
    group.add_argument("--captions", required=True, metavar="DIR", help="the captions dataset to judge; stays as it is")
    group.add_argument("--out", required=True, metavar="DIR", help="the cleaned captions dataset, new or to go on with")
    rules = command.add_argument_group("the rules (all of this changes the result); docs/caption-rules.md")
    rules.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="thresholds to change, such as min_words=8; see below",
    )
    rules.add_argument("--t5-tokenizer", metavar="ID_OR_DIR", help="count each caption's T5 tokens with this tokenizer")
    add_job_arguments(command)
    return command


if __name__ == "__main__":
    run(main)

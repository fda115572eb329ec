"""`python -m pipelines.published`: captions that somebody published, joined to image shards without running a model."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.command import add_job_arguments, console, finish, parser, run
from pipelines.image_arguments import add_image_arguments, image_inputs

if TYPE_CHECKING:
    from curation.execution.summary import JobSummary

_WHOLE_SHARDS = 0


def main(arguments: Sequence[str]) -> int:
    """Parse, index the captions, join, and list the captions without a picture."""
    options = _parser().parse_args(arguments)

    from curation.captions.published import PublishedStage, list_unmatched, with_captions
    from curation.checkpoints import resolve_checkpoint
    from curation.execution.job import Job, check_target
    from curation.ingest.keyed_rows import KeyedBy
    from curation.ingest.keyed_source import ensure_texts, index_place, texts_identity
    from curation.shards.urls import expand_shards
    from schemas.dataset import UNMATCHED_FILE
    from schemas.errors import ExitCode

    inputs = image_inputs(options, _WHOLE_SHARDS)
    captions = expand_shards(options.captions)
    keyed = KeyedBy(options.key_column, options.caption_column, options.shard_column, options.match == "name")
    identity = texts_identity("captions", captions, keyed)
    place = index_place(inputs.target, "captions", options.index)
    index, t5 = place[0].path(place[1]), options.t5_tokenizer
    stage = PublishedStage(
        target=inputs.target,
        source=inputs.source,
        index=index,
        keyed=keyed,
        policy=inputs.policy,
        model=options.model,
        prompt=options.prompt,
        t5_tokenizer=resolve_checkpoint(t5, None, needs=("tokenizer.json|spiece.model",)) if t5 else None,
    )
    plans = with_captions(inputs.plans(), identity)
    job = Job(stage, inputs.target, inputs.source.name, inputs.names, plans, _WHOLE_SHARDS)
    check_target(job)
    if options.dry_run:
        return int(finish(options, job).exit_code)
    facts = ensure_texts(place, captions, keyed, identity)
    console().print(f"{facts.keys:,} captions in {facts.rows:,} rows, {facts.empty:,} of them empty")

    def count_unmatched(summary: "JobSummary") -> None:
        if summary.exit_code != ExitCode.OK:
            return
        count = list_unmatched(inputs.target, index, keyed)
        summary.counts["captions without a picture"] = count
        where = f", listed in {inputs.target.path(UNMATCHED_FILE)}" if count else ""
        console().print(f"captions without a picture: {count:,}{where}")
        if count == facts.keys:
            console().print("none of them fits a picture: try --match name, another --key-column, other --shards")

    return int(finish(options, job, after=count_unmatched).exit_code)


def _parser() -> argparse.ArgumentParser:
    command = parser("published", "Published captions as a captions dataset: joined by key, judged by the same rules.")
    add_image_arguments(command, "captions")
    texts = command.add_argument_group("the captions")
    texts.add_argument(
        "--captions",
        nargs="+",
        required=True,
        metavar="PATTERN",
        help="KEY.txt in a folder, .tar, .tar.gz or .zip; or rows in .jsonl, .jsonl.gz or .parquet",
    )
    texts.add_argument("--key-column", default="key", metavar="NAME", help="column of the sample's key (default key)")
    texts.add_argument(
        "--caption-column",
        default="caption",
        metavar="NAME",
        help="column of the text, as Task2.Caption (default caption)",
    )
    texts.add_argument("--shard-column", metavar="NAME", help="column of the shard's name, if keys repeat over shards")
    texts.add_argument(
        "--match",
        choices=("key", "name"),
        default="key",
        help="compare whole keys (default), or only what follows the last slash",
    )
    texts.add_argument("--model", required=True, metavar="TEXT", help="what made them, such as LLaVA-Lightning-MPT-7B")
    texts.add_argument("--prompt", default="", metavar="TEXT", help="the prompt, if it is known: finds leaks of it")
    texts.add_argument("--t5-tokenizer", metavar="ID_OR_DIR", help="count each caption's T5 tokens with this tokenizer")
    texts.add_argument("--index", metavar="FILE", help="where the index of the captions lies (default in --out)")
    add_job_arguments(command, workers_hint="worker processes")
    command.set_defaults(unit_rows=None)
    return command


if __name__ == "__main__":
    run(main)

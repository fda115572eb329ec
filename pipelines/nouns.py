"""`python -m pipelines.nouns`: the noun statistics of captions (the paper's Table 1), counted by mergeable units."""

import argparse
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pipelines.command import add_job_arguments, finish, parser, run
from schemas.errors import UserError

if TYPE_CHECKING:
    from curation.execution.plan import ShardPlan

_DATASET_COLUMNS = ("raw_caption", "caption")
_TEXT_COLUMN = "caption"
_FILES = "files"


def main(arguments: Sequence[str]) -> int:
    """Parse, check what can be checked cheaply, count what is due, and print the table of all that is counted."""
    options = _parser().parse_args(arguments)

    from curation.execution.job import Job
    from curation.nouns.counting import CountingRules
    from curation.nouns.findings import check_reference
    from curation.nouns.stage import NounStage
    from curation.nouns.tagger import Normalisation, load_tagger
    from curation.shards.target import Target

    if any(captions < 1 for captions in options.at):
        raise UserError("--at: numbers of captions must be at least 1.")
    source, names, plans, columns = _inputs(options)
    unknown = sorted(set(options.compare or ()) - set(columns))
    if unknown:
        raise UserError(f"--compare: {', '.join(unknown)} is not counted; counted are {', '.join(columns)}.")
    if options.reference is not None:
        check_reference(options.reference)
    tagger = load_tagger(options.tagger, Normalisation.LEMMA if options.lemmas else Normalisation.LOWER)
    per_image = source != _FILES and not options.no_per_image
    stage = NounStage(columns, options.tagger, CountingRules(tagger.info, tagger.normalisation), per_image)
    summary = finish(options, Job(stage, Target(options.out), source, names, plans))
    if not options.dry_run and not summary.stopped_by:
        _conclude(options)
    return int(summary.exit_code)


def _parser() -> argparse.ArgumentParser:
    command = parser("nouns", "Count the nouns of captions: distinct, valid (more than 10 times), total, per caption.")
    group = command.add_argument_group("what is read and written")
    group.add_argument(
        "--captions",
        nargs="+",
        required=True,
        metavar="INPUT",
        help="a captions dataset, or files: .parquet, .jsonl, .txt (a caption a line), the last two perhaps .gz; "
        "paths, globs, {000..127}, fsspec URLs",
    )
    group.add_argument(
        "--columns",
        nargs="+",
        metavar="NAME",
        help="caption columns to count (default: raw_caption and caption of a dataset; needed for .parquet and .jsonl)",
    )
    group.add_argument("--out", required=True, metavar="DIR", help="the nouns dataset, new or to go on with")
    group.add_argument(
        "--no-per-image",
        action="store_true",
        help="leave out per_image/: the nouns of each image of a captions dataset, for pipelines.select",
    )
    what = command.add_argument_group("what is counted")
    what.add_argument(
        "--tagger", metavar="NAME_OR_DIR", help="a spaCy pipeline (default: the one that comes with latentmill)"
    )
    what.add_argument("--lemmas", action="store_true", help="count lemmas; the tagger must have a lemmatizer")
    shown = command.add_argument_group("what is shown")
    shown.add_argument(
        "--at",
        nargs="+",
        type=int,
        default=[],
        metavar="N",
        help="also estimate at so many captions, for comparing corpora of other sizes",
    )
    shown.add_argument(
        "--reference",
        metavar="FILE_OR_DIR",
        help="how much of this list is covered: a text file, a noun a line, or a nouns dataset",
    )
    shown.add_argument(
        "--compare",
        nargs=2,
        metavar=("BEFORE", "AFTER"),
        help="nouns gained and lost between two columns (default: raw_caption and caption if both are counted)",
    )
    shown.add_argument("--json", action="store_true", help="print what is also in summary.json, instead of tables")
    add_job_arguments(command, workers_hint="worker processes, each with its own tagger")
    return command


def _inputs(options: argparse.Namespace) -> "tuple[str, list[str], Iterable[ShardPlan], tuple[str, ...]]":
    """The source's name, the names of its shards, their units, and the columns to count."""
    from curation.execution.plan import plan_tables
    from curation.nouns.inputs import FileKind, check_columns, file_kind, plan_caption_files
    from curation.shards.urls import expand_shards, shard_name
    from schemas.reading import open_dataset, read_info
    from schemas.tables import CAPTIONS

    inputs = options.captions
    if len(inputs) == 1 and read_info(inputs[0]) is not None:
        dataset = open_dataset(inputs[0], CAPTIONS.kind).require_whole()
        columns = tuple(options.columns or _DATASET_COLUMNS)
        check_columns(f"{dataset.url.rstrip('/')}/{dataset.entries[0].unit}.parquet", columns)
        shards = list(dict.fromkeys(entry.shard for entry in dataset.entries))
        return f"{CAPTIONS.kind}:{dataset.info.dataset_id}", shards, plan_tables(dataset), columns
    files = expand_shards(inputs)
    kinds = {file_kind(url) for url in files}
    if options.columns is None and kinds != {FileKind.TEXT}:
        raise UserError(f"--columns: say which columns of {files[0]} hold captions.")
    columns = tuple(options.columns or (_TEXT_COLUMN,))
    if FileKind.TEXT in kinds and len(columns) > 1:
        raise UserError(f"--columns: a text file is one column, so name one, not {len(columns)}.")
    for url in files:
        check_columns(url, columns)
    return _FILES, [shard_name(url) for url in files], plan_caption_files(files), columns


def _conclude(options: argparse.Namespace) -> None:
    """Merge all whole units, write `merged.parquet` and `summary.json`, and print what was found on stdout."""
    from curation.nouns.findings import Questions, find
    from curation.nouns.merged import write_merged
    from curation.shards.target import Target
    from schemas.dataset import NOUN_SUMMARY_FILE
    from schemas.reading import open_dataset

    dataset = open_dataset(options.out, "nouns")
    write_merged(dataset)
    compared = None if options.compare is None else (options.compare[0], options.compare[1])
    found = find(dataset, Questions(tuple(options.at), options.reference, compared))
    text = json.dumps(found.as_json(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    Target(options.out).write_text(NOUN_SUMMARY_FILE, text)
    print(text if options.json else found.as_text(), end="")


if __name__ == "__main__":
    run(main)

"""`python -m pipelines.ingest`: pictures from elsewhere into image shards that every other command reads."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.command import add_job_arguments, finish, parser, run
from pipelines.image_arguments import add_policy_arguments
from schemas.errors import DatasetError, UserError

if TYPE_CHECKING:
    from curation.execution.stage import StageSpec
    from curation.images.decode import DecodePolicy

_UNIT_ROWS = 10_000
_PYTHON_VARIABLE = "LATENTMILL_IMG2DATASET_PYTHON"


def main(arguments: Sequence[str]) -> int:
    """Parse, and do the one of the three things that was asked for."""
    options = _parser().parse_args(arguments)
    if options.make_environment:
        from curation.ingest.downloader import make_environment

        python = make_environment(options.make_environment)
        print(f"made; use it with --img2dataset {python}, or export {_PYTHON_VARIABLE}={python}")
        return 0
    if not options.out:
        raise UserError("--out DIR is missing: where should the image shards go?")
    return _journeydb(options) if options.journeydb else _laion(options)


def _laion(options: argparse.Namespace) -> int:
    """Download what metadata files name."""
    import dataclasses

    from curation.execution.job import Job, check_target, unit_rows_of
    from curation.ingest.alone import alone, work_folder, work_place
    from curation.ingest.columns import parse_choice
    from curation.ingest.downloader import Downloader
    from curation.ingest.due import plan_downloads
    from curation.ingest.metadata_plan import PlanSettings
    from curation.ingest.prefilter import Prefilter
    from curation.ingest.stage import SOURCE, IngestStage
    from curation.shards.target import Target
    from curation.shards.urls import expand_shards, shard_name
    from schemas.reading import read_ledger

    urls = expand_shards(options.metadata)
    unit_rows = unit_rows_of(options.out, options.unit_rows, _UNIT_ROWS)
    if unit_rows < 1:
        raise UserError("--unit-rows must be at least 1: a unit is one tar.")
    names = [field.name for field in dataclasses.fields(Prefilter)]
    settings = PlanSettings(
        prefilter=Prefilter(**{name: getattr(options, name) for name in names}),
        chosen=dict(parse_choice(choice) for choice in options.column),
        unit_rows=unit_rows,
    )
    downloader = Downloader(
        python=_img2dataset_python(options.img2dataset),
        threads=options.threads,
        timeout=options.timeout,
        retries=options.tries - 1,
        stall=options.stall,
    )
    target = Target(options.out)
    work = work_place(target, options.work)
    stage = IngestStage(target, settings, _policy(options), downloader, options.retry, str(work))
    ledger = {entry.unit: entry for entry in read_ledger(options.out).entries}
    if ledger:  # else nothing was downloaded yet that other settings would throw away
        _require_same_settings(options.out, stage.spec)
    if not options.dry_run:
        downloader.check()
    plans = plan_downloads(target, urls, settings, ledger, options.retry, store=not options.dry_run)
    job = Job(stage, target, SOURCE, [shard_name(url) for url in urls], plans, unit_rows)
    if options.dry_run:
        return int(finish(options, job).exit_code)
    check_target(job)
    with alone(target), work_folder(work):
        return int(finish(options, job).exit_code)


def _journeydb(options: argparse.Namespace) -> int:
    """Unpack JourneyDB's archives and put each annotation beside its picture."""
    from curation.execution.job import Job, check_target, unit_rows_of
    from curation.execution.plan import plan_images
    from curation.ingest.journeydb import KEYED, JourneyDBStage, with_annotations
    from curation.ingest.keyed_source import ensure_texts, index_place, texts_identity
    from curation.shards.container import check_container
    from curation.shards.target import Target
    from curation.shards.urls import expand_shards, shard_name
    from curation.sources.journeydb import JourneyDBSource

    if not options.annotations:
        raise UserError("--annotations FILE is missing: JourneyDB's jsonl with the prompts.")
    urls = expand_shards(options.journeydb)
    for url in urls:
        check_container(url, "tgz")
    annotations = expand_shards([options.annotations])
    target = Target(options.out)
    identity = texts_identity("annotations", annotations, KEYED)
    place = index_place(target, "annotations", options.index)
    stage = JourneyDBStage(target, _policy(options), place[0].path(place[1]))
    unit_rows = unit_rows_of(options.out, 0, 0)  # a unit is a whole archive: it is read from its start
    plans = with_annotations(plan_images(target, urls, "tgz", unit_rows, scan=not options.dry_run), identity)
    job = Job(stage, target, JourneyDBSource().name, [shard_name(url) for url in urls], plans, unit_rows)
    check_target(job)
    if not options.dry_run:
        ensure_texts(place, annotations, KEYED, identity)
    return int(finish(options, job).exit_code)


def _policy(options: argparse.Namespace) -> "DecodePolicy":
    import dataclasses

    from curation.images.decode import DecodePolicy

    limits = {name: getattr(options, name) for name in ("min_side", "max_pixels", "max_aspect")}
    return dataclasses.replace(DecodePolicy(), **{name: v for name, v in limits.items() if v is not None})


def _require_same_settings(out: str, spec: "StageSpec") -> None:
    """Raise `DatasetError` if the dataset at `out` was made under other settings.

    Elsewhere that would make every unit due. Here it would throw away downloads that may not be there to be had again.
    """
    from curation.shards.fingerprint import differing_keys
    from schemas.reading import read_info

    info = read_info(out)
    if info is not None and info.stage == spec.name and info.fingerprint != spec.fingerprint:
        differing = ", ".join(differing_keys(info.config, spec.config)) or "this version of the stage"
        raise DatasetError(
            f"{out}: was ingested under other settings ({differing}). Use the same ones, or name another --out; to be "
            f"stricter afterwards, use pipelines.select."
        )


def _img2dataset_python(given: str | None) -> str:
    """The interpreter that img2dataset is run by: as given, as the environment variable says, or this one."""
    return given or os.environ.get(_PYTHON_VARIABLE) or sys.executable


def _parser() -> argparse.ArgumentParser:
    from curation.ingest.stage import RETRIES

    command = parser("ingest", "Pictures from elsewhere into image shards: LAION-style metadata, or JourneyDB's tgz.")
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--metadata", nargs="+", metavar="PATTERN", help="LAION-style Parquet files: download what they name"
    )
    what.add_argument("--journeydb", nargs="+", metavar="PATTERN", help="JourneyDB's imgs/NNN.tgz: unpack and annotate")
    what.add_argument("--make-environment", metavar="DIR", help="make an environment with img2dataset in DIR, and end")
    command.add_argument("--out", metavar="DIR", help="the images dataset, new or to go on with")
    command.add_argument("--annotations", metavar="FILE", help="JourneyDB's jsonl, or the .jsonl.tgz as released")
    command.add_argument("--index", metavar="FILE", help="where the index of the annotations lies (default in --out)")
    rows = command.add_argument_group(
        "which rows of the metadata (an unknown score does not pass, an unknown size does)"
    )
    for name, kind, text in (
        ("min-width", int, "px"),
        ("min-height", int, "px"),
        ("min-area", int, "px, width × height"),
        ("min-similarity", float, "CLIP's, of picture and caption"),
        ("max-punsafe", float, "probability of unsafe content"),
        ("max-pwatermark", float, "probability of a watermark"),
        ("min-aesthetic", float, "aesthetic score"),
    ):
        rows.add_argument(f"--{name}", type=kind, metavar="N", help=text)
    rows.add_argument(
        "--column", action="append", default=[], metavar="FIELD=COLUMN", help="which column a field is; empty for none"
    )
    pictures = command.add_argument_group("which pictures")
    add_policy_arguments(pictures)
    how = command.add_argument_group("how it downloads (none of this changes what a picture is)")
    how.add_argument(
        "--img2dataset",
        metavar="PYTHON",
        help=f"interpreter that has img2dataset (default ${_PYTHON_VARIABLE}, or this)",
    )
    how.add_argument("--threads", type=int, default=64, metavar="N", help="downloads at once, a worker (default 64)")
    how.add_argument(
        "--timeout", type=int, default=10, metavar="S", help="longest wait for a server, in seconds (default 10)"
    )
    how.add_argument("--tries", type=int, default=2, metavar="N", help="tries of each URL in one run (default 2)")
    how.add_argument(
        "--stall",
        type=float,
        default=180,
        metavar="S",
        help="give up what is left of a unit after S idle seconds (default 180)",
    )
    how.add_argument(
        "--retry",
        choices=RETRIES,
        default="all",
        help="failed rows of finished units that a re-run tries again (default all; transient leaves out 404 and such)",
    )
    how.add_argument("--work", metavar="DIR", help="where downloads under way lie (default in --out)")
    add_job_arguments(command, unit_rows=_UNIT_ROWS, workers_hint="worker processes, each with its own img2dataset")
    return command


if __name__ == "__main__":
    run(main)

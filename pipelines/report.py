"""What the data is, on one page.

    python -m pipelines.report --captions captions/ --nouns nouns/ --latents latents/ --text text/ --run run/ \\
        --shards 'shards/{000..127}.tar' --source sam --out report.html

Writes one HTML file that needs nothing else, and report.json beside it with the same numbers. Any of the inputs may be
left out; the report says which. Reads datasets only; changes nothing in them.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.command import parser, run
from schemas.errors import ExitCode, UserError

if TYPE_CHECKING:
    from curation.report.collect import Report


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit code. Raises `UserError` for what a person can mend."""
    options = _parser().parse_args(arguments)
    out = Path(options.out)
    if out.suffix.lower() not in {".html", ".htm"}:
        raise UserError(f"--out {out}: not an HTML file's name. Write it as NAME.html; NAME.json comes beside it.")
    if out.is_dir():
        raise UserError(f"--out {out}: a directory. Name a file in it, such as {out / 'report.html'}.")

    from curation.report.collect import Inputs, collect
    from curation.report.page import render_html, render_json
    from curation.shards.target import Target
    from curation.shards.urls import expand_shards

    inputs = Inputs(
        captions=options.captions,
        nouns=options.nouns,
        latents=options.latents,
        text=options.text,
        run=options.run,
        shards=expand_shards(options.shards) if options.shards else (),
        source=options.source,
    )
    report = collect(inputs)
    page, record = render_html(report), render_json(report)
    target = Target(str(out.parent))
    if _reads(out, page) and _reads(out.with_suffix(".json"), record):
        print(f"nothing to do: {out} says just this already")
    else:
        target.write_text(out.name, page)
        target.write_text(out.with_suffix(".json").name, record)
        print(f"{out}: {len(page.encode()) / 1e6:.2f} MB, and {out.with_suffix('.json').name} beside it")
    for line in _summary(report):
        print(line)
    return ExitCode.OK


def _reads(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()


def _parser() -> argparse.ArgumentParser:
    command = parser("report", "What the data is, on one page: funnel, captions, nouns, pictures, features, time.")
    command.add_argument("--captions", metavar="DIR", help="a captions dataset")
    command.add_argument("--nouns", metavar="DIR", help="a nouns dataset")
    command.add_argument("--latents", metavar="DIR", help="a latents dataset")
    command.add_argument("--text", metavar="DIR", help="a text dataset")
    command.add_argument("--run", metavar="RUN", help="a training run's directory")
    command.add_argument(
        "--shards", nargs="+", default=[], metavar="PATTERN", help="the image shards, for twenty pictures with captions"
    )
    command.add_argument("--source", metavar="NAME", help="the source of --shards, as it was captioned with")
    command.add_argument("--out", required=True, metavar="FILE", help="the page; its numbers go to the same name .json")
    return command


def _summary(report: "Report") -> list[str]:
    lines = [f"note: {note}" for note in report.notes]
    for balance in report.balances:
        lines.append(f"{balance.step}: {balance.rows_in:,} in = {balance.kept:,} kept + {balance.lost:,} lost")
    return lines


if __name__ == "__main__":
    run(main)

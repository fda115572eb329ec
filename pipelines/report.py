"""What the data is, on one page.

    python -m pipelines.report --captions captions/ --nouns nouns/ --latents latents/ --text text/ --run run/ \\
        --shards 'shards/{000..127}.tar' --source sam --out report.html

Writes one HTML file that needs nothing else, and beside it report.json with the same numbers and report.md, a dataset
card. Any of the inputs may be left out; the report says which. Reads datasets only; changes nothing in them.

Several datasets side by side, each under a name:

    python -m pipelines.report --captions llava=captions/ --captions clean=cleaned/ --nouns clean=nouns/ ...
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pipelines.command import parser, run
from schemas.errors import ExitCode, UserError

if TYPE_CHECKING:
    from curation.report.collect import Report
    from curation.report.inputs import CorpusInputs

_NAMED: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*)=(.+)", re.DOTALL)
_ALONE: Final = "data"
_DATASETS: Final = {
    "captions": "a captions dataset",
    "nouns": "a nouns dataset",
    "measures": "a measures dataset, for filters that ask for it",
    "latents": "a latents dataset",
    "text": "a text dataset",
    "run": "a training run's directory",
    "select": "a selection, or the JSON of pipelines.select: its funnel and its filters' edges",
    "scenes": "the JSON of pipelines.evaluate scenes: what of each scene was drawn",
}


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit code. Raises `UserError` for what a person can mend."""
    options = _parser().parse_args(arguments)
    out = Path(options.out)
    if out.suffix.lower() not in {".html", ".htm"}:
        raise UserError(
            f"--out {out}: not an HTML file's name. Write it as NAME.html; NAME.json and .md come beside it."
        )
    if out.is_dir():
        raise UserError(f"--out {out}: a directory. Name a file in it, such as {out / 'report.html'}.")
    inputs = _inputs(options)

    from curation.report.card import render_markdown
    from curation.report.collect import collect
    from curation.report.compose import compose
    from curation.report.page import render_html
    from curation.report.record import render_json

    report = collect(inputs)
    document = compose(report)
    record, card = out.with_suffix(".json"), out.with_suffix(".md")
    _write(
        {
            out: render_html(document),
            record: render_json(report),
            card: render_markdown(document, out.name, record.name),
        }
    )
    for line in _summary(report):
        print(line)
    return ExitCode.OK


def _write(files: dict[Path, str]) -> None:
    """Write the files unless they say just this already."""
    from curation.shards.target import Target

    page = next(iter(files))
    if all(path.is_file() and path.read_bytes() == text.encode() for path, text in files.items()):
        print(f"nothing to do: {page} says just this already")
        return
    target = Target(str(page.parent))
    for path, text in files.items():
        target.write_text(path.name, text)
    others = " and ".join(path.name for path in files if path != page)
    print(f"{page}: {len(files[page].encode()) / 1e6:.2f} MB, with {others} beside it")


def _parser() -> argparse.ArgumentParser:
    command = parser("report", "What the data is, on one page: funnel, captions, nouns, pictures, features, time.")
    group = command.add_argument_group(
        "what is read; each may be given several times as NAME=..., for datasets side by side (./a=b for a path with =)"
    )
    for name, what in _DATASETS.items():
        kind = {"run": "RUN", "select": "FILE", "scenes": "FILE"}.get(name, "DIR")
        group.add_argument(f"--{name}", action="append", default=[], metavar=f"[NAME=]{kind}", help=what)
    group.add_argument(
        "--shards",
        nargs="+",
        action="extend",
        default=[],
        metavar="[NAME=]PATTERN",
        help="the image shards, for pictures; without a name those of all datasets",
    )
    group.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="[NAME=]SOURCE",
        help="the layout of --shards, as they were captioned with",
    )
    command.add_argument(
        "--out", required=True, metavar="FILE", help="the page, NAME.html; numbers go to NAME.json, the card to NAME.md"
    )
    return command


def _inputs(options: argparse.Namespace) -> "list[CorpusInputs]":
    """The corpora in the order in which their names first come."""
    from curation.report.inputs import CorpusInputs
    from curation.shards.urls import expand_shards

    given = {kind: _by_name(kind, getattr(options, kind)) for kind in _DATASETS}
    names = list(dict.fromkeys(name for found in given.values() for name in found)) or [""]
    if "" in names and len(names) > 1:
        unnamed = next(kind for kind, found in given.items() if "" in found)
        raise UserError(f"--{unnamed}: some datasets have names and this one has none. Write --{unnamed} NAME=DIR.")
    patterns: dict[str, list[str]] = {}
    for text in options.shards:
        name, pattern = _split(text)
        patterns.setdefault(name, []).append(pattern)
    sources = _by_name("source", options.source)
    unknown = sorted({*patterns, *sources} - {*names, ""})
    if unknown:
        raise UserError(f"--shards and --source: no dataset is called {unknown[0]}; there are {', '.join(names)}.")
    shards = {name: expand_shards(found) for name, found in patterns.items()}
    return [
        CorpusInputs(
            name=name or _ALONE,
            captions=given["captions"].get(name),
            nouns=given["nouns"].get(name),
            measures=given["measures"].get(name),
            latents=given["latents"].get(name),
            text=given["text"].get(name),
            run=given["run"].get(name),
            selection=given["select"].get(name),
            scenes=given["scenes"].get(name),
            shards=shards.get(name, shards.get("", ())),
            source=sources.get(name, sources.get("")),
        )
        for name in names
    ]


def _by_name(kind: str, given: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, value = _split(text)
        if name in found:
            more = f"{name} is given twice" if name else "given twice without a name"
            raise UserError(f"--{kind}: {more}. Give each a name of its own, as in --{kind} first=DIR.")
        found[name] = value
    return found


def _split(text: str) -> tuple[str, str]:
    named = _NAMED.fullmatch(text)
    return (named[1], named[2]) if named else ("", text)


def _summary(report: "Report") -> list[str]:
    lines = []
    for corpus in report.corpora:
        name = f"{corpus.name}: " if len(report.corpora) > 1 else ""
        lines += [f"note: {name}{note}" for note in corpus.notes]
        lines += [
            f"{name}{one.step}: {one.rows_in:,} in = {one.kept:,} kept + {one.lost:,} lost" for one in corpus.balances
        ]
    return lines


if __name__ == "__main__":
    run(main)

"""`python -m pipelines.verify`: is a dataset what its ledger says, and what its source gives?

    python -m pipelines.verify captions/ latents/ text/ --captions captions/ \\
        --shards 'shards/{000..127}.tar' --source sam --vae VAE --t5 T5 --rows 16

Reads everything once or twice and changes nothing. Findings go to stdout, one a line, then a table.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.command import parser, require_place, run
from pipelines.written import write_text
from schemas.errors import ExitCode, UserError

if TYPE_CHECKING:
    from curation.verify.dataset import DatasetReport
    from curation.verify.findings import Findings
    from curation.verify.joins import Join
    from curation.verify.reencode import Reencoded
    from schemas.reading import Dataset

_EXIT_CODES = """exit codes:
  0 nothing is wrong (notes are not)   1 something is wrong   2 arguments or datasets cannot be used as given"""


def main(arguments: Sequence[str]) -> int:
    """Run the command; 0 if nothing is wrong, else 1. Raises `UserError` for what cannot be checked at all."""
    options = _parser().parse_args(arguments)
    if bool(options.shards) != bool(options.source) or (options.vae and not options.shards):
        raise UserError("--vae needs --shards and --source to re-encode pictures from, and these need each other.")
    if options.t5 and not options.captions:
        raise UserError("--t5 needs --captions, the captions dataset to embed again from.")
    require_place("--summary-json", options.summary_json)

    from curation.verify.dataset import check_dataset, open_any
    from curation.verify.findings import Findings
    from curation.verify.joins import check_captions, check_join
    from schemas.reading import open_dataset

    datasets = [open_any(url) for url in dict.fromkeys(options.datasets)]
    by_kind = {kind: [d for d in datasets if d.info.kind == kind] for kind in ("latents", "text")}
    _require_used(options, by_kind)
    if options.captions and options.captions not in options.datasets:
        datasets.append(open_dataset(options.captions, "captions"))
    findings = Findings(lambda line: print(line, flush=True))
    reports = [check_dataset(dataset, findings, _progress(dataset.url)) for dataset in datasets]
    # From here on only what can be read counts: a damaged file is told once.
    by_kind = {kind: [r.dataset for r in reports if r.kind == kind] for kind in by_kind}
    captions = next((r.dataset for r in reports if r.url == options.captions), None)
    damaged = frozenset[str]().union(*(report.damaged for report in reports))
    joins: list[Join] = []
    for text in by_kind["text"]:
        if captions is not None:
            check_captions(text, captions, findings)
        joins += [check_join(latents, text, captions, damaged, findings) for latents in by_kind["latents"]]
    again = _reencode(options, by_kind, captions, findings)
    _print_tables(reports, joins, again, findings)
    if options.summary_json:
        record = json.dumps(_summary(reports, joins, again, findings), indent=2, sort_keys=True)
        write_text(Path(options.summary_json), record + "\n")
    return int(ExitCode.OK if findings.clean else ExitCode.UNITS_FAILED)


def _parser() -> argparse.ArgumentParser:
    command = parser("verify", "Check datasets against their ledgers, against each other, and against their source.")
    command.epilog = _EXIT_CODES
    command.add_argument(
        "datasets", nargs="+", metavar="DIR", help="a dataset of any kind; latents and text are joined"
    )
    command.add_argument("--summary-json", metavar="FILE", help="also write everything found here as JSON")
    source = command.add_argument_group("the source (each part that is given is checked too)")
    source.add_argument("--captions", metavar="DIR", help="the captions of text: hashes compared, and holes explained")
    source.add_argument("--shards", nargs="+", default=[], metavar="PATTERN", help="the image shards of latents")
    source.add_argument("--source", metavar="NAME", help="their layout, as for pipelines.latents")
    source.add_argument("--vae", metavar="ID_OR_DIR", help="encode pictures again with this VAE (needs --shards)")
    source.add_argument("--vae-revision", metavar="REV", help="branch, tag or commit of a hub id")
    source.add_argument("--t5", metavar="ID_OR_DIR", help="embed captions again with this T5 (needs --captions)")
    source.add_argument("--t5-revision", metavar="REV", help="branch, tag or commit of a hub id")
    source.add_argument("--rows", type=int, default=8, metavar="N", help="rows a dataset to make again (default 8)")
    source.add_argument("--seed", type=int, default=0, metavar="N", help="which rows are drawn (default 0)")
    source.add_argument(
        "--tolerance",
        type=float,
        metavar="X",
        help="relative L2 distance taken for the same (default 0.001; 0.03 for bfloat16, 0.01 for float16 compute)",
    )
    source.add_argument("--device", default="cpu", metavar="DEVICE", help="cpu or cuda (default cpu)")
    return command


def _require_used(options: argparse.Namespace, by_kind: dict[str, "list[Dataset]"]) -> None:
    """Raise `UserError` for a source that no dataset here can be compared with."""
    if options.vae and not by_kind["latents"]:
        raise UserError("--vae: no latents dataset among the DIRs. Name it too, or leave --vae out.")
    if (options.t5 or options.captions) and not by_kind["text"]:
        raise UserError("--captions and --t5: no text dataset among the DIRs. Name it too, or leave them out.")
    if options.rows < 1:
        raise UserError(f"--rows {options.rows}: must be at least 1.")
    if options.tolerance is not None and not options.tolerance >= 0:
        raise UserError(f"--tolerance {options.tolerance}: must be a distance from 0 up.")


def _reencode(
    options: argparse.Namespace,
    by_kind: dict[str, "list[Dataset]"],
    captions: "Dataset | None",
    findings: "Findings",
) -> "list[Reencoded]":
    out: list[Reencoded] = []
    if not options.vae and not options.t5:
        return out

    from curation.checkpoints import resolve_checkpoint
    from curation.shards.urls import expand_shards
    from curation.sources.table import source_named
    from curation.verify import reencode

    draw = reencode.Draw(options.rows, options.seed, options.tolerance, options.device)
    if options.vae:
        shards, source = expand_shards(options.shards), source_named(options.source)
        vae = resolve_checkpoint(options.vae, options.vae_revision)
        out += [reencode.check_latents(d, shards, source, vae, draw, findings) for d in by_kind["latents"]]
    if options.t5 and captions is not None:
        t5 = resolve_checkpoint(options.t5, options.t5_revision, needs=("config.json", "tokenizer.json|spiece.model"))
        out += [reencode.check_text(d, captions, t5, draw, findings) for d in by_kind["text"]]
    return out


def _progress(url: str) -> Callable[[int, int], None]:
    """A line on stderr at most every 5 %."""
    told = -1

    def tell(done: int, total: int) -> None:
        nonlocal told
        step = 20 * done // max(total, 1)
        if step != told:
            told = step
            print(f"{url}: {done:,} of {total:,} units", file=sys.stderr)

    return tell


def _print_tables(
    reports: "Sequence[DatasetReport]", joins: "Sequence[Join]", again: "Sequence[Reencoded]", findings: "Findings"
) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, title="pipelines.verify", title_justify="left")
    for name in ("dataset", "kind", "units", "rows in", "kept", "rejected", "MB"):
        table.add_column(name, justify="left" if name in {"dataset", "kind"} else "right")
    for r in reports:
        counts = (r.units, r.rows_in, r.rows_kept, r.rows_rejected)
        table.add_row(r.url, r.kind, *(f"{n:,}" for n in counts), f"{r.disk_bytes / 1e6:,.2f}")
    width = None if sys.stdout.isatty() else 200
    Console(highlight=False, markup=False, width=width).print(table)
    for report in reports:
        for line in _statistics(report):
            print(f"{report.url}: {line}")
    for join in joins:
        lost = join.lost_text + join.lost_latents
        refused = sum(join.refused_text.values()), sum(join.refused_latents.values())
        print(
            f"{join.latents} and {join.text}: {join.matched:,} samples in both; {refused[0]:,} without text and "
            f"{refused[1]:,} without latents, refused with a reason; {lost:,} lost"
        )
    for made in again:
        print(
            f"{made.dataset}: {made.rows} rows made again, {made.equal} equal to the bit, worst relative L2 "
            f"{made.worst:.2g} (limit {made.tolerance:g})"
        )
    wrong, notes = (sum(counter.values()) for counter in findings.counts.values())
    kinds = ", ".join(f"{name} {n:,}" for name, n in next(iter(findings.counts.values())).most_common())
    print(f"clean ({notes:,} notes)" if not wrong else f"{wrong:,} wrong ({kinds}), {notes:,} notes")


def _statistics(report: "DatasetReport") -> list[str]:
    figures = report.statistics
    out = []
    if figures.get("channel_mean"):
        means, stds = (", ".join(f"{v:.3f}" for v in figures[f"channel_{name}"]) for name in ("mean", "std"))
        out.append(f"scaled latents by channel: mean {means}; standard deviation {stds}")
    if figures.get("tokens"):
        out.append(f"{figures['tokens']:,} tokens, {figures['truncated']:,} captions cut at the limit")
    out += [f"{name} {low:.6g} to {high:.6g} over its units" for name, (low, high) in sorted(report.measures.items())]
    return out


def _summary(
    reports: "Sequence[DatasetReport]", joins: "Sequence[Join]", again: "Sequence[Reencoded]", findings: "Findings"
) -> dict[str, Any]:
    datasets = []
    for report in reports:
        fields = ("url", "kind", "units", "rows_in", "rows_kept", "rows_rejected", "disk_bytes", "measures")
        datasets.append({name: getattr(report, name) for name in fields} | {"statistics": report.statistics})
    return {
        "clean": findings.clean,
        "datasets": datasets,
        "joins": [dataclasses.asdict(join) for join in joins],
        "reencoded": [dataclasses.asdict(made) for made in again],
        "counts": {str(severity): dict(counter) for severity, counter in findings.counts.items()},
        "findings": [dataclasses.asdict(finding) for finding in findings.kept],
    }


if __name__ == "__main__":
    run(main)

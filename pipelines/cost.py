"""What training cost, beside what the paper and its peers say theirs did.

    python -m pipelines.cost --run run/
    python -m pipelines.cost --run pixel/ align/ aesthetic/ --score score.json

Several runs are stages of one model and are added up. Prints the paper's Table 2 and Table 4 with these runs' own rows.
Energy is told where the driver tells it, never estimated.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.command import parser, run
from pipelines.written import write_text
from schemas.errors import ExitCode, UserError

if TYPE_CHECKING:
    from training.cost.ledger import Cost


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit code."""
    command = parser("cost", (__doc__ or "").strip())
    command.add_argument("--run", required=True, nargs="+", type=Path, metavar="RUN", help="run directories, in order")
    command.add_argument("--score", type=Path, metavar="FILE", help="JSON of pipelines.evaluate score, for its FID")
    command.add_argument("--json", type=Path, metavar="FILE", help="also write the costs here")
    options = command.parse_args(arguments)

    from training.cost.ledger import total
    from training.cost.tables import as_text, notes, open_costed, table_2, table_4

    runs = [open_costed(path) for path in options.run]
    together = total([one.record for one in runs])
    fid = _fid(options)
    for one in runs:
        _tell(f"{one.name} ({one.stage or 'no stage'}), {len(one.record.sessions)} starts", one.cost)
    if len(runs) > 1:
        _tell("together", together)
    print(f"\nTable 2: peers\n{as_text(table_2(together, runs[-1].parameters, fid))}")
    print(f"\nTable 4: stages\n{as_text(table_4(runs))}\n")
    print("\n".join(notes()))
    if options.json:
        record = {"together": asdict(together), "runs": {one.name: asdict(one.cost) for one in runs}, "schema": 1}
        write_text(options.json, json.dumps(record, indent=2, sort_keys=True) + "\n")
    return ExitCode.OK


def _tell(name: str, cost: "Cost") -> None:
    from training.cost.tables import summary_rows

    print(name)
    for label, value in [("images seen", f"{cost.images:,}"), *summary_rows(cost)]:
        print(f"  {label:<14}{value}")


def _fid(options: argparse.Namespace) -> str:
    """The FID in --score, with its N; empty without."""
    if not options.score:
        return ""
    try:
        frechet = json.loads(options.score.read_text(encoding="utf-8"))["frechet"]
        name, distance, count = frechet["name"], float(frechet["distance"]), int(frechet["samples"]["count"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{options.score}: no scores with a Fréchet distance. Give the --json of evaluate score."
        ) from None
    if name != "FID":
        raise UserError(f"{options.score}: holds a {name}, which is no FID and cannot stand beside one. Leave it out.")
    return f"{distance:.2f} (N={count:,})"


if __name__ == "__main__":
    run(main)

"""`python -m pipelines.select`: choose samples by a recipe; nothing is deleted or copied."""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.command import parser, run
from schemas.errors import ExitCode, StorageError, UserError

if TYPE_CHECKING:
    from curation.select.recipe import Recipe


def main(arguments: Sequence[str]) -> int:
    """Parse, apply the recipe, print the funnel, and write the selection unless only asked what if."""
    options = _parser().parse_args(arguments)

    from curation.select.render import render
    from curation.select.run import select
    from curation.select.tables import open_tables

    if bool(options.out) == options.what_if:
        raise UserError("give either --out FILE for the selection, or --what-if to see the funnel alone.")
    recipe = _recipe(options)
    outcome = select(open_tables(options.table, options.noun_column), recipe)
    print(render(outcome), end="")
    if options.summary_json:
        _write(options.summary_json, outcome.as_json())
    if not options.what_if:
        from schemas.selection import write_selection

        selection = outcome.selection()
        try:
            write_selection(options.out, selection)
        except OSError as error:
            raise StorageError(f"--out {options.out}: cannot be written ({error.strerror}). Name another.") from None
        print(f"\n{options.out}: {len(selection):,} samples, digest {selection.digest}")
    return int(ExitCode.OK)


def _parser() -> argparse.ArgumentParser:
    command = parser("select", "Choose samples by a recipe over the columns of any tables that tell of them.")
    group = command.add_argument_group("what is read and written")
    group.add_argument(
        "--table",
        nargs="+",
        action="extend",
        required=True,
        metavar="[NAME=]PATH",
        help="datasets (captions, measures, nouns, latents, text), or Parquet files with shard and key, or key alone",
    )
    group.add_argument(
        "--noun-column",
        default="caption",
        metavar="COLUMN",
        help="the caption column whose nouns a nouns dataset gives (default caption)",
    )
    group.add_argument("--out", metavar="FILE", help="the selection, a Parquet file for --select of other commands")
    group.add_argument("--what-if", action="store_true", help="print the funnel; write nothing")
    group.add_argument("--summary-json", metavar="FILE", help="also write funnel and noun distributions here as JSON")
    rules = command.add_argument_group("what is kept")
    rules.add_argument("--recipe", metavar="NAME_OR_FILE", help="a TOML file, or the name of a recipe that is shipped")
    for side in ("min", "max"):
        rules.add_argument(
            f"--{side}",
            nargs="+",
            action="extend",
            default=[],
            metavar="COLUMN=VALUE",
            help=f"{side}imum of a column; before the recipe's own filters",
        )
    return command


def _recipe(options: argparse.Namespace) -> "Recipe":
    """The recipe that was named, behind the thresholds given one by one."""
    from curation.select.recipe import Recipe, range_filter, read_recipe

    recipe = read_recipe(options.recipe) if options.recipe else Recipe()
    lows, highs = (dict(_threshold(text, side) for text in getattr(options, side)) for side in ("min", "max"))
    given = tuple(range_filter(column, lows.get(column), highs.get(column)) for column in {**lows, **highs})
    filters = (*given, *recipe.filters)
    if not filters:
        raise UserError("nothing says what to keep: give --recipe, --min or --max.")
    twice = {one.name for one in given} & {one.name for one in recipe.filters}
    if twice:
        raise UserError(f"{min(twice)} stands in the recipe already. Give it once.")
    return replace(recipe, filters=filters)


def _threshold(text: str, side: str) -> tuple[str, float]:
    column, _, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not column or math.isnan(value):
        raise UserError(f"--{side} {text}: not COLUMN=VALUE with a number, such as aesthetic=5.")
    return column, value


def _write(path: str, record: object) -> None:
    try:
        Path(path).write_text(json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"--summary-json {path}: cannot be written ({error.strerror}). Name another.") from None


if __name__ == "__main__":
    run(main)

"""`pipelines.evaluate prompts`: which captions of COCO."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines.sampling_arguments import positive, seed
from pipelines.written import write_text
from schemas.errors import ExitCode


def add(parts: "argparse._SubParsersAction[Any]") -> None:
    """The command's arguments."""
    command = parts.add_parser("prompts", help="choose captions of COCO", description="Choose captions of COCO.")
    command.add_argument("--coco", required=True, type=Path, metavar="FILE", help="captions_val2014.json")
    command.add_argument("--count", type=positive, default=30_000, help="pictures, one caption each (default 30000)")
    command.add_argument("--seed", type=seed, default=0, help="of the choice (default 0)")
    command.add_argument("--out", required=True, type=Path, metavar="FILE", help="prompt list (.jsonl)")
    command.set_defaults(act=act)


def act(options: argparse.Namespace) -> int:
    """Choose, and write the list and its record."""
    from training.evaluation.coco import choose, to_jsonl

    chosen = choose(options.coco, options.count, options.seed)
    write_text(options.out, to_jsonl(chosen))
    record = asdict(chosen) | {"prompts": len(chosen.prompts)}
    beside = options.out.with_suffix(".record.json")
    write_text(beside, json.dumps(record, indent=2, sort_keys=True) + "\n")
    print(
        f"{len(chosen.prompts):,} prompts in {options.out}, of {chosen.pictures:,} pictures with {chosen.captions:,} "
        f"captions in {chosen.annotations} ({chosen.annotations_digest})\nrule, also in {beside.name}: {chosen.rule}, "
        f"SEED {chosen.seed}"
    )
    return ExitCode.OK

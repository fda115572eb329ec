"""`python -m pipelines.demo`: the whole flow on generated pictures with small checkpoints, on a CPU, without network.

Every step is one of the ordinary commands, run as a person would run it and printed before it starts. A second run
finds everything current and does nothing but measure and report again.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from curation.demo.shipped import LLAVA
from pipelines.command import parser, run
from pipelines.demo_steps import FULL, SHORT, steps
from pipelines.sampling_arguments import positive
from schemas.errors import ExitCode, UserError

_ONE_THREAD: Final = "OMP_NUM_THREADS=1"
"""Models as small as these gain nothing by a second thread of torch, and lose much on a busy machine."""


def main(arguments: Sequence[str]) -> int:
    """Run the commands one after the other; stop at the first that fails."""
    command = parser("demo", "Run the whole flow on generated pictures with small checkpoints, on a CPU.")
    command.add_argument("--out", default="demo-out", metavar="DIR", help="where everything goes (default demo-out)")
    command.add_argument(
        "--workers", type=positive, default=2, metavar="N", help="Ray workers that caption (default 2)"
    )
    command.add_argument("--full", action="store_true", help="more pictures and longer training")
    options = command.parse_args(arguments)
    out = Path(options.out)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: a file, not a directory. Name another.")
    environment = {**os.environ, **dict([_ONE_THREAD.split("=")])}
    start = time.perf_counter()
    todo = steps(out, FULL if options.full else SHORT, workers=options.workers)
    for number, (name, line) in enumerate(todo, start=1):
        print(f"\n== {number} of {len(todo)}: {name}\n$ {_ONE_THREAD} python -m {shlex.join(line)}", flush=True)
        began = time.perf_counter()
        code = subprocess.run([sys.executable, "-m", *line], env=environment, check=False).returncode
        if code != ExitCode.OK:
            print(f"error: pipelines.{line[0].partition('.')[2]} ended with exit code {code}", file=sys.stderr)
            return code
        now = time.perf_counter()
        print(f"-- {now - began:.0f} s, {now - start:.0f} s in all", flush=True)
    print(closing_page(out, time.perf_counter() - start))
    return ExitCode.OK


def closing_page(out: Path, seconds: float) -> str:
    """Where to look, and what is to be seen there."""
    score = json.loads((out / "alignment.json").read_text())
    aligned, chance, ceiling = (score[name] for name in ("aligned", "chance", "ceiling"))
    told = {name: f"{_percent(aligned[name])} (by chance {_percent(chance[name])})" for name in aligned}
    return f"""
The whole flow took {seconds:.0f} s. Look at:
  {out / "report.html"}   what the data is: funnel, captions, nouns, pictures, features, times
  {out / "samples" / "grid.png"}   nine prompts, drawn by the small model
  {out / "drawn"}   pictures of held-out scenes; their prompts and truth are in {out / "scenes.jsonl"}
  {out / "runs"}   the three stages: checkpoints, weights, TensorBoard files
What the model draws, as a detector reads it: {told["ground"]} of the pictures have the ground that was asked for,
colours included; of the things, {told["drawn"]} can be recognised, and {told["right"]}
have the right colour at the right place too. Of the things of the true pictures, behind the
same autoencoder, it reads {_percent(ceiling["right"])} rightly in all of that: more cannot be expected.
The small LLaVA that comes with the package names what is there, mostly rightly; its card has the figures:
  {LLAVA / "README.md"}
Captions that repeat themselves are refused, and training leaves out their pictures.
Run it again: everything is current, so nothing is made anew."""


def _percent(share: dict[str, float]) -> str:
    return f"{100 * share['right'] / share['of']:.0f} %"


if __name__ == "__main__":
    run(main)

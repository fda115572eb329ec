"""`python -m pipelines.demo`: the whole flow on generated pictures with small checkpoints, on a CPU, without network.

Every step is one of the ordinary commands, run as a person would run it and printed before it starts. A second run
finds everything current and does nothing.
"""

import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from curation.demo.shipped import LLAVA, VAE
from pipelines.command import parser, run
from schemas.errors import ExitCode

_PROMPTS = {
    "red": "The image shows a large red heart in the middle of the image. The background is plain white.",
    "blue": "The image shows a large blue car on the left, halfway up. The background is plain yellow.",
    "green": "The image shows a large green tree in the bottom right corner. The background is plain black.",
    "yellow": "The image shows a large yellow star at the top centre. The background is plain blue.",
}
_PICTURES = "--shards {out}/shards/*.tar --source webdataset"
_STEPS = (
    ("pictures: three tar shards, some broken on purpose", "demo_shards --out {out}/shards --rows {rows}"),
    ("a small T5 of the true architecture, with random weights", "tiny_models --out {out}/models"),
    (
        "captions: LLaVA on Ray",
        f"caption {_PICTURES} --model {{llava}} --t5-tokenizer {{out}}/models/t5 --out {{out}}/captions "
        "--max-new-tokens 160 --unit-rows 32 --workers {workers}",
    ),
    ("nouns: the paper's Table 1, raw against generated", "nouns --captions {out}/captions --out {out}/nouns"),
    ("latents: VAE posteriors", f"latents {_PICTURES} --vae {{vae}} --size 128 --out {{out}}/latents"),
    ("text: T5 embeddings", "text --captions {out}/captions --t5 {out}/models/t5 --out {out}/text"),
    (
        "training: a small PixArt",
        "train --latents {out}/latents --text {out}/text --out {out}/run --model tiny/2 --steps {steps} "
        "--global-batch 16 --lr 2e-3 --warmup 20 --clip 1 --device cpu --max-unmatched 0.3",
    ),
    (
        "sampling: pictures from prompts",
        "sample --run {out}/run --t5 {out}/models/t5 --vae {vae} --out {out}/samples --device cpu "
        "--prompts {red} {blue} {green} {yellow}",
    ),
    (
        "report",
        "report --captions {out}/captions --nouns {out}/nouns --latents {out}/latents --text {out}/text "
        f"--run {{out}}/run {_PICTURES} --out {{out}}/report.html",
    ),
)


def main(arguments: Sequence[str]) -> int:
    """Run the commands one after the other; stop at the first that fails."""
    command = parser("demo", "Run the whole flow on generated pictures with small checkpoints, on a CPU.")
    command.add_argument("--out", default="demo-out", metavar="DIR", help="where everything goes (default demo-out)")
    command.add_argument("--workers", type=int, default=2, metavar="N", help="Ray workers that caption (default 2)")
    command.add_argument("--steps", type=int, default=600, metavar="N", help="training steps (default 600)")
    options = command.parse_args(arguments)
    out = Path(options.out)
    start = time.perf_counter()
    for name, line in steps(out, workers=options.workers, training_steps=options.steps):
        print(f"\n== {name}\n$ python -m {shlex.join(line)}", flush=True)
        began = time.perf_counter()
        code = subprocess.run([sys.executable, "-m", *line], check=False).returncode
        if code != ExitCode.OK:
            print(f"error: pipelines.{line[0].partition('.')[2]} ended with exit code {code}", file=sys.stderr)
            return code
        print(f"-- {time.perf_counter() - began:.0f} s", flush=True)
    print(
        f"\nThe whole flow took {time.perf_counter() - start:.0f} s. Look at:\n"
        f"  {out / 'report.html'}   what the data is: funnel, captions, nouns, pictures, features, times\n"
        f"  {out / 'samples' / 'grid.png'}   what the tiny model draws after {options.steps} steps: blurs\n"
        f"  {out / 'run'}   checkpoints, weights, TensorBoard files\n"
        f"The small LLaVA that comes with the package names what is there, mostly rightly, with colours and places;\n"
        f"of what it says of things lying left of or above others, more than half is wrong. Its card has the figures:\n"
        f"  {LLAVA / 'README.md'}\n"
        f"Captions that repeat themselves are refused, and training leaves out their pictures.\n"
        f"Run it again: everything is current, so nothing is done."
    )
    return ExitCode.OK


def steps(out: Path, *, workers: int, training_steps: int, rows: int = 64) -> list[tuple[str, list[str]]]:
    """(what it is, the module and its arguments) of each step, in order. `rows` is pictures a shard."""
    values = {"out": out, "workers": workers, "steps": training_steps, "rows": rows, "llava": LLAVA, "vae": VAE}
    # Split first and fill in then, so that paths and prompts may hold spaces.
    return [
        (what, [part.format(**values, **_PROMPTS) for part in f"pipelines.{line}".split()]) for what, line in _STEPS
    ]


if __name__ == "__main__":
    run(main)

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

from pipelines.command import parser, run
from schemas.errors import ExitCode

_PROMPTS = (
    "A large red circle stands in the middle of a plain white ground.",
    "A small blue square stands on the left of a plain yellow ground.",
    "A large green star stands on the right of a plain black ground.",
    "A large yellow triangle stands in the middle of a plain blue ground.",
)


def main(arguments: Sequence[str]) -> int:
    """Run the commands one after the other; stop at the first that fails."""
    command = parser("demo", "Run the whole flow on generated pictures with small checkpoints, on a CPU.")
    command.add_argument("--out", default="demo-out", metavar="DIR", help="where everything goes (default demo-out)")
    command.add_argument("--workers", type=int, default=2, metavar="N", help="Ray workers that caption (default 2)")
    command.add_argument("--steps", type=int, default=200, metavar="N", help="training steps (default 200)")
    options = command.parse_args(arguments)
    out = Path(options.out)
    start = time.perf_counter()
    for name, line in steps(out, options.workers, options.steps):
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
        f"Run it again: everything is current, so nothing is done."
    )
    return ExitCode.OK


def steps(out: Path, workers: int, training_steps: int) -> list[tuple[str, list[str]]]:
    """(what it is, the module and its arguments) of each step, in order."""
    shards, models = str(out / "shards"), out / "models"
    pattern = f"{shards}/demo-*.tar"
    pictures = ["--shards", pattern, "--source", "webdataset"]
    captions, nouns, latents, text, trained = (
        str(out / name) for name in ("captions", "nouns", "latents", "text", "run")
    )
    t5, vae = str(models / "t5"), str(models / "vae")
    return [
        ("pictures: three tar shards, some broken on purpose", ["pipelines.demo_shards", "--out", shards]),
        ("small checkpoints of the true architectures", ["pipelines.tiny_models", "--out", str(models)]),
        (
            "captions: LLaVA on Ray",
            [
                "pipelines.caption",
                *pictures,
                "--model",
                str(models / "llava"),
                "--t5-tokenizer",
                t5,
                "--out",
                captions,
                "--max-new-tokens",
                "96",
                "--unit-rows",
                "32",
                "--workers",
                str(workers),
            ],
        ),
        ("nouns: the paper's Table 1", ["pipelines.nouns", "--captions", captions, "--out", nouns]),
        ("latents: VAE posteriors", ["pipelines.latents", *pictures, "--vae", vae, "--size", "128", "--out", latents]),
        ("text: T5 embeddings", ["pipelines.text", "--captions", captions, "--t5", t5, "--out", text]),
        (
            "training: a small PixArt",
            [
                "pipelines.train",
                "--latents",
                latents,
                "--text",
                text,
                "--out",
                trained,
                "--model",
                "tiny/2",
                "--steps",
                str(training_steps),
                "--global-batch",
                "16",
                "--lr",
                "1e-3",
                "--device",
                "cpu",
            ],
        ),
        (
            "sampling: pictures from prompts",
            [
                "pipelines.sample",
                "--run",
                trained,
                "--t5",
                t5,
                "--vae",
                vae,
                "--out",
                str(out / "samples"),
                "--device",
                "cpu",
                "--prompts",
                *_PROMPTS,
            ],
        ),
        (
            "report",
            [
                "pipelines.report",
                "--captions",
                captions,
                "--nouns",
                nouns,
                "--latents",
                latents,
                "--text",
                text,
                "--run",
                trained,
                *pictures,
                "--out",
                str(out / "report.html"),
            ],
        ),
    ]


if __name__ == "__main__":
    run(main)

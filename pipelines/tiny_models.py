"""`python -m pipelines.tiny_models`: small LLaVA, autoencoder and T5 checkpoints with the true architectures."""

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pipelines.command import parser, run
from schemas.errors import ExitCode, StorageError, UserError

_RECIPE = "recipe.json"


def main(arguments: Sequence[str]) -> int:
    """Make the checkpoints, unless they are there."""
    command = parser(
        "tiny_models",
        "Write llava/, vae/ and t5/: small checkpoints of the true architectures with random weights, for trials.",
    )
    command.add_argument("--out", required=True, metavar="DIR", help="where the three directories go")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the random weights (default 0)")
    options = command.parse_args(arguments)
    if not 0 <= options.seed < 2**63:
        raise UserError(f"--seed {options.seed} does not fit. Use a whole number from 0 to 2**63 - 1.")
    out = Path(options.out)
    recipe = {"version": 4, "seed": options.seed}
    if (out / _RECIPE).exists():
        if (out / _RECIPE).read_text(encoding="utf-8", errors="replace") != json.dumps(recipe) + "\n":
            raise UserError(f"{out}: holds checkpoints made with other settings. Name another --out, or remove it.")
        print(f"nothing to do: the checkpoints are in {out}")
        return ExitCode.OK
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: not empty, and not made by this command. Name another --out.")

    from curation.demo.models import make_tiny_models

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise StorageError(f"{out}: cannot be made ({error.strerror}). Give another --out.") from None
    try:
        made = make_tiny_models(aside, seed=options.seed)
        (aside / _RECIPE).write_text(json.dumps(recipe) + "\n")
        aside.chmod(0o755)
        if out.exists():
            out.rmdir()
        os.replace(aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    for name in made:
        size = sum(file.stat().st_size for file in (out / name).rglob("*") if file.is_file())
        print(f"{out / name}: {size / 1e6:.2f} MB")
    return ExitCode.OK


if __name__ == "__main__":
    run(main)

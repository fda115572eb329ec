"""`python -m pipelines.train_small`: the recipes of the small checkpoints that the package ships."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipelines.command import parser, run
from schemas.errors import ExitCode, UserError


def main(arguments: Sequence[str]) -> int:
    """Train from nothing, measure, write the card."""
    command = parser(
        "train_small",
        "Train a small checkpoint of a true architecture on generated pictures, measure it, and write its card.",
    )
    command.add_argument("model", choices=("llava", "vae", "detector"), help="which checkpoint")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the checkpoint goes")
    command.add_argument("--steps", type=int, metavar="N", help="train for fewer or more steps, for a trial")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="seed of weights and pictures (default 0)")
    command.add_argument(
        "--card-only", action="store_true", help="measure what is in --out already, and write its card"
    )
    command.add_argument("--card-scenes", type=int, default=400, metavar="N", help="scenes to measure on (default 400)")
    command.add_argument(
        "--work", type=Path, metavar="DIR", help="llava: keeps a gigabyte of drawn pictures, the tower and snapshots"
    )
    options = command.parse_args(arguments)
    if (options.steps is not None and options.steps < 1) or options.card_scenes < 1:
        raise UserError("--steps and --card-scenes must be at least 1.")
    if options.seed < 0:
        raise UserError("--seed must not be negative.")
    if not options.card_only and options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise UserError(f"{options.out}: there already, and not empty. Name another --out, or remove it.")
    if options.model == "llava" and not options.card_only and options.work is None:
        raise UserError("training a llava needs --work: a folder for drawn pictures and snapshots.")
    if options.model != "llava" and options.work is not None:
        raise UserError(f"--work is for a llava alone; training a {options.model} keeps nothing. Leave it out.")
    if options.card_only and not (options.out / "config.json").exists():
        raise UserError(f"{options.out}: no checkpoint there to measure.")

    import torch

    torch.set_num_threads(1)  # sums in another order give other bytes
    try:
        {"llava": _llava, "vae": _vae, "detector": _detector}[options.model](options)
    except (OSError, ValueError, KeyError) as error:
        if not options.card_only:
            raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{options.out}: cannot be measured as a {options.model} ({reason}). Check --out.") from error
    return ExitCode.OK


def _llava(options: argparse.Namespace) -> None:
    from curation.demo.llava.card import write_card
    from curation.demo.llava.recipe import make_llava, recipe_of

    recipe = recipe_of(options.steps, options.seed)
    if not options.card_only:
        make_llava(options.out, options.work, recipe, _say)
    write_card(options.out, recipe, count=options.card_scenes, say=_say)


def _vae(options: argparse.Namespace) -> None:
    from curation.demo.vae.card import write_card
    from curation.demo.vae.recipe import AutoencoderRecipe, train_autoencoder

    recipe = AutoencoderRecipe(seed=options.seed, **({} if options.steps is None else {"steps": options.steps}))
    if not options.card_only:
        train_autoencoder(options.out, recipe, _say)
    write_card(options.out, recipe, count=options.card_scenes, say=_say)


def _detector(options: argparse.Namespace) -> None:
    from curation.demo.detector.card import write_card
    from curation.demo.detector.recipe import DetectorRecipe, train_detector

    recipe = DetectorRecipe(seed=options.seed, **({} if options.steps is None else {"steps": options.steps}))
    if not options.card_only:
        train_detector(options.out, recipe, _say)
    write_card(options.out, recipe, count=options.card_scenes, say=_say)


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    run(main)

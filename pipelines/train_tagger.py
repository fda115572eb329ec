"""`python -m pipelines.train_tagger`: the recipe of the part-of-speech tagger that the package ships."""

from collections.abc import Sequence
from pathlib import Path

from pipelines.command import parser, run
from schemas.errors import ExitCode, UserError


def main(arguments: Sequence[str]) -> int:
    """Train unless told not to, measure, write the card."""
    command = parser(
        "train_tagger",
        "Train the caption tagger on UD English EWT and Atis, measure it on every dev treebank, write its card.",
    )
    command.add_argument("--treebanks", type=Path, required=True, metavar="DIR", help="CoNLL-U files, perhaps gzipped")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="the pipeline's directory")
    command.add_argument("--work", type=Path, metavar="DIR", help="keep training text and checkpoints here")
    command.add_argument("--max-steps", type=int, metavar="N", help="train for fewer steps, for a trial")
    command.add_argument("--card-only", action="store_true", help="measure the pipeline that is in --out already")
    command.add_argument(
        "--captions", type=Path, nargs="*", default=[], metavar="FILE", help="time it on these, one caption a line"
    )
    options = command.parse_args(arguments)

    if options.card_only and not (options.out / "meta.json").is_file():
        raise UserError(f"{options.out}: no spaCy pipeline there to measure (no meta.json). Check --out.")

    from curation.nouns.recipe.build import build_tagger, write_tagger_card

    if not options.card_only:
        build_tagger(options.treebanks, options.out, work=options.work, max_steps=options.max_steps)
    write_tagger_card(options.out, options.treebanks, options.captions)
    return ExitCode.OK


if __name__ == "__main__":
    run(main)

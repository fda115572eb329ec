"""Build the shipped tagger from treebanks, measure it, and write its card.

    python -m curation.nouns.recipe.build --treebanks DIR --out DIR [--captions FILE ...]

DIR holds CoNLL-U files of UD English EWT and Atis (train and dev), and the dev files of any other treebank that
`treebanks.py` names, for testing. Captions (a .txt file, one a line) are only for measuring speed.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from curation.nouns.recipe.card import captions_per_second, measure, peak_megabytes, write_card
from curation.nouns.recipe.training import train_tagger
from schemas.errors import ExitCode, UserError


def main(arguments: list[str] | None = None) -> int:
    """Train unless told not to, measure, write the card; the exit code."""
    command = argparse.ArgumentParser(prog="python -m curation.nouns.recipe.build", description="Build the tagger.")
    command.add_argument("--treebanks", type=Path, required=True, metavar="DIR", help="CoNLL-U files, perhaps gzipped")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="the pipeline's directory")
    command.add_argument("--work", type=Path, metavar="DIR", help="keep training text and checkpoints here")
    command.add_argument("--max-steps", type=int, metavar="N", help="train for fewer steps, for a trial")
    command.add_argument("--card-only", action="store_true", help="measure the pipeline that is in --out already")
    command.add_argument("--captions", type=Path, nargs="*", default=[], metavar="FILE", help="time it on these")
    options = command.parse_args(arguments)
    try:
        if not options.card_only:
            with tempfile.TemporaryDirectory() as temporary:
                train_tagger(options.treebanks, options.work or Path(temporary), options.out, options.max_steps)
        speeds = [_speed(options.out, path) for path in options.captions]
        write_card(options.out, measure(options.out, options.treebanks), speeds)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return ExitCode.OK


def _speed(tagger: Path, captions: Path) -> str:
    texts = [line for line in captions.read_text(encoding="utf-8").splitlines() if line.strip()]
    per_second, tokens = captions_per_second(tagger, texts)
    return (
        f"{captions.stem}: {per_second:,.0f} captions/s, {tokens:,.0f} tokens/s "
        f"({tokens / per_second:.0f} tokens a caption, {len(texts):,} captions, peak memory {peak_megabytes()} MB)"
    )


if __name__ == "__main__":
    sys.exit(main())

"""Build the shipped tagger from treebanks, measure it, and write its card."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from curation.nouns.recipe.card import captions_per_second, measure, peak_megabytes, write_card
from curation.nouns.recipe.training import train_tagger


def build_tagger(treebanks: Path, out: Path, *, work: Path | None = None, max_steps: int | None = None) -> None:
    """Train the tagger on the treebanks in `treebanks` into `out`. `work` keeps training text and checkpoints.

    `treebanks` holds CoNLL-U files of UD English EWT and Atis (train and dev). Raises `UserError` if one is missing.
    """
    with tempfile.TemporaryDirectory() as temporary:
        train_tagger(treebanks, work or Path(temporary), out, max_steps)


def write_tagger_card(tagger: Path, treebanks: Path, captions: Sequence[Path] = ()) -> None:
    """Measure the tagger on all dev treebanks in `treebanks`, time it on `captions` (one a line), write its card."""
    speeds = [_speed(tagger, path) for path in captions]
    write_card(tagger, measure(tagger, treebanks), speeds)


def _speed(tagger: Path, captions: Path) -> str:
    texts = [line for line in captions.read_text(encoding="utf-8").splitlines() if line.strip()]
    per_second, tokens = captions_per_second(tagger, texts)
    return (
        f"{captions.stem}: {per_second:,.0f} captions/s, {tokens:,.0f} tokens/s "
        f"({tokens / per_second:.0f} tokens a caption, {len(texts):,} captions, peak memory {peak_megabytes()} MB)"
    )

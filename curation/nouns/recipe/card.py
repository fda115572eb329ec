"""Measure a tagger on every treebank that is at hand, and write its model card."""

import json
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import spacy
from spacy.language import Language
from thinc.api import use_ops

from curation.nouns.recipe.accuracy import Accuracy, accuracy_on_words, nouns_in_text
from curation.nouns.recipe.conllu import Sentence, read_conllu
from curation.nouns.recipe.treebanks import ATIS, EWT, TESTED_ONLY, find_split, read_split
from curation.nouns.recipe.variants import lower_cased, title_cased, upper_cased, without_final_stop
from curation.nouns.tagger import load_tagger

_TEMPLATE: Final = Path(__file__).parent / "card.md"


@dataclass(frozen=True, slots=True)
class Measured:
    """One row of the card's table."""

    name: str
    accuracy: Accuracy


def measure(tagger: Path, treebanks: Path) -> list[Measured]:
    """Accuracy on EWT dev and its variants, and on the dev part of every other treebank under `treebanks`."""
    with use_ops("numpy", use_blis=False):
        nlp = spacy.load(tagger)
    ewt = read_split(treebanks, EWT, "dev")
    rows = [Measured(name, accuracy_on_words(nlp, sentences)) for name, sentences in _variants(ewt)]
    rows.append(Measured("EWT dev, plain text (own tokeniser)", nouns_in_text(nlp, ewt)))
    for treebank in (ATIS, *TESTED_ONLY):
        path = find_split(treebanks, treebank, "dev")
        if path is not None:
            rows.append(Measured(f"{treebank.name} dev", accuracy_on_words(nlp, read_conllu(path))))
    return rows


def captions_per_second(tagger: Path, captions: Sequence[str]) -> tuple[float, float]:
    """(captions, tokens) that `Tagger.tag` does a second, after one pass to warm up."""
    loaded = load_tagger(str(tagger))
    loaded.tag(captions[:500])
    start = time.perf_counter()
    tokens = sum(caption.tokens for caption in loaded.tag(captions))
    seconds = time.perf_counter() - start
    return len(captions) / seconds, tokens / seconds


def write_card(tagger: Path, rows: Sequence[Measured], speeds: Sequence[str]) -> None:
    """Write `README.md` beside the tagger's files: the template with the table, the sizes and the speeds."""
    nlp: Language = spacy.load(tagger)
    size = sum(path.stat().st_size for path in tagger.rglob("*") if path.is_file() and path.suffix != ".md")
    tok2vec = nlp.config["components"]["tok2vec"]["model"]
    text = _TEMPLATE.read_text(encoding="utf-8")
    for name, value in {
        "VERSION": nlp.meta["version"],
        "SPACY": spacy.__version__,
        "NUMPY": np.__version__,
        "MEGABYTES": f"{size / 1e6:.1f}",
        "WIDTH": str(tok2vec["encode"]["width"]),
        "DEPTH": str(tok2vec["encode"]["depth"]),
        "ATTRS": ", ".join(tok2vec["embed"]["attrs"]),
        "ROWS": json.dumps(tok2vec["embed"]["rows"]),
        "TABLE": _table(rows),
        "SPEED": "\n".join(f"- {speed}" for speed in speeds) or "- not measured",
    }.items():
        text = text.replace(f"@{name}@", value)
    (tagger / "README.md").write_text(text, encoding="utf-8")


def peak_megabytes() -> int:
    """The most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _variants(ewt: Sequence[Sentence]) -> list[tuple[str, list[Sentence]]]:
    return [
        ("EWT dev", list(ewt)),
        ("EWT dev, lower case", [lower_cased(s) for s in ewt]),
        ("EWT dev, no final stop", [without_final_stop(s) for s in ewt]),
        ("EWT dev, lower case, no final stop", [lower_cased(without_final_stop(s)) for s in ewt]),
        ("EWT dev, Title Case", [title_cased(s, small_words=True) for s in ewt]),
        ("EWT dev, Title Case Of All Words", [title_cased(s, small_words=False) for s in ewt]),
        ("EWT dev, CAPITALS", [upper_cased(s) for s in ewt]),
    ]


def _table(rows: Sequence[Measured]) -> str:
    lines = [
        "| text | words | UPOS | noun precision | noun recall | noun F1 |",
        "| --- | --: | --: | --: | --: | --: |",
    ]
    for row in rows:
        a = row.accuracy
        shares = " | ".join(f"{100 * x:.2f}" for x in (a.upos, a.noun_precision, a.noun_recall, a.noun_f1))
        lines.append(f"| {row.name} | {a.words:,} | {shares} |")
    return "\n".join(lines)

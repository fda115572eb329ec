"""Make the training text, run `spacy train`, and keep of its result only what tagging needs."""

import random
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import spacy
from spacy.cli.train import train as spacy_train
from spacy.language import Language
from spacy.tokens import Doc, DocBin
from thinc.api import use_ops

from curation.nouns.recipe.conllu import Sentence
from curation.nouns.recipe.treebanks import ATIS, EWT, read_split
from curation.nouns.recipe.variants import VariantRates, lower_cased, training_texts

CONFIG: Final = Path(__file__).parent / "config.cfg"
RATES: Final = VariantRates(rare_word_scale=1.0, caption_words=0.03, caption_verbs=0.08)

_PASSES: Final = 12  # differently varied copies of the training text
_ATIS_EVERY: Final = 4  # ATIS is one narrow topic, so it takes part in one pass of four
_SEED: Final = 1
_VOCAB: Final = spacy.blank("en").vocab
_META: Final = {
    "lang": "en",
    "name": "caption_tagger",
    "version": "1.0.0",
    "description": "Universal part-of-speech tags for image captions and alt text.",
    "license": "CC BY-SA 4.0",
    "sources": [
        {"name": f"UD English {treebank.name}", "url": treebank.repository, "license": treebank.licence}
        for treebank in (EWT, ATIS)
    ],
}


def train_tagger(treebanks: Path, work: Path, out: Path, max_steps: int | None = None) -> None:
    """Train on EWT and ATIS train, choose the best step on EWT dev as it is and lower-cased, and write `out`.

    `work` takes the intermediate files. `max_steps` overrides the config's, for a trial.
    """
    work.mkdir(parents=True, exist_ok=True)
    train, dev = read_split(treebanks, EWT, "train"), read_split(treebanks, EWT, "dev")
    write_docs(_training_docs(train, read_split(treebanks, ATIS, "train")), work / "train.spacy")
    write_docs((_gold_words(s) for s in [*dev, *map(lower_cased, dev)]), work / "dev.spacy")
    overrides: dict[str, str | int] = {"paths.train": str(work / "train.spacy"), "paths.dev": str(work / "dev.spacy")}
    if max_steps is not None:
        overrides["training.max_steps"] = max_steps
    with use_ops("numpy", use_blis=False):
        spacy_train(CONFIG, work / "trained", overrides=overrides)
    write_stripped(spacy.load(work / "trained" / "model-best"), out)


def write_stripped(nlp: Language, out: Path) -> None:
    """Write `nlp` without its training settings, strings and vectors, none of which tagging reads.

    Files already in `out` are replaced, but for the card.
    """
    performance = {"pos_acc": nlp.meta["performance"].get("pos_acc")} if "performance" in nlp.meta else {}
    nlp.meta.update({**_META, "spacy_version": ">=3.8.11,<4.0.0", "performance": performance})
    blank = spacy.blank("en").config
    for section in ("paths", "corpora", "training", "pretraining", "initialize"):
        nlp.config[section] = blank[section]
    for name in nlp.pipe_names:
        shutil.rmtree(out / name, ignore_errors=True)
    nlp.to_disk(out, exclude=["vocab"])


def write_docs(docs: Iterable[Doc], path: Path) -> None:
    """Write `docs` as spaCy's training format."""
    DocBin(attrs=["ORTH", "SPACY", "POS"], docs=docs).to_disk(path)


def _training_docs(ewt: Sequence[Sentence], atis: Sequence[Sentence]) -> Iterator[Doc]:
    """Every second pass has the gold words, the others are text for spaCy's tokeniser, which tagging will use."""
    draw = random.Random(_SEED)
    for number in range(_PASSES):
        as_doc = _gold_words if number % 2 else _plain_text
        yield from map(as_doc, training_texts(ewt, RATES, draw))
        if number % _ATIS_EVERY == 0:
            yield from map(as_doc, training_texts(atis, RATES, draw))


def _plain_text(sentence: Sentence) -> Doc:
    return Doc(_VOCAB, words=list(sentence.words), spaces=list(sentence.spaces), pos=list(sentence.tags))


def _gold_words(sentence: Sentence) -> Doc:
    """A doc of unknown spaces: `spacy.Corpus` then keeps its words instead of tokenising its text anew."""
    return Doc(_VOCAB, words=list(sentence.words), pos=list(sentence.tags))

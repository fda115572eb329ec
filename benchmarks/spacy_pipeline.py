"""A spaCy pipeline of the shape of en_core_web_sm, for measuring beside: its weights are not on the package index."""

import gzip
from itertools import islice
from pathlib import Path
from typing import Any, Final

import spacy
from spacy.language import Language
from spacy.lookups import Lookups
from spacy.tokens import Doc, Span
from spacy.training import Example
from spacy.training.converters import conllu_to_docs
from thinc.api import Adam

from curation.nouns.recipe.treebanks import EWT, find_split
from curation.nouns.tagger import SHIPPED_TAGGER

_WIDTH: Final = 96
_SENTENCES: Final = 320
_ENTITIES: Final = (
    *("CARDINAL", "DATE", "EVENT", "FAC", "GPE", "LANGUAGE", "LAW", "LOC", "MONEY", "NORP"),
    *("ORDINAL", "ORG", "PERCENT", "PERSON", "PRODUCT", "QUANTITY", "TIME", "WORK_OF_ART"),
)
_TOK2VEC: Final = {
    "@architectures": "spacy.Tok2Vec.v2",
    "embed": {
        "@architectures": "spacy.MultiHashEmbed.v2",
        "width": _WIDTH,
        "attrs": ["NORM", "PREFIX", "SUFFIX", "SHAPE"],
        "rows": [5000, 1000, 2500, 2500],
        "include_static_vectors": False,
    },
    "encode": {
        "@architectures": "spacy.MaxoutWindowEncoder.v2",
        "width": _WIDTH,
        "depth": 4,
        "window_size": 1,
        "maxout_pieces": 3,
    },
}


def full_pipeline(data: Path) -> Language:
    """A pipeline of the shape of en_core_web_sm whose tok2vec and tagger are our own."""
    ours = spacy.load(SHIPPED_TAGGER)
    nlp = spacy.blank("en")
    for name in ("tok2vec", "morphologizer"):
        nlp.add_pipe(name, source=ours)
    listener = {"@architectures": "spacy.Tok2VecListener.v1", "width": _WIDTH, "upstream": "*"}
    parser = nlp.add_pipe("parser", config={"model": _transitions("parser", listener)})
    nlp.add_pipe("attribute_ruler").add([[{"ORTH": "\n"}]], {"POS": "SPACE"})
    nlp.add_pipe("lemmatizer", config={"mode": "rule"}).initialize(lookups=_lemma_rules())
    ner = nlp.add_pipe("ner", config={"model": _transitions("ner", _TOK2VEC)})
    examples = _examples(nlp, data)
    for label in {token.dep_ for example in examples for token in example.reference}:
        parser.add_label(label)
    for label in _ENTITIES:
        ner.add_label(label)
    for pipe in (parser, ner):
        pipe.initialize(lambda: examples, nlp=nlp)
    frozen = ["tok2vec", "morphologizer", "attribute_ruler", "lemmatizer"]
    optimiser = Adam(0.001)
    for start in range(0, len(examples), 32):
        nlp.update(examples[start : start + 32], sgd=optimiser, exclude=frozen, annotates=["tok2vec"])
    return nlp


def _transitions(kind: str, tok2vec: dict[str, Any]) -> dict[str, Any]:
    return {
        "@architectures": "spacy.TransitionBasedParser.v2",
        "state_type": kind,
        "extra_state_tokens": False,
        "hidden_width": 64,
        "maxout_pieces": 2,
        "use_upper": True,
        "tok2vec": tok2vec,
    }


def _lemma_rules() -> Lookups:
    lookups = Lookups()
    rules = {"noun": [["ies", "y"], ["s", ""]], "verb": [["ing", ""], ["ed", ""], ["s", ""]], "adj": [["er", ""]]}
    lookups.add_table("lemma_rules", rules)
    for name in ("lemma_exc", "lemma_index"):
        lookups.add_table(name, {part: {} for part in rules})
    return lookups


def _examples(nlp: Language, data: Path) -> list[Example]:
    """Treebank sentences as training examples; their numbers are taken for entities."""
    path = find_split(data / "ud-english", EWT, "dev")
    if path is None:
        raise SystemExit(f"{data}/ud-english: no English Web Treebank there, which the peer's parser is trained on.")
    out = []
    for reference in islice(
        conllu_to_docs(gzip.decompress(path.read_bytes()).decode(), n_sents=1, no_print=True), _SENTENCES
    ):
        numbers = [Span(reference, t.i, t.i + 1, label="CARDINAL") for t in reference if t.pos_ == "NUM"]
        reference.set_ents(numbers, default="outside")
        out.append(Example(Doc(nlp.vocab, words=[token.text for token in reference]), reference))
    return out

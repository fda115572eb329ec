"""The part-of-speech tagger: the one we ship, or any spaCy pipeline by name or directory.

Only the pipes that decide parts of speech are loaded. Strings and lexemes of each batch live in a spaCy memory zone
and die with it, so memory stays flat over any number of captions; no `Doc` leaves this module.

A pipeline whose network we know (ours is one) is computed by `curation.nouns.network`, 2.3 times as fast as through
spaCy's own layers; any other by spaCy, with numpy's matrix product in place of thinc's. A bounded number of words is
remembered across zones, without which the tokeniser starts from nothing at each batch. What a zone gives back leaves
its place in spaCy's hash tables taken, so the pipeline is loaded anew after a number of words that came and went.
"""

import contextlib
import gc
import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import spacy
from spacy.language import Language
from spacy.symbols import IS_SPACE, LEMMA, NOUN, ORTH, POS, PROPN
from thinc.api import get_current_ops, use_ops

from curation.nouns.network import TaggingNetwork
from curation.shards.fingerprint import digest_file, digest_of
from schemas.errors import UserError

SHIPPED_TAGGER: Final = Path(__file__).parent / "en_caption_tagger"

BATCH_CAPTIONS: Final = 64
_REMEMBERED_WORDS: Final = 20_000
_REMEMBERED_NOUNS: Final = 50_000
_PASSING_WORDS: Final = 250_000
"""Words that come and go before the pipeline is loaded anew: by then they hold some 25 MB of hash tables."""

_PROBE: Final = "A brown dog runs across the green grass in Paris."
_NEEDLESS: Final = frozenset(
    {
        *("parser", "beam_parser", "senter", "sentencizer", "ner", "beam_ner"),
        *("entity_linker", "entity_ruler", "span_ruler", "span_finder", "spancat", "spancat_singlelabel"),
        *("textcat", "textcat_multilabel", "merge_entities", "merge_noun_chunks", "merge_subtokens"),
    }
)
_LEMMATISERS: Final = frozenset({"lemmatizer", "trainable_lemmatizer"})
_NOT_WEIGHTS: Final = frozenset({".md", ".pyc", ".py"})


class Normalisation(StrEnum):
    """How a noun is spelt before it is counted."""

    LOWER = "lower"  # the word as written, in lower case
    LEMMA = "lemma"  # the pipeline's lemma, in lower case


@dataclass(frozen=True, slots=True)
class TaggerInfo:
    """Which tagger counted: name and version from its `meta.json`, the digest of its files, and spaCy's version."""

    name: str
    version: str
    digest: str
    spacy_version: str


@dataclass(frozen=True, slots=True)
class TaggedNoun:
    """One occurrence of a noun, normalised."""

    noun: str
    proper: bool


@dataclass(frozen=True, slots=True)
class TaggedCaption:
    """What counting needs to know of one caption: its nouns in order, and how many tokens it has."""

    tokens: int
    nouns: tuple[TaggedNoun, ...]


class Tagger:
    """A loaded pipeline. Not safe for use by several threads at once: a memory zone belongs to the pipeline."""

    __slots__ = ("_load", "_network", "_nlp", "_nouns", "_passed", "_strings_limit", "info", "normalisation")

    def __init__(
        self, nlp: Language, load: Callable[[], Language], info: TaggerInfo, normalisation: Normalisation
    ) -> None:
        """Tag by `nlp`, and later by what `load` gives, which must be the same."""
        self.info = info
        self.normalisation = normalisation
        self._load = load
        self._nouns: dict[tuple[int, int, bool], TaggedNoun | None] = {}
        self._use(nlp)

    def tag(self, captions: Sequence[str]) -> list[TaggedCaption]:
        """Tag `captions`, in order. A noun is a token tagged NOUN or PROPN that has at least one letter."""
        out: list[TaggedCaption] = []
        for start in range(0, len(captions), BATCH_CAPTIONS):
            batch = [_encodable(caption) for caption in captions[start : start + BATCH_CAPTIONS]]
            if self._passed >= _PASSING_WORDS:
                self._renew()
            self._remember_words(batch)
            kept = len(self._nlp.vocab.strings)
            with self._nlp.memory_zone():
                out += self._tag(batch)
                self._passed += len(self._nlp.vocab.strings) - kept
        return out

    def _use(self, nlp: Language) -> None:
        """Tag by `nlp` from now on. Ids of words are their hashes, so nouns that are remembered stay what they are."""
        self._nlp = nlp
        self._passed = 0
        self._strings_limit = len(nlp.vocab.strings) + _REMEMBERED_WORDS
        nlp.tokenizer.max_cache_size = _REMEMBERED_WORDS
        self._network = TaggingNetwork.of(nlp) if self.normalisation is Normalisation.LOWER else None

    def _renew(self) -> None:
        """Load the pipeline anew into the memory of the old one, which refers to itself and so has to be collected."""
        del self._nlp, self._network
        gc.collect()
        self._use(self._load())

    def _remember_words(self, batch: Sequence[str]) -> None:
        """Tokenise outside the memory zone while there is room, so that common words stay in the tokeniser's cache."""
        if len(self._nlp.vocab.strings) < self._strings_limit:
            self._nlp.tokenizer(" ".join(batch))

    def _tag(self, batch: Sequence[str]) -> list[TaggedCaption]:
        """Tag a batch within a memory zone, whose strings are gone with it."""
        if self._network is None:
            docs = list(self._nlp.pipe(batch, batch_size=BATCH_CAPTIONS))
        else:
            docs = [self._nlp.make_doc(caption) for caption in batch]
        lengths = np.array([len(doc) for doc in docs])
        words, lemmas, tags, is_space = np.concatenate([doc.to_array([ORTH, LEMMA, POS, IS_SPACE]) for doc in docs]).T
        if self._network is not None:
            tags = self._network.tags(words, lengths)
        (at,) = np.nonzero((tags == NOUN) | (tags == PROPN))
        spellings = (lemmas if self.normalisation is Normalisation.LEMMA else words)[at].tolist()
        found = list(map(self._noun, words[at].tolist(), spellings, (tags[at] == PROPN).tolist()))
        ends = np.cumsum(lengths)
        spaces = np.cumsum([0, *is_space.tolist()])
        tokens = np.diff(ends - spaces[ends], prepend=0).tolist()
        nouns = itertools.pairwise([0, *np.searchsorted(at, ends).tolist()])
        return [
            TaggedCaption(number, tuple(noun for noun in found[first:last] if noun is not None))
            for number, (first, last) in zip(tokens, nouns, strict=True)
        ]

    def _noun(self, word: int, spelling: int, proper: bool) -> TaggedNoun | None:
        """The noun that the ids stand for, remembered: most nouns of a batch were met before. None without a letter."""
        key = (word, spelling, proper)
        if key not in self._nouns:
            if len(self._nouns) == _REMEMBERED_NOUNS:
                self._nouns.clear()
            strings = self._nlp.vocab.strings
            named = any(map(str.isalpha, strings[word]))
            self._nouns[key] = TaggedNoun(strings[spelling].lower(), proper) if named else None
        return self._nouns[key]


def load_tagger(name_or_path: str | None, normalisation: Normalisation = Normalisation.LOWER) -> Tagger:
    """The tagger of that name: None is the one we ship, else an installed spaCy package or a pipeline's directory.

    Raises `UserError` if it cannot be found or read, sets no part of speech, or sets no lemma where one is wanted.
    """
    name = str(SHIPPED_TAGGER) if name_or_path is None else name_or_path
    wants_lemmas = normalisation is Normalisation.LEMMA
    needless = _NEEDLESS if wants_lemmas else _NEEDLESS | _LEMMATISERS
    nlp = _load(name, needless)
    probe = nlp(_PROBE)
    if not any(token.pos in (NOUN, PROPN) for token in probe):
        raise UserError(f"tagger {name}: finds no noun in {_PROBE!r}. Name an English pipeline that sets token.pos_.")
    if wants_lemmas and not any(token.lemma_ for token in probe):
        raise UserError(f"tagger {name}: sets no lemmas. Count without lemmas, or name a pipeline with a lemmatizer.")
    info = _info(nlp, name)
    return Tagger(nlp, partial(_load_the_same, name, needless, info), info, normalisation)


def _load_the_same(name: str, needless: frozenset[str], info: TaggerInfo) -> Language:
    """The pipeline again, if its files are those that `info` was taken of."""
    nlp = _load(name, needless)
    if _info(nlp, name) != info:
        raise UserError(f"tagger {name}: its files changed while it was in use. Run the same command again.")
    return nlp


def _load(name: str, needless: frozenset[str]) -> Language:
    try:
        config = spacy.util.load_config(_folder(name) / "config.cfg")
        factories = {pipe: config["components"].get(pipe, {}).get("factory") for pipe in config["nlp"]["pipeline"]}
        excluded = [pipe for pipe, factory in factories.items() if factory in needless]
        with _fast_products():
            nlp = spacy.load(name, exclude=excluded)
        # A caption longer than spaCy's default limit is tagged like any other: the limit is the parser's.
        nlp.max_length = sys.maxsize
        return nlp
    except (OSError, ImportError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"tagger {name}: cannot be loaded ({reason}). Name an installed spaCy pipeline such as en_core_web_sm, "
            f"give the directory of one, or leave it out for the tagger that is shipped."
        ) from None


def _fast_products() -> contextlib.AbstractContextManager[None]:
    """Layers built within multiply by numpy, unless another device than the CPU was chosen."""
    if get_current_ops().name != "numpy":
        return contextlib.nullcontext()
    return use_ops("numpy", use_blis=False)


def _folder(name: str) -> Path:
    """Where the files of the pipeline `name` lie."""
    if not spacy.util.is_package(name):
        return Path(name)
    package = spacy.util.get_package_path(name)
    meta = spacy.util.get_model_meta(package)
    return Path(package) / f"{meta['lang']}_{meta['name']}-{meta['version']}"


def _info(nlp: Language, name: str) -> TaggerInfo:
    meta = nlp.meta
    return TaggerInfo(
        name=f"{meta['lang']}_{meta['name']}" if meta.get("name") else Path(name).name,
        version=str(meta.get("version", "")),
        digest=_digest(Path(nlp.path) if nlp.path is not None else _folder(name)),
        spacy_version=spacy.__version__,
    )


def _encodable(caption: str) -> str:
    """The caption with lone surrogates, which JSON can smuggle in and UTF-8 cannot hold, as question marks."""
    return caption.encode("utf-8", "replace").decode("utf-8")


def _digest(folder: Path) -> str:
    """One digest of the pipeline's files, its card and code left out."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix not in _NOT_WEIGHTS)
    return digest_of({path.relative_to(folder).as_posix(): digest_file(str(path)) for path in files})

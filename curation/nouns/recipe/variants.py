"""What captions look like and treebanks do not: lower case, Title Case, no final stop, words never seen before.

Every change keeps the number of words, or drops the last one, so the gold tags stay right. Each function takes and
gives back one `Sentence`; what is random is drawn from the generator that is passed in.
"""

import random
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from curation.nouns.recipe.caption_words import CAPTION_WORDS
from curation.nouns.recipe.conllu import Sentence

_FINAL_STOPS = frozenset({".", "!", "?"})
_KEPT_LOW_IN_TITLES = frozenset({"ADP", "CCONJ", "DET", "PART"})
_REPLACEABLE = frozenset({"NOUN", "VERB", "ADJ"})
_PREFIX, _SUFFIX = 1, 3  # the characters that spaCy's PREFIX and SUFFIX features see


@dataclass(frozen=True, slots=True)
class VariantRates:
    """Shares of the training text, in [0, 1]. The three casings exclude each other.

    `caption_words` is the chance that a noun or adjective gives way to a caption word of its Penn tag, `caption_verbs`
    the same for verbs. `rare_word_scale` is s in the chance s / (s + n) that a word seen n times is replaced by an
    unknown one; 0 is never.
    """

    lower: float = 0.15
    title: float = 0.07
    upper: float = 0.02
    no_stop: float = 0.3
    joined: float = 0.5
    longest_join: int = 4
    rare_word_scale: float = 0.0
    caption_words: float = 0.0
    caption_verbs: float = 0.0


def lower_cased(sentence: Sentence) -> Sentence:
    """The sentence in lower case."""
    return replace(sentence, words=tuple(w.lower() for w in sentence.words))


def upper_cased(sentence: Sentence) -> Sentence:
    """The sentence in capitals."""
    return replace(sentence, words=tuple(w.upper() for w in sentence.words))


def title_cased(sentence: Sentence, small_words: bool) -> Sentence:
    """Every Word Begins With a Capital; with `small_words`, articles, prepositions and conjunctions do not."""
    words = []
    for position, (word, tag) in enumerate(zip(sentence.words, sentence.tags, strict=True)):
        low = small_words and position > 0 and tag in _KEPT_LOW_IN_TITLES
        joined = position > 0 and not sentence.spaces[position - 1] and "'" in word
        words.append(word if low or joined else word[:1].upper() + word[1:])
    return replace(sentence, words=tuple(words))


def without_final_stop(sentence: Sentence) -> Sentence:
    """The sentence without its final `.`, `!` or `?`; unchanged if it has none or nothing else."""
    if len(sentence.words) < 2 or sentence.words[-1] not in _FINAL_STOPS:
        return sentence
    return Sentence(
        sentence.words[:-1], sentence.spaces[:-1], sentence.tags[:-1], sentence.penn_tags[:-1], sentence.document
    )


def with_unknown_words(sentence: Sentence, counts: Counter[str], scale: float, draw: random.Random) -> Sentence:
    """The sentence with the middles of some rare words replaced, so that only prefix, suffix and shape are familiar.

    After the word dropout of Kiperwasser and Goldberg (2016, §5): chance `scale / (scale + count)`.
    """
    words = []
    for word in sentence.words:
        rare = draw.random() < scale / (scale + counts[word.lower()])
        words.append(_unknown(word, draw) if rare and word.isalpha() else word)
    return replace(sentence, words=tuple(words))


def with_caption_words(sentence: Sentence, rates: VariantRates, draw: random.Random) -> Sentence:
    """The sentence with some words replaced by caption words of the same Penn tag and casing."""
    words = []
    for word, tag, penn_tag in zip(sentence.words, sentence.tags, sentence.penn_tags, strict=True):
        rate = rates.caption_verbs if tag == "VERB" else rates.caption_words
        if penn_tag in CAPTION_WORDS and tag in _REPLACEABLE and draw.random() < rate:
            other = draw.choice(CAPTION_WORDS[penn_tag])
            word = other.upper() if word.isupper() and len(word) > 1 else other.title() if word[0].isupper() else other
        words.append(word)
    return replace(sentence, words=tuple(words))


def joined(sentences: Sequence[Sentence]) -> Sentence:
    """Several sentences in a row as one text."""
    spaces: list[bool] = []
    for sentence in sentences:
        spaces += [*sentence.spaces[:-1], True]
    return Sentence(
        tuple(w for s in sentences for w in s.words),
        tuple(spaces),
        tuple(t for s in sentences for t in s.tags),
        tuple(t for s in sentences for t in s.penn_tags),
        sentences[0].document,
    )


def training_texts(sentences: Sequence[Sentence], rates: VariantRates, draw: random.Random) -> Iterable[Sentence]:
    """One pass over `sentences`: neighbours of a document joined at random, each text then given its casing and end."""
    counts = Counter(w.lower() for s in sentences for w in s.words)
    for _, document in groupby(sentences, key=lambda s: s.document):
        for run in _runs([with_caption_words(s, rates, draw) for s in document], rates, draw):
            text = joined(run)
            if rates.rare_word_scale > 0:
                text = with_unknown_words(text, counts, rates.rare_word_scale, draw)
            text = _cased(text, rates, draw)
            yield without_final_stop(text) if draw.random() < rates.no_stop else text


def _runs(document: list[Sentence], rates: VariantRates, draw: random.Random) -> Iterable[list[Sentence]]:
    start = 0
    while start < len(document):
        length = draw.randint(2, rates.longest_join) if draw.random() < rates.joined else 1
        yield document[start : start + length]
        start += length


def _cased(text: Sentence, rates: VariantRates, draw: random.Random) -> Sentence:
    position = draw.random()
    if position < rates.lower:
        return lower_cased(text)
    if position < rates.lower + rates.title:
        return title_cased(text, small_words=draw.random() < 0.5)
    if position < rates.lower + rates.title + rates.upper:
        return upper_cased(text)
    return text


def _unknown(word: str, draw: random.Random) -> str:
    """`word` with other letters between prefix and suffix, or throughout if it is too short to have a middle."""
    start, stop = (_PREFIX, len(word) - _SUFFIX) if len(word) > _PREFIX + _SUFFIX else (0, len(word))
    letters = (draw.choice(string.ascii_uppercase if c.isupper() else string.ascii_lowercase) for c in word[start:stop])
    return word[:start] + "".join(letters) + word[stop:]

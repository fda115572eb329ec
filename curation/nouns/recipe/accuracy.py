"""How well a pipeline tags gold words: universal tags, and the one question that the counts ask of it.

`is a noun` means tagged NOUN or PROPN; precision, recall and F1 are those of that yes-or-no question.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from spacy.language import Language
from spacy.tokens import Doc

from curation.nouns.recipe.conllu import Sentence

NOUN_TAGS = frozenset({"NOUN", "PROPN"})
_BATCH = 256


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Tallies over words; `right` counts equal universal tags, the other three the words that are nouns."""

    words: int
    right: int
    both_noun: int
    gold_noun: int
    found_noun: int

    @property
    def upos(self) -> float:
        """Share of words with the right universal tag."""
        return self.right / self.words if self.words else 0.0

    @property
    def noun_precision(self) -> float:
        """Share of the words found to be nouns that are."""
        return self.both_noun / self.found_noun if self.found_noun else 0.0

    @property
    def noun_recall(self) -> float:
        """Share of the nouns that were found."""
        return self.both_noun / self.gold_noun if self.gold_noun else 0.0

    @property
    def noun_f1(self) -> float:
        """Harmonic mean of precision and recall of the nouns."""
        total = self.gold_noun + self.found_noun
        return 2 * self.both_noun / total if total else 0.0


def accuracy_on_words(nlp: Language, sentences: Sequence[Sentence]) -> Accuracy:
    """Tag the gold words of each sentence, a sentence at a time, and compare word by word."""
    docs = (Doc(nlp.vocab, words=list(s.words), spaces=list(s.spaces)) for s in sentences)
    words = right = both = gold = found = 0
    for sentence, doc in zip(sentences, _tagged(nlp, docs), strict=True):
        for expected, token in zip(sentence.tags, doc, strict=True):
            words += 1
            right += token.pos_ == expected
            is_noun, says_noun = expected in NOUN_TAGS, token.pos_ in NOUN_TAGS
            both += is_noun and says_noun
            gold += is_noun
            found += says_noun
    return Accuracy(words, right, both, gold, found)


def nouns_in_text(nlp: Language, sentences: Sequence[Sentence]) -> Accuracy:
    """Tag the plain text with the pipeline's own tokeniser and compare nouns by their place in the text.

    `words` counts gold words, and `right` those that the tokeniser found with the same bounds and the right tag.
    """
    words = right = both = gold = found = 0
    for sentence, doc in zip(sentences, nlp.pipe([s.text for s in sentences], batch_size=_BATCH), strict=True):
        expected = _spans(sentence)
        given = {(t.idx, t.idx + len(t)): t.pos_ for t in doc}
        gold_nouns = {span for span, tag in expected.items() if tag in NOUN_TAGS}
        found_nouns = {span for span, tag in given.items() if tag in NOUN_TAGS}
        words += len(expected)
        right += sum(given.get(span) == tag for span, tag in expected.items())
        both += len(gold_nouns & found_nouns)
        gold += len(gold_nouns)
        found += len(found_nouns)
    return Accuracy(words, right, both, gold, found)


def _spans(sentence: Sentence) -> dict[tuple[int, int], str]:
    spans: dict[tuple[int, int], str] = {}
    start = 0
    for word, space, tag in zip(sentence.words, sentence.spaces, sentence.tags, strict=True):
        spans[start, start + len(word)] = tag
        start += len(word) + space
    return spans


def _tagged(nlp: Language, docs: Iterable[Doc]) -> Iterable[Doc]:
    for _, component in nlp.pipeline:
        docs = component.pipe(docs, batch_size=_BATCH)
    return docs

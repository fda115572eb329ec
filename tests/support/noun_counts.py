"""Counts of given nouns, for tests of what is made of counts."""

from curation.nouns.counting import CountingRules, NounCounter, NounCounts
from curation.nouns.tagger import Normalisation, TaggedCaption, TaggedNoun, TaggerInfo

RULES = CountingRules(TaggerInfo("en_test", "1", "0123456789", "3"), Normalisation.LOWER)


def counted(columns: dict[str, dict[str, int]]) -> NounCounts:
    """Captions of one noun each, so many of each noun in a column; a noun in capitals is a PROPN."""
    counter = NounCounter(RULES)
    for column, occurrences in columns.items():
        for noun, n in occurrences.items():
            for _ in range(n):
                counter.add_caption(column, TaggedCaption(1, (TaggedNoun(noun.lower(), noun.isupper()),)))
    return counter.counts()

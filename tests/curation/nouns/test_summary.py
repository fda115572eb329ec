from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from curation.nouns.counting import CountingRules, NounCounter, NounCounts
from curation.nouns.spectrum import Counted
from curation.nouns.summary import summarise
from curation.nouns.tagger import Normalisation, TaggedCaption, TaggedNoun, TaggerInfo

RULES = CountingRules(TaggerInfo("en_test", "1", "0123456789", "3"), Normalisation.LOWER)
NOUN = st.builds(TaggedNoun, st.sampled_from(["dog", "rose", "été", "名", "z"]), st.booleans())
ROWS = st.lists(st.tuples(st.sampled_from(["raw_caption", "caption"]), st.lists(NOUN)), max_size=25)


def counted(rows: list[tuple[str, list[TaggedNoun]]]) -> NounCounts:
    counter = NounCounter(RULES)
    for column, nouns in rows:
        counter.add_caption(column, TaggedCaption(len(nouns), tuple(nouns)))
    return counter.counts()


@given(ROWS, st.integers(1, 4))
def test_a_summary_of_blocks_is_that_of_the_whole(rows: list[tuple[str, list[TaggedNoun]]], block: int) -> None:
    counts = counted(rows)
    blocks = (counts.nouns.slice(start, block) for start in range(0, counts.nouns.num_rows, block))
    one, other = summarise(RULES, counts.totals, blocks), summarise(RULES, counts.totals, [counts.nouns])
    assert one.columns == other.columns == tuple(sorted({column for column, _ in rows}))
    assert one.tops == other.tops
    for name, spectrum in one.spectra.items():
        for field in ("tf", "tf_nouns", "df", "df_nouns"):
            assert getattr(spectrum, field).tolist() == getattr(other.spectra[name], field).tolist()


@given(ROWS)
def test_spectra_and_tops_are_those_of_plain_counting(rows: list[tuple[str, list[TaggedNoun]]]) -> None:
    counts = counted(rows)
    summary = summarise(RULES, counts.totals, [counts.nouns])
    for column in summary.columns:
        nouns = [noun for name, found in rows for noun in found if name == column]
        for kind in Counted:
            tf = Counter(n.noun for n in nouns if kind is Counted.BOTH or n.proper == (kind is Counted.PROPN))
            spectrum = summary.spectra[column, kind]
            assert dict(zip(spectrum.tf.tolist(), spectrum.tf_nouns.tolist(), strict=True)) == Counter(tf.values())
            assert list(summary.tops[column, kind]) == sorted(tf.items(), key=lambda item: (-item[1], item[0].encode()))
            assert spectrum.captions == sum(name == column for name, _ in rows)


def test_a_spectrum_tells_distinct_nouns_occurrences_and_singles() -> None:
    dog, rex = TaggedNoun("dog", False), TaggedNoun("rex", True)
    counts = counted([("caption", [dog, dog, rex]), ("caption", [dog])])
    spectrum = summarise(RULES, counts.totals, [counts.nouns]).spectra["caption", Counted.BOTH]
    assert (spectrum.tf.tolist(), spectrum.tf_nouns.tolist()) == ([1, 3], [1, 1])
    assert (spectrum.df.tolist(), spectrum.df_nouns.tolist()) == ([1, 2], [1, 1])
    assert (spectrum.captions, spectrum.occurrences, spectrum.distinct, spectrum.singles) == (2, 4, 2, 1)
    assert (spectrum.above(2), spectrum.above(3)) == (1, 0)

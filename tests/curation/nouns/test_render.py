import json

from curation.nouns.counting import CountingRules, NounCounter
from curation.nouns.render import PAPER_TABLE_1, render_table, table_record
from curation.nouns.spectrum import Counted
from curation.nouns.statistics import NounStatistics, noun_statistics
from curation.nouns.summary import NounSummary, summarise
from curation.nouns.tagger import Normalisation, TaggedCaption, TaggedNoun, TaggerInfo

RULES = CountingRules(TaggerInfo("en_test", "1.5", "0123456789abcdef", "3.8.0"), Normalisation.LOWER)


def counts() -> NounSummary:
    counter = NounCounter(RULES)
    for i in range(1200):
        counter.add_caption("caption", TaggedCaption(5, (TaggedNoun("dog", False), TaggedNoun(f"n{i}", True))))
    found = counter.counts()
    return summarise(RULES, found.totals, [found.nouns])


def rows() -> list[NounStatistics]:
    whole = [noun_statistics(counts(), "caption", kind) for kind in Counted]
    return [*whole, noun_statistics(counts(), "caption", Counted.BOTH, 100)]


def test_the_table_says_n_tagger_version_and_spelling() -> None:
    text = render_table(rows(), RULES)
    assert "1,200" in text
    assert "en_test 1.5 (0123456789ab), spaCy 3.8.0" in text
    assert "lower case (lower)" in text
    assert "more than 10 times" in text


def test_the_columns_are_aligned_and_expectations_are_marked() -> None:
    lines = render_table(rows(), RULES).splitlines()
    table = lines[: lines.index("")]
    assert len({len(line) for line in table}) == 1
    assert "~101" in table[5]
    assert "~" not in table[2]
    assert not any(line != line.rstrip() for line in lines)


def test_without_expectations_there_is_no_word_of_them() -> None:
    assert "rarefaction" not in render_table(rows()[:3], RULES)
    assert "rarefaction" in render_table(rows(), RULES)


def test_the_papers_rows_agree_on_one_number_of_captions() -> None:
    text = render_table(rows(), RULES)
    for row in PAPER_TABLE_1:
        millions = float(row.nouns.removesuffix("M"))
        assert abs(millions / row.per_caption - 11.19) < 0.1
        assert f"PixArt-α: {row.name}" in text


def test_the_record_is_json_and_holds_every_row() -> None:
    record = json.loads(json.dumps(table_record(rows(), RULES)))
    assert [r["counted"] for r in record["rows"]] == ["NOUN", "PROPN", "NOUN+PROPN", "NOUN+PROPN"]
    assert record["rows"][2]["per_caption"] == 2.0
    assert record["rules"]["tagger"]["digest"] == "0123456789abcdef"
    assert record["rules"]["normalisation"] == "lower"
    assert record["rows"][3]["expected"] is True
    assert len(record["paper"]) == 4

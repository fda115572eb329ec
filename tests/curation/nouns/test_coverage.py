import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from noun_counts import RULES, counted

from curation.nouns.counting import NounCounts
from curation.nouns.coverage import cover, listed_lines, listed_nouns
from curation.nouns.summary import summarise
from schemas.errors import UserError


def rows_of(counts: NounCounts, column: str) -> list[pa.Table]:
    return [counts.nouns.filter(pc.equal(counts.nouns["column"], column))]


COUNTS = counted({"caption": {"dog": 11, "cat": 10, "atmosphere": 19}})
SUMMARY = summarise(RULES, COUNTS.totals, [COUNTS.nouns])


def test_entries_that_occur_and_that_are_valid_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("Dog\n cat \ndog\n\nzebra\npolar_bear\nstop  sign\n")
    found = cover(SUMMARY, "caption", rows_of(COUNTS, "caption"), "list", listed_lines(str(tmp_path / "list.txt")))
    assert (found.entries, found.phrases, found.once, found.valid) == (5, 2, 2, 1)
    assert found.outside == pytest.approx(19 / 40)
    assert found.captions == 40


def test_a_zipped_list_is_read_alike(tmp_path: Path) -> None:
    (tmp_path / "list.txt.gz").write_bytes(gzip.compress(b"dog\nzebra\n"))
    (listed,) = listed_lines(str(tmp_path / "list.txt.gz"))
    assert listed["noun"].to_pylist() == ["dog", "zebra"]


def test_the_columns_of_counted_captions_make_one_list() -> None:
    other = counted({"caption": {"dog": 3, "zebra": 1}, "raw_caption": {"dog": 1, "ant": 1}})
    listed = listed_nouns(rows_of(other, column) for column in ("caption", "raw_caption"))
    found = cover(SUMMARY, "caption", rows_of(COUNTS, "caption"), "other", listed)
    assert (found.entries, found.once, found.valid) == (3, 1, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\xff\xfe", "not a UTF-8 text file"), (b"\n \n", "no nouns in it"), (None, "no such file")],
)
def test_a_list_that_cannot_be_used_is_told_in_one_line(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "list.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        list(listed_lines(str(path)))
    assert "\n" not in str(caught.value)

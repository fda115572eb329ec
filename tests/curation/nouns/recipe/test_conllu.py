import gzip
from pathlib import Path

import pytest

from curation.nouns.recipe.conllu import parse_conllu, read_conllu
from schemas.errors import UserError


def row(index: str, form: str, tag: str = "_", misc: str = "_") -> str:
    return "\t".join([index, form, "_", tag, f"{tag}x", "_", "_", "_", "_", misc])


DONT = [
    "# newdoc id = first",
    "# text = I don't, ok",
    row("1", "I", "PRON"),
    row("2-3", "don't", misc="SpaceAfter=No"),
    row("2", "do", "AUX"),
    row("3", "n't", "PART"),
    row("4", ",", "PUNCT"),
    row("4.1", "ghost", "VERB"),
    row("5", "ok", "INTJ"),
    "",
]


def test_a_multiword_token_gives_its_words_and_the_space_of_its_whole() -> None:
    (sentence,) = parse_conllu(DONT, "x")
    assert sentence.words == ("I", "do", "n't", ",", "ok")
    assert sentence.tags == ("PRON", "AUX", "PART", "PUNCT", "INTJ")
    assert sentence.penn_tags == ("PRONx", "AUXx", "PARTx", "PUNCTx", "INTJx")
    assert sentence.spaces == (True, False, False, True, True)
    assert sentence.text.rstrip() == "I don't, ok"
    assert sentence.document == "first"


def test_each_sentence_knows_its_document() -> None:
    second = ["# newdoc id = second", row("1", "Yes", "INTJ"), "", row("1", "No", "INTJ")]
    assert [s.document for s in parse_conllu([*DONT, *second], "x")] == ["first", "second", "second"]


def test_a_line_with_missing_columns_is_named() -> None:
    with pytest.raises(UserError, match="x: line 1 has 2 columns"):
        list(parse_conllu(["1\tword"], "x"))


def test_gzipped_and_plain_files_read_alike(tmp_path: Path) -> None:
    text = "\n".join(DONT)
    (tmp_path / "a.conllu").write_text(text, encoding="utf-8")
    (tmp_path / "a.conllu.gz").write_bytes(gzip.compress(text.encode()))
    assert read_conllu(tmp_path / "a.conllu") == read_conllu(tmp_path / "a.conllu.gz")


def test_a_missing_file_is_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read as CoNLL-U"):
        read_conllu(tmp_path / "none.conllu")

"""The dataset card: all tables, no pictures, and text that stays text."""

import re
from typing import Any

from curation.report.card import render_markdown
from curation.report.collect import collect
from curation.report.compose import compose
from curation.report.inputs import CorpusInputs


def card_of(*inputs: CorpusInputs) -> str:
    return render_markdown(compose(collect(inputs)), "my report.html", "my report.json")


def tables_of(card: str) -> list[list[str]]:
    """The lines of each table."""
    return [block.splitlines() for block in re.findall(r"(?:^\|.*\n)+", card, re.MULTILINE)]


def test_the_card_begins_as_a_dataset_card_does(datasets: Any) -> None:
    card = card_of(datasets.inputs)
    assert card.startswith("---\ntask_categories:\n- text-to-image\nsize_categories:\n- n<1K\n---\n")
    assert "[my report.html](my%20report.html)" in card.replace("\\", "")


def test_every_table_has_as_many_cells_in_every_row(datasets: Any) -> None:
    tables = tables_of(card_of(datasets.inputs))
    assert len(tables) > 15
    for lines in tables:
        cells = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
        assert len(cells) == 1, lines
        assert set(lines[1]) <= set("|-: ")


def test_numbers_are_at_the_right_and_words_at_the_left(datasets: Any) -> None:
    card = card_of(datasets.inputs)
    assert "| length of | captions | mean |" in card
    (numbers,) = [table for table in tables_of(card) if table[0].startswith("| length of")]
    assert numbers[1].count("---:") == 9


def test_the_card_holds_no_picture_and_no_markup_of_the_data(datasets: Any) -> None:
    card = card_of(datasets.inputs)
    assert "![" not in card
    assert "base64" not in card
    assert not re.search(r"(?<!\\)<(script|img|b)", card)


def test_the_numbers_of_the_page_are_on_the_card(datasets: Any) -> None:
    card = card_of(datasets.inputs)
    assert "8 rows in = 6 captioned + 2 lost (25.0%)" in card
    assert "| repetition | 1 (16.7%) |" in card
    assert "PixArt-α: SAM-LLaVA" in card

"""The page: whole, self-contained, escaped, and the same every time."""

import json
import re
import shutil
from html.parser import HTMLParser
from typing import Any

import pytest

from curation.report.collect import collect
from curation.report.compose import compose
from curation.report.inputs import CorpusInputs
from curation.report.page import render_html

VOID = {"meta", "img", "br", "link"}
RESOURCES = ("src", "href", "action", "data", "poster", "srcset", "xlink:href", "formaction", "background")


class Checker(HTMLParser):
    """Follows the tags: which are open, what they refer to, what text they hold."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.references: list[str] = []
        self.handlers: list[str] = []
        self.ids: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        for name, value in attrs:
            if name in RESOURCES:
                self.references.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)
            if name == "id":
                self.ids.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    return checker


def words(page: str) -> str:
    return " ".join(" ".join(parsed(page).text).split())


def page_of(*inputs: CorpusInputs) -> str:
    return render_html(compose(collect(inputs)))


def test_the_page_is_well_formed_and_needs_nothing_else(datasets: Any) -> None:
    page = page_of(datasets.inputs)
    found = parsed(page)
    assert not {"script", "iframe", "object", "embed", "b>"} & found.seen
    assert found.handlers == []
    assert all(ref.startswith(("data:image/jpeg;base64,", "#", "data:,")) for ref in found.references)
    assert {ref[1:] for ref in found.references if ref.startswith("#")} <= set(found.ids)
    assert "url(" not in page
    assert "@import" not in page
    assert len(found.ids) == len(set(found.ids))


def test_a_malicious_caption_stays_text(datasets: Any) -> None:
    page = page_of(datasets.inputs)
    assert "<script" not in page
    assert "<img src=http" not in page
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in page
    assert "<b>paris" not in page
    assert "<b>ends" not in page


def test_numbers_are_on_the_page(datasets: Any) -> None:
    told = words(page_of(datasets.inputs))
    assert "8 rows in = 6 captioned + 2 lost (25.0%)" in told
    assert "6 with either = 3 ready for training + 3 lost (50.0%)" in told
    assert "1,967,040 B" in told
    assert "32,768 B" in told
    assert "PixArt-α: SAM-LLaVA" in told
    assert "1 line of the log could not be read" in told


def test_missing_inputs_are_said(datasets: Any) -> None:
    told = words(page_of(CorpusInputs(captions=str(datasets.captions))))
    for option in ("--nouns", "--latents", "--latents and --text", "--run", "--shards and --source"):
        assert f"made without {option}" in told


def test_each_input_alone_gives_a_page(datasets: Any) -> None:
    for kind in ("captions", "nouns", "latents", "text", "run"):
        parsed(page_of(CorpusInputs(**{kind: str(getattr(datasets, kind))})))


def test_every_section_says_what_to_look_for_and_is_in_the_contents(datasets: Any) -> None:
    document = compose(collect([datasets.inputs]))
    page = render_html(document)
    for section in document.sections:
        assert section.look.startswith("Look")
        assert section.look.endswith(".")
        assert f'<li><a href="#{section.anchor}">' in page
        assert f'<section id="{section.anchor}">' in page


def test_every_chart_says_how_many_it_is_over(datasets: Any) -> None:
    figures = re.findall(r"<figcaption>(.*?)</figcaption>", page_of(datasets.inputs))
    assert len(figures) > 12
    assert all(re.search(r'<span class="over">N = [\d,]+', figure) for figure in figures)


def test_corpora_side_by_side_have_a_column_each(datasets: Any) -> None:
    made = [CorpusInputs(name, captions=str(datasets.captions), nouns=str(datasets.nouns)) for name in ("one", "two")]
    page = page_of(*made)
    told = words(page)
    assert "one · two" in told
    assert '<th scope="col">one</th><th scope="col">two</th>' in page
    assert "VN at 2 captions" in told


def test_the_tagger_is_told_once_or_of_each_dataset_where_they_were_counted_differently(datasets: Any) -> None:
    one = CorpusInputs("one", nouns=str(datasets.nouns))
    alike = words(page_of(one, CorpusInputs("two", nouns=str(datasets.nouns))))
    other = datasets.root / "other-nouns"
    shutil.copytree(datasets.nouns, other)
    info = other / "dataset.json"
    info.write_text(
        info.read_text().replace('"name":"small"', '"name":"large"').replace('"name": "small"', '"name": "large"')
    )
    differently = words(page_of(one, CorpusInputs("two", nouns=str(other))))
    assert "not all counted alike" not in alike
    assert "one: tagger small 1.0" in differently
    assert "two: tagger large 1.0" in differently
    assert "not all counted alike" in differently


def test_more_captions_than_the_papers_have_a_row_at_the_papers_number_and_fewer_a_word_of_it(
    datasets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fewer = words(page_of(CorpusInputs(nouns=str(datasets.nouns))))
    assert "By nouns per caption alone these compare with its rows: raw_caption, caption." in fewer
    monkeypatch.setattr("curation.report.sections.nouns.PAPER_CAPTIONS", 1)
    more = words(page_of(CorpusInputs(nouns=str(datasets.nouns))))
    assert "caption, at the paper's N" in more
    assert "cannot be carried up" not in more


def test_the_same_datasets_give_the_same_bytes(datasets: Any) -> None:
    assert page_of(datasets.inputs) == page_of(datasets.inputs)


def test_pictures_are_on_the_page_or_why_not(datasets: Any) -> None:
    page = page_of(datasets.inputs)
    pictures = re.findall(r'src="data:image/jpeg;base64,', page)
    assert len(pictures) > 5
    assert "not_an_image" in page


def test_one_huge_setting_does_not_swell_the_page(datasets: Any) -> None:
    page = page_of(CorpusInputs(captions=str(datasets.captions)))
    info = datasets.captions / "dataset.json"
    info.write_text(info.read_text().replace('"hub:a/b@c"', json.dumps("m" * 100_000)))
    assert len(page_of(CorpusInputs(captions=str(datasets.captions)))) - len(page) < 20_000

"""The page: whole, self-contained, escaped, and the same every time."""

import json
import re
from html.parser import HTMLParser
from typing import Any

from curation.report.collect import Inputs, collect
from curation.report.page import render_html, render_json

VOID = {"meta", "img", "br"}
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


def test_the_page_is_well_formed_and_needs_nothing_else(datasets: Any) -> None:
    page = render_html(collect(datasets.inputs))
    found = parsed(page)
    assert not {"script", "link", "iframe", "object", "embed", "b>"} & found.seen
    assert found.handlers == []
    assert all(ref.startswith(("data:image/jpeg;base64,", "#")) for ref in found.references)
    assert {ref[1:] for ref in found.references if ref.startswith("#")} <= set(found.ids)
    assert "url(" not in page
    assert "@import" not in page
    assert len(found.ids) == len(set(found.ids))


def test_a_malicious_caption_stays_text(datasets: Any) -> None:
    page = render_html(collect(datasets.inputs))
    assert "<script" not in page
    assert "<img src=http" not in page
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in page
    assert "<b>paris" not in page
    assert "<b>ends" not in page


def test_numbers_are_on_the_page(datasets: Any) -> None:
    told = words(render_html(collect(datasets.inputs)))
    assert "8 rows in = 6 readable + 2 lost (25.0%)" in told
    assert "6 with either = 3 ready for training + 3 lost (50.0%)" in told
    assert "1,967,040 B" in told
    assert "32,768 B" in told
    assert "PixArt-α: SAM-LLaVA" in told
    assert "1 line of the log could not be read" in told


def test_missing_inputs_are_said(datasets: Any) -> None:
    told = words(render_html(collect(Inputs(captions=str(datasets.captions)))))
    for option in ("--nouns", "--shards and --source", "--latents and --text", "--run"):
        assert f"it was made without {option} , so there is nothing to say" in told


def test_each_input_alone_gives_a_page(datasets: Any) -> None:
    for kind in ("captions", "nouns", "latents", "text", "run"):
        report = collect(Inputs(**{kind: str(getattr(datasets, kind))}))
        parsed(render_html(report))
        json.loads(render_json(report))


def test_the_same_numbers_are_in_the_json(datasets: Any) -> None:
    record = json.loads(render_json(collect(datasets.inputs)))
    assert record["format"] == "latentmill.report"
    assert [b["rows_in"] - b["kept"] - b["lost"] for b in record["balances"]] == [0] * 6
    assert record["captions"]["words"]["counts"] == {"3": 1, "6": 2, "7": 1}
    assert record["latents"]["volume"]["per_sample"] == 1200
    assert record["nouns"]["rows"][3]["valid"] == 1
    assert record["nouns"]["paper"][2]["name"] == "SAM-LLaVA"
    assert record["times"][0]["worker_seconds"] == 8.0
    assert "base64" not in json.dumps(record)


def test_the_same_datasets_give_the_same_bytes(datasets: Any) -> None:
    first, second = collect(datasets.inputs), collect(datasets.inputs)
    assert render_html(first) == render_html(second)
    assert render_json(first) == render_json(second)


def test_pictures_are_small_jpegs_or_say_why_not(datasets: Any) -> None:
    report = collect(datasets.inputs)
    assert report.pictures is not None
    by_key = {picture.sample.key: picture for picture in report.pictures}
    good = by_key["d/k0"].thumbnail
    assert good is not None
    assert (good.height_px, good.width_px, good.original_height, good.original_width) == (128, 256, 320, 640)
    assert good.jpeg.startswith(b"\xff\xd8")
    assert by_key["d/k4"].thumbnail is None
    assert by_key["d/k4"].problem.startswith("not_an_image")
    page = render_html(report)
    assert len(re.findall(r'src="data:image/jpeg;base64,', page)) == 5
    assert "not_an_image" in page


def test_a_shard_that_was_not_given_is_named(datasets: Any) -> None:
    other = datasets.root / "other.tar"
    datasets.shard.rename(other)
    pictures = collect(Inputs(captions=str(datasets.captions), shards=(str(other),), source="webdataset")).pictures
    assert pictures is not None
    assert {picture.problem for picture in pictures} == {"shard s0 is not among the given --shards"}


def test_one_huge_caption_does_not_swell_the_page(datasets: Any) -> None:
    report = collect(Inputs(captions=str(datasets.captions)))
    info = datasets.captions / "dataset.json"
    info.write_text(info.read_text().replace('"hub:a/b@c"', json.dumps("m" * 100_000)))
    longer = collect(Inputs(captions=str(datasets.captions)))
    assert len(render_html(longer)) - len(render_html(report)) < 20_000

"""The page in a real browser: no errors, charts that draw, links that lead somewhere, phones and dark rooms."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import Chromium, chromium

from curation.report.collect import collect
from curation.report.compose import compose
from curation.report.inputs import CorpusInputs
from curation.report.page import render_html

WINDOWS = [(1200, False), (1200, True), (360, False), (360, True)]

SMALL_CHARTS = """
[...document.querySelectorAll("svg.chart")].filter(chart => {
  const box = chart.getBoundingClientRect();
  const marks = [...chart.querySelectorAll(".bar, .area, .curve, .dot, .part")];
  const drawn = marks.some(mark => mark.getBoundingClientRect().width > 0 || mark.getBoundingClientRect().height > 0);
  return !(box.width > 100 && box.height > 10 && (drawn || marks.length === 0));
}).map(chart => chart.querySelector("title").textContent)
"""
DEAD_LINKS = """
[...document.querySelectorAll("a[href^='#']")].map(a => a.getAttribute("href"))
  .filter(href => !document.getElementById(href.slice(1)))
"""
BROKEN_PICTURES = "[...document.images].filter(i => !(i.complete && i.naturalWidth > 0)).map(i => i.alt)"
FAINT_TEXT = """
(() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = colour => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([r, g, b]) => {
    const linear = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  };
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = rgb(getComputedStyle(e).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return rgb("white");
  };
  const out = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || element.closest("style, title")) continue;
    const style = getComputedStyle(element);
    const front = rgb(element instanceof SVGElement ? style.fill : style.color);
    const pair = [luminance(front), luminance(behind(element))].sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (ratio < 4.5) out.add(`${element.tagName}.${element.getAttribute("class")} ${ratio.toFixed(2)}`);
  }
  return [...out];
})()
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """One browser for all tests here."""
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def pages(datasets: Any, selection: Path, measures: Path, tmp_path: Path) -> list[Path]:
    """A report of everything, one of two corpora, one of nearly nothing, and one with a selection's own funnel."""
    kinds = {kind: str(getattr(datasets, kind)) for kind in ("captions", "nouns", "latents", "text", "run")}
    two = [CorpusInputs("a long name of a corpus", **kinds), CorpusInputs("other", captions=kinds["captions"])]
    made = []
    chosen = dataclasses.replace(datasets.inputs, selection=str(selection), measures=str(measures))
    text = CorpusInputs(text=kinds["text"])
    for name, inputs in (("all", [datasets.inputs]), ("two", two), ("text", [text]), ("chosen", [chosen])):
        made.append(tmp_path / f"{name}.html")
        made[-1].write_text(render_html(compose(collect(inputs))), encoding="utf-8")
    return made


@pytest.mark.parametrize(("width", "dark"), WINDOWS)
def test_the_page_opens_without_an_error_and_fits(browser: Chromium, pages: list[Path], width: int, dark: bool) -> None:
    for page in pages:
        browser.open(page, width=width, dark=dark)
        assert browser.problems == []
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        assert browser.evaluate("innerWidth") == width


@pytest.mark.parametrize("width", [1200, 360])
def test_charts_draw_and_links_lead_somewhere(browser: Chromium, pages: list[Path], width: int) -> None:
    for page in pages:
        browser.open(page, width=width)
        assert browser.evaluate(SMALL_CHARTS) == []
        assert browser.evaluate(DEAD_LINKS) == []
        assert browser.evaluate(BROKEN_PICTURES) == []
    browser.open(pages[0], width=width)
    assert browser.evaluate("document.querySelectorAll('svg.chart').length") > 15
    assert browser.evaluate("document.querySelectorAll('nav a').length") > 10


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_what_is_behind_it(browser: Chromium, pages: list[Path], dark: bool) -> None:
    for page in pages:
        browser.open(page, dark=dark)
        assert browser.evaluate(FAINT_TEXT) == []
        red, green, blue = browser.evaluate(
            "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
        )
        assert (max(red, green, blue) < 60) if dark else (min(red, green, blue) > 200)


@pytest.mark.parametrize("width", [1200, 360])
def test_words_of_charts_stay_within_the_page(browser: Chromium, pages: list[Path], width: int) -> None:
    outside = """
    [...document.querySelectorAll("svg.chart text")].filter(text => {
      const box = text.getBoundingClientRect();
      return box.width > 0 && (box.left < 0 || box.right > innerWidth);
    }).map(text => text.textContent)
    """
    for page in pages:
        browser.open(page, width=width)
        assert browser.evaluate(outside) == []

"""The document as Markdown: a dataset card, with all tables and no pictures beyond links to the page."""

import re
from collections.abc import Iterable, Iterator
from html import escape
from typing import Final

from curation.report.document import Block, Cards, Document, Figures, Folded, Heading, Section, Strip, Sum, Table, Text
from curation.report.formats import number, share

_SIZES: Final = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
    (100_000_000, "10M<n<100M"),
    (1_000_000_000, "100M<n<1B"),
)
_SPECIAL: Final = re.compile(r"([\\`*_{}\[\]<>#|~])")
_LONGEST_CELL: Final = 300


def render_markdown(document: Document, page: str, record: str) -> str:
    """The card. `page` and `record` are the names of the HTML and JSON files beside it."""
    lines = [*_front_matter(document), f"# {_inline(document.title)}", ""]
    lines += [_inline(document.lead), ""] if document.lead else []
    lines += [f"Pictures and charts: [{page}]({_link(page)}). All numbers: [{record}]({_link(record)}).", ""]
    if document.headlines:
        rows = ((one.name, f"{one.value}{f' ({one.note})' if one.note else ''}") for one in document.headlines)
        lines += [*_table(("", "value"), rows, words=False), ""]
    for note in document.notes:
        lines += [f"> **Note.** {_inline(note)}", ""]
    for section in document.sections:
        lines += _section(section, page)
    lines += [
        "## What this card does not know",
        "",
        "Licence, language, how the pictures may be used, and whom they show: the data does not say. Write it here.",
        "",
        f"Made by {document.made_by}.",
    ]
    return "\n".join(lines) + "\n"


def _front_matter(document: Document) -> list[str]:
    lines = ["---", "task_categories:", "- text-to-image"]
    if document.samples is not None:
        size = next((name for most, name in _SIZES if document.samples < most), "n>1B")
        lines += ["size_categories:", f"- {size}"]
    return [*lines, "---", ""]


def _section(section: Section, page: str) -> Iterator[str]:
    yield from (f"## {_inline(section.title)}", "", f"*{_inline(section.look)}*", "")
    for block in section.blocks:
        yield from _block(block, f"{_link(page)}#{section.anchor}")


def _block(block: Block, place: str) -> Iterator[str]:
    if isinstance(block, Table):
        yield from (*_table(block.header, ((row.name, *row.cells) for row in block.rows), words=block.words), "")
    elif isinstance(block, Figures):
        for figure in block.figures:
            yield from (f"**[{_inline(figure.heading)}]({place})**, {_inline(figure.over)}.", "")
            for key in figure.keys:
                yield f"- {_inline(key.name)}{': ' + _inline(key.text) if key.text else ''}"
            yield from [""] if figure.keys else []
            if figure.numbers is not None:
                yield from _block(figure.numbers, place)
            if figure.note:
                yield from (_inline(figure.note), "")
    elif isinstance(block, Heading):
        yield from (f"### {_inline(block.text)}", "")
    elif isinstance(block, Text):
        yield from (_inline(block.text), "")
    elif isinstance(block, Sum):
        yield from _sum(block)
    elif isinstance(block, Cards):
        yield from (f"[{number(len(block.cards))} samples]({place})", "")
    elif isinstance(block, Strip):
        yield from (f"[{_inline(block.heading)}]({place})" if block.tiles else _inline(block.empty), "")
    elif isinstance(block, Folded):
        inner = [line for one in block.blocks for line in _block(one, place)]
        yield from ("<details>", f"<summary>{escape(block.summary)}</summary>", "", *inner, "</details>", "")
    else:
        for column in block.columns:
            for one in column:
                yield from _block(one, place)


def _sum(block: Sum) -> Iterator[str]:
    yield (
        f"**{block.heading}**: {number(block.rows_in)} {block.incoming} = {number(block.kept)} {block.outgoing} + "
        f"{number(block.lost)} lost ({share(block.lost, block.rows_in)})"
    )
    yield ""
    if block.losses:
        rows = ((loss.reason, number(loss.rows), share(loss.rows, block.rows_in)) for loss in block.losses)
        yield from (*_table(("lost because of", "rows", "share"), rows, words=False), "")


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]], *, words: bool) -> Iterator[str]:
    """A table whose first column is words, and the others too if `words`, else numbers at the right."""
    yield f"| {' | '.join(_cell(name) for name in header)} |"
    yield "| --- " + ("| --- " if words else "| ---: ") * (len(header) - 1) + "|"
    for row in rows:
        yield f"| {' | '.join(_cell(cell) for cell in row)} |"


def _cell(text: str) -> str:
    return _inline(text if len(text) <= _LONGEST_CELL else f"{text[: _LONGEST_CELL - 1]}…")


def _inline(text: str) -> str:
    """Text on one line that Markdown takes as text: nothing in it becomes markup, a link or another row."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _link(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "".join(f"%{b:02X}" for b in c.encode()) for c in name)
